"""params.yaml refuses what it does not know, in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from asymlib.study.params import (
    Evaluation,
    FirstStage,
    Generation,
    Images,
    Inpainter,
    Latents,
    LocalEditing,
    load_ablations,
    load_params,
)
from asymlib.study.project import project_root

CONTENT = yaml.safe_load((project_root() / "params.yaml").read_text())


def changed(folder: Path, change: Callable[[dict], object]) -> Path:
    """params.yaml with a change, in a folder."""
    content = yaml.safe_load(yaml.safe_dump(CONTENT))
    change(content)
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return folder / "params.yaml"


def assert_a_sentence(error: pytest.ExceptionInfo) -> None:
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize("profile", CONTENT["profiles"])
def test_every_profile_is_valid_and_writes_to_its_own_folders(profile):
    params = load_params(profile)
    assert {params.data.name, params.checkpoints.name, params.results.name} == {profile}
    assert set(params.training) == set(params.decoders)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p["training"].update(learning_rate=1), "training.base.learning_rate: got 1, expected: Unexpected"),
        (lambda p: p["training"].update(batch={"others": 4, "base": 0}), "training.base, batch: got 0, expected at"),
        (lambda p: p["training"].update(perceptual="vgg"), "training.base.perceptual: got 'vgg', exp.*'lpips_vgg'"),
        (lambda p: p["images"].update(train_size=60), "images.train_size: got 60, expected: .*multiple of 8"),
        (lambda p: p["training"].update(full_mask_share=2), "full_mask_share: got 2"),
        (lambda p: p.pop("seed"), "seed: .*required"),
        (lambda p: p["images"].update(source="folder"), "folder: got null, expected a folder"),
        (lambda p: p.pop("images"), "images: got nothing, expected: Field required"),
        (lambda p: p.update(images=None), "images: got None, expected: "),
        (lambda p: p.pop("training"), "training: got nothing, expected: Field required"),
        (lambda p: p.update(training=None), "training: got None, expected: "),
        (lambda p: p["training"].update(steps=None), "training.base.steps: got None, expected: Input should be a"),
        (lambda p: p["evaluation"].update(split="train"), "evaluation.split: got 'train', expected: .*'val' or 'test'"),
        (lambda p: p.update(stream={}), "stream, dataset, folder: got None and None, expected exactly one of them"),
    ],
)
def test_a_mistake_in_params_is_one_clear_sentence(tmp_path, change, message):
    with pytest.raises(ValueError, match=f"^params.yaml, profile smoke.*{message}") as error:
        load_params("smoke", changed(tmp_path, lambda content: change(content["profiles"]["smoke"])))
    assert_a_sentence(error)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("profiles"), "profiles: got None, expected a section of that name"),
        (lambda c: c.update(profiles=None), "profiles: got None, expected a section of that name"),
        (lambda c: c.update(profiles=[1]), r"profiles: got \[1\], expected a section of that name"),
        (lambda c: c["profiles"].update(smoke=None), "profile smoke: got None, expected its sections"),
        (lambda c: c.pop("decoders"), "decoders: got None, expected a section of that name"),
        (lambda c: c["decoders"].update(base=None), "profile smoke, decoders.base: got None, expected: "),
        (lambda c: c.clear(), "decoders: got None, expected a section of that name"),
    ],
)
def test_a_section_that_is_missing_or_null_is_named(tmp_path, change, message):
    """Breaks when what is not there ends in a TypeError or a KeyError of ours."""
    with pytest.raises(ValueError, match=f"^params.yaml, {message}") as error:
        load_params("smoke", changed(tmp_path, change))
    assert_a_sentence(error)


def test_a_single_number_of_steps_is_that_of_every_decoder(tmp_path):
    path = changed(tmp_path, lambda content: content["profiles"]["smoke"]["training"].update(steps=5))
    training = load_params("smoke", path).training
    assert training.keys() == CONTENT["decoders"].keys() and {of.steps for of in training.values()} == {5}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("ablations"), "ablations: got None, expected a section of that name"),
        (lambda c: c["ablations"].update(training=None), "ablations, training: got None, expected: "),
        (lambda c: c["ablations"]["training"].update(learning_rate=1), "ablations, learning_rate: got 1, expected: U"),
        (lambda c: c["ablations"]["training"].update(batch=0), "ablations, batch: got 0, expected at least 1"),
        (lambda c: c["ablations"]["rows"]["gan"].update(training={"batch": "many"}), "ablations, batch: got 'many', "),
        (lambda c: c["ablations"]["rows"].update(gan=None), "ablations, rows.gan: got None, expected: "),
        (lambda c: c["profiles"].update(default=None), "profile default: got None, expected its sections"),
    ],
)
def test_a_mistake_in_the_short_runs_is_one_clear_sentence(tmp_path, change, message):
    """Breaks when their settings are not checked as the profiles' are."""
    with pytest.raises(ValueError, match=f"^params.yaml, {message}") as error:
        load_ablations(changed(tmp_path, change))
    assert_a_sentence(error)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "params.yaml").touch()
    with pytest.raises(ValueError, match="^params.yaml, decoders: got None, expected a section of that name$"):
        load_params("smoke", tmp_path / "params.yaml")


def test_a_stream_of_nothing_is_no_stream(tmp_path):
    """Breaks when an optional section has to be left out to be off."""
    path = changed(tmp_path, lambda content: content["profiles"]["smoke"].update(stream=None))
    assert load_params("smoke", path).stream is None


SECTIONS = {
    "images": Images,
    "first_stage": FirstStage,
    "latents": Latents,
    "inpainter": Inpainter,
    "generation": Generation,
    "local_editing": LocalEditing,
    "evaluation": Evaluation,
}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_made_without_arguments_is_that_of_the_default_profile(name):
    """Breaks when a number is changed in params.yaml and not in the type, or the other way round."""
    assert SECTIONS[name]() == getattr(load_params("default"), name)


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
    batch = {"base": 2}
    path = changed(tmp_path, lambda content: content["profiles"]["smoke"]["training"].update(batch=batch))
    with pytest.raises(ValueError, match=r"training\.(?!base\.).*\.batch: .*Field required"):
        load_params("smoke", path)
    batch["others"] = 3
    path = changed(tmp_path, lambda content: content["profiles"]["smoke"]["training"].update(batch=batch))
    trained = load_params("smoke", path).training
    assert trained["base"].batch == 2 and {trained[name].batch for name in set(trained) - {"base"}} == {3}


def test_a_short_run_takes_the_training_of_its_namesake_and_else_of_base():
    ablations, profile = load_ablations()
    trained = load_params(ablations.profile).training
    assert profile.training["mask_input"].lr_branch == trained["base"].lr_branch
    assert profile.training["mask_input"].steps == ablations.training["steps"] != trained["base"].steps


def test_an_unknown_profile_and_decoder_are_named():
    with pytest.raises(ValueError, match=f"profile: got 'large', expected one of {', '.join(CONTENT['profiles'])}$"):
        load_params("large")
    with pytest.raises(ValueError, match="name: got '3x', expected one of base"):
        load_params("smoke").decoder("3x")


def test_the_environment_chooses_the_profile_of_ci(monkeypatch):
    monkeypatch.setenv("ASYMLIB_PROFILE", "smoke")
    assert load_params("default").name == "smoke"


def test_a_profile_that_names_itself_and_short_runs_without_a_base_are_refused_in_one_sentence(tmp_path):
    """Breaks when either is a bare TypeError or KeyError."""
    path = changed(tmp_path, lambda content: content["profiles"]["smoke"].update(name="mine"))
    with pytest.raises(ValueError, match="^params.yaml, profile smoke, name: got 'mine', expected no such key there$"):
        load_params("smoke", path)

    def without_base(content: dict) -> None:
        content["ablations"]["profile"] = "smoke"
        content["profiles"]["smoke"]["training"]["steps"].pop("base")

    with pytest.raises(ValueError, match="^params.yaml, profile smoke, training: got .*, expected base for the runs"):
        load_ablations(changed(tmp_path, without_base))
