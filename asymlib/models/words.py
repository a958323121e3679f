"""Six words that describe a picture: what a text is to Stable Diffusion, small enough to be computed from pixels and to
be learned in minutes. A prompt is a few of them, such as "red dark": what the picture is made of."""

import torch
from torch.nn.functional import avg_pool2d

WORDS = ("red", "green", "blue", "bright", "dark", "grey")
CLEAR = 0.1  # a score from which on a colour is not grey
PRESENT = 0.15  # the share of the area from which on a word is said
CELL = 8  # pixels; every cell has one word


def word_scores(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How well each word describes the mean colour of the hole.

    A colour's score is its channel minus the mean of the other two, that of `bright` is the luminance above one half,
    that of `dark` the opposite, all in units of [0, 1] intensities. `grey` is the best where no other reaches CLEAR.

    Args:
        image: (N, 3, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = the region that is described.

    Returns:
        (N, 6), in the order of WORDS.

    Example:
        >>> word_scores(torch.tensor([1.0, -1, -1]).reshape(1, 3, 1, 1), torch.ones(1, 1, 1, 1))
        tensor([[ 1.0000, -0.5000, -0.5000, -0.2010,  0.2010, -0.8000]])
    """
    return _scores(mean_colour(image, mask))


def mean_colour(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N, 3) in [0, 1]: the mean of the hole's pixels of (N, 3, H, W) in [-1, 1]; grey where there is no hole."""
    return ((image * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1) + 1) / 2


def cell_words(image: torch.Tensor) -> torch.Tensor:
    """(N, 6, H / 8, W / 8): 1 at the word that describes each cell's mean colour best, of (N, 3, H, W) in [-1, 1]."""
    colour = (avg_pool2d(image, CELL) + 1) / 2
    best = _scores(colour.movedim(1, -1)).argmax(-1)
    return torch.nn.functional.one_hot(best, len(WORDS)).movedim(-1, 1).float()


def present_words(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N, 6): 1 for every word that describes at least PRESENT of the hole, of (N, 3, H, W) and (N, 1, H, W)."""
    area = avg_pool2d(mask, CELL)
    share = (cell_words(image) * area).sum((2, 3)) / area.sum((2, 3)).clamp(min=1e-6)
    return (share >= PRESENT).float()


def describe(image: torch.Tensor, mask: torch.Tensor) -> list[str]:
    """The prompt of each hole, its words in the order of WORDS."""
    return [
        " ".join(w for w, said in zip(WORDS, row, strict=True) if said) for row in present_words(image, mask).tolist()
    ]


def encode_prompt(prompt: str | None) -> torch.Tensor:
    """(6,): 1 for every word of the prompt; all zeros for None or an empty one, which say nothing.

    Raises:
        ValueError: A word that is not one of WORDS.
    """
    said = (prompt or "").split()
    for word in said:
        if word not in WORDS:
            raise ValueError(f"prompt: got {word!r}, expected words of {', '.join(WORDS)}")
    return torch.tensor([float(word in said) for word in WORDS])


def _scores(colour: torch.Tensor) -> torch.Tensor:
    """(..., 3) in [0, 1] -> (..., 6)."""
    colours = 1.5 * (colour - colour.mean(-1, keepdim=True))  # c - (a + b) / 2 = 1.5 (c - (a + b + c) / 3)
    bright = (colour * torch.tensor([0.299, 0.587, 0.114])).sum(-1, keepdim=True) - 0.5  # luma of BT.601
    scores = torch.cat([colours, bright, -bright], dim=-1)
    return torch.cat([scores, 2 * CLEAR - scores.amax(-1, keepdim=True)], dim=-1)
