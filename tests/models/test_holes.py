"""Decoding the hole alone: the pixels of the whole picture, for less."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn

import asymlib
from asymlib.masks import dilate
from asymlib.models import holes
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.first_stage import build_first_stage
from asymlib.models.holes import Box, decode_hole
from asymlib.models.normalisation import group_statistics, normalise_with, recorded_statistics, told_statistics
from asymlib.pixels import to_tensor
from asymlib.study.dataset.photographs import packaged_photographs
from asymlib.study.evaluation.cost import window_error


def box_mask(size: tuple[int, int], box: Box) -> torch.Tensor:
    mask = torch.zeros(1, 1, *size)
    box.of(mask).fill_(1)
    return mask


@pytest.fixture(scope="module")
def first_stage() -> AutoencoderKL:
    return asymlib.load("first_stage")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    photograph = next(p for p in packaged_photographs() if p.name == "astronaut")
    return to_tensor(photograph.pixels[None, :320, :512])


@pytest.mark.parametrize("box", [Box(140, 172, 156, 200), Box(0, 30, 0, 30), Box(200, 256, 330, 384)])
def test_without_norms_a_window_is_the_whole_pictures(box):
    torch.manual_seed(0)
    tiny = AutoencoderTiny(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8)).eval()
    nn.init.constant_(tiny.decoder.layers[-1].bias, 0.5)  # else it is clamped
    latent, photo, mask = torch.randn(1, 4, 32, 48), torch.rand(1, 3, 256, 384), box_mask((256, 384), box)
    with torch.no_grad():
        whole = tiny.decode(latent).sample
    assert whole.abs().max() < 1 and whole.std() > 0.001
    seen = []
    tiny.decoder.layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
    result = decode_hole(tiny, latent, photo, mask)
    assert sum(seen) < 0.5 * mask.numel()
    torch.testing.assert_close(box.of(result), box.of(whole), atol=1e-5, rtol=0)
    assert torch.equal(result[:, :, mask[0, 0] == 0], photo[:, :, mask[0, 0] == 0])


@pytest.mark.parametrize("box", [Box(40, 72, 56, 100), Box(0, 30, 100, 128)])
def test_with_the_wholes_statistics_a_window_is_the_whole_pictures(first_stage, photo, box):
    photo = photo[..., :256, :256]
    latent = asymlib.encode_means(first_stage, photo)
    head, steps = holes.parts_of(first_stage.decoder)
    norms = [m for m in first_stage.decoder.modules() if isinstance(m, nn.GroupNorm)]
    with torch.no_grad(), recorded_statistics(norms) as of_whole:
        whole = first_stage.decode(latent).sample
    lowest = head(first_stage.post_quant_conv(latent))
    with torch.no_grad(), told_statistics(of_whole):
        window = holes._decode_box(lowest, steps, box, (256, 256))
    torch.testing.assert_close(window, box.of(whole), atol=1e-4, rtol=0)


def test_statistics_of_the_whole_are_met_within_a_level(first_stage, photo, monkeypatch):
    latent, box = asymlib.encode_means(first_stage, photo), Box(120, 200, 300, 380)
    mask = box_mask((320, 512), box)
    ring = dilate(mask, 4) * dilate(1 - mask, 4)

    def error(which: torch.Tensor) -> float:
        difference = (decode_hole(first_stage, latent, photo, dilate(mask, 8)) - whole).abs() * 127.5
        return float((difference * which).sum() / which.sum() / 3)

    with torch.no_grad():
        whole = first_stage.decode(latent).sample.clamp(-1, 1)
    corrected = error(mask), error(ring)
    assert max(corrected) < 1
    monkeypatch.setattr(holes, "_brought_to_whole", lambda own, in_all, in_part: in_all)  # those of the copy
    assert min(error(mask), error(ring)) > 1.5 * max(corrected)


def test_the_mixture_of_statistics_is_nearer_than_the_windows_or_the_copys(first_stage, monkeypatch):
    """Why windows have those that they have: breaks when simpler ones would do."""
    photographs = [p.pixels for p in packaged_photographs() if min(p.pixels.shape[:2]) >= 384][:4]
    pictures = torch.cat([to_tensor(pixels[None, :384, :384]) for pixels in photographs])
    ways = {"mixture": holes._brought_to_whole, "window": lambda own, *_: own, "copy": lambda own, in_all, _: in_all}
    off = {}
    for name, settle in ways.items():
        monkeypatch.setattr(holes, "_brought_to_whole", settle)
        off[name] = window_error(first_stage, pictures, 0.1)["mean"]
    assert len(pictures) == 4 and off["mixture"] < 0.8 * min(off["window"], off["copy"]), off


def test_a_plain_part_of_the_small_copy_explodes_nothing():
    plain, flat = torch.zeros(1, 2), torch.full((1, 2), 1e-9)
    own, in_all, in_part = (torch.ones(1, 2), plain), (torch.ones(1, 2), plain + 1), (flat, plain)
    variance, mean = holes._brought_to_whole(own, in_all, in_part)
    assert (variance == holes.MOST).all() and (mean == holes.MOST**0.5).all()
    nothing = holes._brought_to_whole(*3 * [(plain, plain)])
    assert all(part.isfinite().all() for part in nothing)


def test_beyond_its_limit_the_lowest_level_sees_tiles(first_stage, photo, monkeypatch):
    """Breaks when a tile of the lowest level lands elsewhere, or the whole is attended to at any size."""
    latent, mask = asymlib.encode_means(first_stage, photo), box_mask((320, 512), Box(120, 200, 300, 380))
    whole = decode_hole(first_stage, latent, photo, mask)
    monkeypatch.setattr(holes, "WHOLE", 32)  # cells, of 40 x 64
    seen = []
    attention = first_stage.decoder.mid_block.attentions[0]
    hook = attention.register_forward_pre_hook(lambda _, inputs: seen.append(max(inputs[0].shape[-2:])))
    tiled = decode_hole(first_stage, latent, photo, mask)
    hook.remove()
    assert len(seen) > 1 and max(seen) <= 32
    assert ((tiled - whole).abs() * mask).sum() / (3 * mask.sum()) * 127.5 < 2


def test_tiles_of_a_window_are_the_window(first_stage, photo, monkeypatch):
    """With the same statistics, to the last digits: nothing of a tile shows where it ends."""
    latent, mask = asymlib.encode_means(first_stage, photo), box_mask((320, 512), Box(64, 200, 100, 300))
    monkeypatch.setattr(holes, "_brought_to_whole", lambda own, in_all, in_part: in_all)
    window = decode_hole(first_stage, latent, photo, mask)
    monkeypatch.setattr(holes, "TILE", 100)
    torch.testing.assert_close(decode_hole(first_stage, latent, photo, mask), window, atol=1e-4, rtol=0)


def test_a_whole_hole_is_decoded_as_ever_and_none_not_at_all(first_stage, photo):
    latent, mask = asymlib.encode_means(first_stage, photo), torch.ones(1, 1, 320, 512)
    with torch.no_grad():
        whole = first_stage.decode(latent).sample.clamp(-1, 1)
    torch.testing.assert_close(decode_hole(first_stage, latent, photo, mask), whole, atol=1e-5, rtol=0)
    assert torch.equal(decode_hole(first_stage, latent, photo, 0 * mask), photo)


def test_few_pixels_are_decoded_for_a_small_hole(first_stage, photo):
    latent = asymlib.encode_means(first_stage, photo)
    seen = []
    hook = first_stage.decoder.conv_out.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][0, 0].numel())
    )
    decode_hole(first_stage, latent, photo, box_mask((320, 512), Box(0, 32, 0, 32)))
    apart = box_mask((320, 512), Box(0, 32, 0, 32)) + box_mask((320, 512), Box(288, 320, 480, 512))
    hook.remove()
    small, window = seen  # the copy, and 32 px with their ring
    assert small <= 128 * 128
    assert window <= (32 + holes.RING + 8) ** 2
    _, steps = holes.parts_of(first_stage.decoder)
    assert len(holes._windows(steps, apart, (40, 64), (320, 512))) == 2
    near = box_mask((320, 512), Box(0, 32, 0, 32)) + box_mask((320, 512), Box(0, 32, 110, 142))
    assert len(holes._windows(steps, near, (40, 64), (320, 512))) == 1
    nearly_all = box_mask((320, 512), Box(0, 320, 0, 440))
    assert holes._windows(steps, nearly_all, (40, 64), (320, 512)) == [Box(0, 320, 0, 512)]
    half = box_mask((320, 512), Box(0, 320, 0, 256))
    assert holes._windows(steps, half, (40, 64), (320, 512))[0].right < 400


def test_many_specks_end_in_few_windows():
    _, steps = holes.parts_of(build_first_stage(8, 1, 4).decoder)
    mask = torch.zeros(1, 1, 2048, 2048)
    mask[..., 100:1100:110, 100:1100:110] = 1
    windows = holes._windows(steps, mask, (256, 256), (2048, 2048))
    assert 1 <= len(windows) <= holes.MANY
    for row, column in mask[0, 0].nonzero().tolist():
        assert any(w.top <= row < w.bottom and w.left <= column < w.right for w in windows)


def test_each_picture_of_a_batch_has_its_own_hole(first_stage, photo):
    latent = asymlib.encode_means(first_stage, photo)
    masks = [box_mask((320, 512), box) for box in (Box(0, 40, 0, 40), Box(200, 260, 400, 470))]
    together = decode_hole(first_stage, latent.repeat(2, 1, 1, 1), photo.repeat(2, 1, 1, 1), torch.cat(masks))
    for i, mask in enumerate(masks):
        torch.testing.assert_close(together[i : i + 1], decode_hole(first_stage, latent, photo, mask))


def test_the_finisher_sees_photo_edit_and_mask_of_the_window(first_stage, photo):
    latent, box = asymlib.encode_means(first_stage, photo), Box(120, 200, 300, 380)
    mask, given = box_mask((320, 512), box), []

    def finisher(image, image_hat, mask):
        given.append((image, image_hat, mask))
        return image_hat + 9  # what it does to known pixels is not taken

    result = decode_hole(first_stage, latent, photo, mask, finisher)
    (image, image_hat, hole), ring = given[0], holes.RING
    assert hole.sum() == mask.sum()
    assert hole[..., :ring, :].sum() == hole[..., -ring:, :].sum() == 0
    window = Box(*(side // 8 * 8 for side in (120 - ring, 200 + ring + 7, 300 - ring, 380 + ring + 7)))
    assert torch.equal(image, window.of(photo))
    assert image_hat.abs().max() <= 1
    assert torch.equal(result[:, :, mask[0, 0] == 0], photo[:, :, mask[0, 0] == 0])
    assert (box.of(result) > 7).all()


def decoded(model: nn.Module, latent: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        made = model.decode(latent)
    return getattr(made, "sample", made).clamp(-1, 1)


def test_a_quantised_latent(photo):
    model, box = asymlib.load("first_stage_vq"), Box(120, 200, 300, 380)
    latent = asymlib.encode_means(model, photo)
    difference = decode_hole(model, latent, photo, box_mask((320, 512), box)) - decoded(model, latent)
    assert (box.of(difference).abs() * 127.5).mean() < 1


def test_a_decoder_of_ours(first_stage, photo):
    model, mask = asymmetric_vqgan(first_stage, branch=False), box_mask((320, 512), Box(120, 200, 300, 380))
    latent = model.encode(photo)
    assert torch.equal(decode_hole(model, latent, photo, mask), decode_hole(first_stage, latent, photo, mask))


def test_half_precision(first_stage, photo):
    latent, mask = asymlib.encode_means(first_stage, photo), box_mask((320, 512), Box(120, 200, 300, 380))
    exact = decode_hole(first_stage, latent, photo, mask)
    half = asymlib.load("first_stage").to(torch.bfloat16)
    result = decode_hole(half, latent.bfloat16(), photo, mask)
    assert result.dtype == torch.bfloat16
    box = Box(120, 200, 300, 380)
    assert box.of(result.float() - exact).abs().mean() < 0.02
    assert decode_hole(first_stage, latent.half(), photo.double(), mask).dtype == torch.float32


def test_the_statistics_of_large_halves_do_not_overflow():
    """Breaks when a variance is taken, or multiplied, in float16: beyond 256 its square is infinite."""
    h = 400 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    norm = nn.GroupNorm(2, 4).half()
    settled = holes._brought_to_whole(*3 * [group_statistics(norm, h)])
    torch.testing.assert_close(normalise_with(norm, h, settled), norm(h.float().half()), atol=0.01, rtol=0)


def test_windows_that_overlap_are_finished_as_one():
    """Breaks when a part of a hole is finished twice, with other evidence each time."""
    _, steps = holes.parts_of(build_first_stage(8, 1, 4).decoder)
    mask = torch.zeros(1, 1, 1024, 1024)
    mask[..., :368, :368] = 1
    mask[..., 656:672, 336:672] = mask[..., 336:672, 656:672] = 1
    assert len(holes._windows(steps, mask, (128, 128), (1024, 1024))) == 1


def test_what_it_cannot_decode_is_refused(first_stage, photo):
    latent, mask = torch.zeros(1, 4, 8, 8), torch.ones(1, 1, 64, 64)
    with pytest.raises(ValueError, match="condition branch"):
        decode_hole(asymmetric_vqgan(first_stage), latent, torch.zeros(1, 3, 64, 64), mask)
    with pytest.raises(ValueError, match="image: got"):
        decode_hole(first_stage, latent, torch.zeros(1, 3, 60, 64), mask)
    with pytest.raises(ValueError, match="mask: got"):
        decode_hole(first_stage, latent, torch.zeros(1, 3, 64, 64), mask[0])
    spatial = build_first_stage(8, 1, 4)
    spatial.decoder.conv_norm_out = nn.Identity()
    with pytest.raises(ValueError, match="autoencoder: got a Decoder, expected diffusers'"):
        decode_hole(spatial, latent, torch.zeros(1, 3, 64, 64), mask)
    other = nn.Module()
    other.decoder = nn.Conv2d(4, 3, 1)
    with pytest.raises(ValueError, match="autoencoder: got a Conv2d"):
        decode_hole(other, latent, torch.zeros(1, 3, 64, 64), mask)
