"""The six words: scores on plain colours, prompts from the parts of a picture, and refusal of other words."""

import pytest
import torch

from asymlib.models.words import WORDS, cell_words, describe, encode_prompt, mean_colour, present_words, word_scores

COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "bright": (1, 1, 1),
    "dark": (0, 0, 0),
    "grey": (0.5, 0.5, 0.5),
}


def plain(word, size=16):
    return torch.tensor(COLOURS[word]).reshape(1, 3, 1, 1).expand(1, 3, size, size) * 2.0 - 1


@pytest.mark.parametrize("word", WORDS)
def test_a_plain_colour_is_described_by_its_word(word):
    everything = torch.ones(1, 1, 16, 16)
    assert WORDS[word_scores(plain(word), everything).argmax()] == word
    assert describe(plain(word), everything) == [word]
    assert cell_words(plain(word))[0, WORDS.index(word)].all()


def test_only_the_hole_is_described():
    image, mask = plain("red").clone(), torch.zeros(1, 1, 16, 16)
    image[..., 8:] = -1
    mask[..., 8:] = 1
    assert describe(image, mask) == ["dark"] and describe(image, torch.ones_like(mask)) == ["red dark"]
    assert torch.equal(mean_colour(image, mask), torch.zeros(1, 3))
    assert describe(image, torch.zeros_like(mask)) == [""]


def test_a_small_part_is_not_said():
    """One cell of sixteen is below the share from which on a word is said."""
    image = plain("red", 32).clone()
    image[..., :8, :8] = -1
    assert describe(image, torch.ones(1, 1, 32, 32)) == ["red"]
    assert present_words(image, torch.ones(1, 1, 32, 32)).sum() == 1


def test_a_prompt_is_its_words():
    assert encode_prompt("dark red").tolist() == [1, 0, 0, 0, 1, 0] == encode_prompt("red dark").tolist()
    assert not encode_prompt(None).any() and not encode_prompt("").any()
    with pytest.raises(ValueError, match="prompt: got 'purple', expected words of red, green, blue"):
        encode_prompt("red purple")
