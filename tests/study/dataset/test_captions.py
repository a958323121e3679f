"""Captions and the pictures that samples of them are compared with."""

import json

import numpy as np
import pytest
from PIL import Image

from asymlib.study.dataset.captions import read_captions, read_squares


def test_captions_of_coco_or_of_a_text_file_are_drawn_by_the_seed(tmp_path):
    texts = [f"caption {i}" for i in range(20)]
    coco, plain = tmp_path / "captions.json", tmp_path / "captions.txt"
    coco.write_text(json.dumps({"annotations": [{"image_id": 1, "caption": f" {text}\n"} for text in texts]}))
    plain.write_text("\n".join(texts) + "\n\n")
    drawn = read_captions(coco, 10, 0)
    assert drawn == read_captions(plain, 10, 0) != read_captions(coco, 10, 1)
    assert len(set(drawn)) == 10 and set(drawn) <= set(texts)
    with pytest.raises(ValueError, match="captions: got 20 in .*, expected at least 21"):
        read_captions(plain, 21, 0)
    with pytest.raises(FileNotFoundError, match="captions: got .*none.txt, expected COCO's"):
        read_captions(tmp_path / "none.txt", 1, 0)


def test_squares_are_the_middle_of_what_can_be_read(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels[:10, :10]).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    squares = read_squares(sorted(tmp_path.iterdir()), 20, 5, 0)
    assert squares.shape == (1, 20, 20, 3) and (squares == 200).all()
