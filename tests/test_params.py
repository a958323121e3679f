"""params.yaml refuses what it does not know, in one sentence."""

import pytest
import yaml

from asymlib.params import load_ablations, load_params
from asymlib.project import project_root, user_path

CONTENT = yaml.safe_load((project_root() / "params.yaml").read_text())


@pytest.mark.parametrize("profile", CONTENT["profiles"])
def test_every_profile_is_valid_and_writes_to_its_own_folders(profile):
    params = load_params(profile)
    assert {params.data.name, params.checkpoints.name, params.results.name} == {profile}
    assert set(params.training) == set(params.decoders)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p["training"].update(learning_rate=1), "training.base.learning_rate: got 1, expected: Extra inputs"),
        (lambda p: p["images"].update(train_size=60), "images.train_size: got 60, expected: .*multiple of 8"),
        (lambda p: p["training"].update(full_mask_share=2), "full_mask_share: got 2"),
        (lambda p: p.pop("seed"), "seed: .*required"),
        (lambda p: p["images"].update(source="folder"), "folder: got null, expected a folder"),
    ],
)
def test_a_mistake_in_params_is_one_clear_sentence(tmp_path, change, message):
    content = yaml.safe_load(yaml.safe_dump(CONTENT))
    change(content["profiles"]["smoke"])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=f"^params.yaml, profile smoke.*{message}") as error:
        load_params("smoke", tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_the_paper_profile_has_the_official_numbers():
    """Rates are 4.5e-6 x images per step, 0.1x for what base inherits; twelve epochs; the floor is 1e-6 itself."""
    training = load_params("paper").training
    for name, images in {"base": 80, "large_1.5x": 32, "large_2x": 16}.items():
        settings = training[name]
        assert settings.batch == images and settings.steps == 12 * (1152196 // images)
        assert settings.lr_branch == pytest.approx(4.5e-6 * images) and settings.lr_scratch == settings.lr_branch
        assert settings.lr_branch * settings.lr_floor == pytest.approx(1e-6, rel=2e-3)
        assert (settings.warmup, settings.gan_start, settings.full_mask_share) == (5000, 50001, 0.5)
        assert (settings.perceptual_weight, settings.gan_weight, settings.ema) == (1.0, 0.8, None)
    assert training["base"].lr_inherited == pytest.approx(0.1 * training["base"].lr_branch)


def test_a_value_of_training_may_be_given_for_each_decoder(tmp_path):
    content = yaml.safe_load(yaml.safe_dump(CONTENT))
    content["profiles"]["smoke"]["training"]["batch"] = {"base": 2}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"training\.(?!base\.).*\.batch: .*Field required"):
        load_params("smoke", tmp_path / "params.yaml")


def test_a_short_run_takes_the_training_of_its_namesake_and_else_of_base():
    ablations, profile = load_ablations()
    trained = load_params(ablations.profile).training
    assert profile.training["retouch"].lr_branch == trained["retouch"].lr_branch != trained["base"].lr_branch
    assert profile.training["mask_input"].lr_branch == trained["base"].lr_branch
    assert profile.training["mask_input"].steps == ablations.training["steps"] != profile.training["retouch"].steps


def test_an_unknown_profile_and_decoder_are_named():
    with pytest.raises(ValueError, match="profile: got 'large', expected one of default, extended, smoke, photos"):
        load_params("large")
    with pytest.raises(ValueError, match="name: got '3x', expected one of base"):
        load_params("smoke").decoder("3x")


def test_the_environment_chooses_the_profile_of_ci(monkeypatch):
    monkeypatch.setenv("ASYMLIB_PROFILE", "smoke")
    assert load_params("default").name == "smoke"


def test_the_root_is_found_from_below_and_its_absence_is_named(tmp_path):
    assert project_root(project_root() / "notebooks") == project_root()
    with pytest.raises(FileNotFoundError, match="start: got .*, expected a folder inside the project"):
        project_root(tmp_path)


def test_a_user_s_folder_is_relative_to_the_project_also_from_a_profile_s_copy(tmp_path, monkeypatch):
    copy = tmp_path / ".profiles" / "photos"
    (copy / "asymlib").mkdir(parents=True)
    (copy / "params.yaml").touch()
    monkeypatch.chdir(copy)
    assert user_path("photos") == tmp_path / "photos"
