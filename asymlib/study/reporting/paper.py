"""The numbers that the paper's authors report (official README), to stand beside ours."""

import pandas as pd

# Inpainting, ImageNet at 224 px: Stable Diffusion with each decoder.
INPAINTING = pd.DataFrame(
    [
        ("vanilla", 9.57, 0.255, 1082.8e-5),
        ("base", 7.60, 0.137, 5.7e-5),
        ("large_1.5x", 7.55, 0.136, 2.6e-5),
        ("large_2x", 7.49, 0.134, 2.1e-5),
    ],
    columns=["decoder", "fid", "lpips", "pre_error"],
)

# Text to image, MS-COCO, without a mask.
TEXT_TO_IMAGE = pd.DataFrame(
    [
        ("vanilla", 19.88, 37.55),
        ("base", 19.92, 37.52),
        ("large_1.5x", 19.75, 37.64),
        ("large_2x", 19.68, 37.73),
    ],
    columns=["decoder", "fid", "inception_score"],
)
