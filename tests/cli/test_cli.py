"""The command: files and folders matched, resumed, reported; exit codes; one sentence for every mistake."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny
from PIL import Image, ImageCms

from asymlib.cli import app, edits, main
from asymlib.cli.jobs import Plan, carry_out, plan
from asymlib.editing import finishing
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.decoder import load_vqgan
from asymlib.models.last_word import LastWord
from asymlib.models.words import WORDS
from asymlib.study.project import project_root
from asymlib.training import fitting

COMMANDS = sorted(command.callback.__name__ for command in app.registered_commands)


def picture(path, seed=0, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
    return path


def hole(path, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(255, (10, 8, 25, 20))
    mask.save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    for i, name in enumerate(("a", "b", "deep/c")):
        picture(tmp_path / "photos" / f"{name}.png", i)
        picture(tmp_path / "edits" / f"{name}.png", i + 10)
        hole(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.fixture(autouse=True)
def last_word(monkeypatch):
    """A new one in the shipped one's place: what it does is tested elsewhere."""
    model = LastWord(8)
    monkeypatch.setattr(finishing, "shipped", lambda: model)


def test_one_photo_is_finished_beside_itself(tmp_path, capsys):
    photo, edited, mask = picture(tmp_path / "p.jpg"), picture(tmp_path / "e.png", 1), hole(tmp_path / "m.png")
    assert main(["finish", str(photo), str(edited), str(mask)]) == 0
    out = tmp_path / "p_finished.png"
    assert capsys.readouterr().out.strip() == str(out)
    outside = np.asarray(Image.open(mask)) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out))[outside], np.asarray(Image.open(photo))[outside])


def test_what_is_seldom_meant_is_noted(tmp_path, capsys):
    photo, edited = picture(tmp_path / "p.png"), picture(tmp_path / "e.png", 1)
    Image.new("L", Image.open(photo).size).save(tmp_path / "black.png")
    out = tmp_path / "out.jpg"
    assert main(["finish", str(photo), str(edited), str(tmp_path / "black.png"), "-o", str(out)]) == 0
    said = capsys.readouterr().err
    assert "p.png: the mask has no white" in said and "JPEG changes the known pixels" in said
    assert main(["finish", str(photo), str(edited), str(hole(tmp_path / "m.png"))]) == 0
    assert "note" not in capsys.readouterr().err


def test_nothing_is_overwritten_unless_told(tmp_path, capsys):
    arguments = [str(picture(tmp_path / "p.png")), str(picture(tmp_path / "e.png", 1)), str(hole(tmp_path / "m.png"))]
    out = picture(tmp_path / "out.png", 5)
    before = out.read_bytes()
    assert main(["finish", *arguments, "-o", str(out)]) == 1
    assert "error: out: got" in capsys.readouterr().err and out.read_bytes() == before
    assert main(["finish", *arguments, "-o", str(out), "--overwrite"]) == 0 and out.read_bytes() != before


def test_a_folder_is_matched_by_name_and_a_half_done_one_resumed(folders, capsys):
    inputs = [str(folders / name) for name in ("photos", "edits", "masks")]
    out = folders / "finished"
    assert main(["finish", *inputs, "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(told["written"]) == sorted(str(out / f"{name}.png") for name in ("a", "b", "deep/c"))
    (out / "b.png").unlink()
    kept = (out / "a.png").read_bytes()
    assert main(["finish", *inputs, "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == [str(out / "b.png")] and len(told["kept"]) == 2
    assert (out / "a.png").read_bytes() == kept


def test_every_unmatched_file_is_named_and_the_rest_is_done(folders, capsys):
    (folders / "edits" / "b.png").unlink()
    picture(folders / "edits" / "stranger.png")
    inputs = [str(folders / name) for name in ("photos", "edits", "masks")]
    assert main(["finish", *inputs, "-o", str(folders / "out")]) == 1
    told = capsys.readouterr()
    for name in ("photos/b.png: no edited of the name 'b'", "edits/stranger.png: no photo of the name 'stranger'"):
        assert name in told.err.replace("\\", "/")
    assert told.err.count("error: ") == 2  # the mask that is left over is told by its photo
    assert len(told.out.split()) == 2


def test_one_mask_serves_all_photos_and_a_broken_picture_stops_none(folders, capsys):
    (folders / "edits" / "a.png").write_bytes(b"no picture")
    inputs = [str(folders / "photos"), str(folders / "edits"), str(folders / "masks" / "a.png")]
    assert main(["finish", *inputs, "-o", str(folders / "out")]) == 1
    assert f"error: {folders / 'photos' / 'a.png'}: edited: got a.png" in capsys.readouterr().err
    assert (folders / "out" / "b.png").is_file() and not (folders / "out" / "a.png").exists()


def test_a_dry_run_writes_nothing(folders, capsys):
    inputs = [str(folders / name) for name in ("photos", "edits", "masks")]
    assert main(["finish", *inputs, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("would write") == 3 and not (folders / "photos_finished").exists()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda f: {"photo": f / "none.png"}, "photo: got .*none.png, expected an existing picture"),
        (lambda f: {"photo": f / "photos" / "a.png", "mask": f / "masks"}, "mask: got the folder"),
        (lambda f: {"photo": f / "empty"}, "photo: got .* without a picture"),
    ],
)
def test_a_call_that_cannot_be_planned_is_one_sentence(folders, make, message):
    (folders / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match=message):
        plan(make(folders), None, "_x", False)


@pytest.mark.parametrize(
    "inputs, out, told",
    [
        (("photos/a.png", "edits/a.png", "masks/a.png"), "photos/a.png", "which is an input"),
        (("photos", "edits", "masks/a.png"), "masks", "which is an input"),
        (("photos", "edits", "masks"), "photos", "expected a folder that is not in"),
        (("photos", "edits", "masks"), "edits/deep", "expected a folder that is not in"),
    ],
)
def test_an_input_is_never_overwritten(folders, capsys, inputs, out, told):
    """Breaks when `--overwrite` takes the place of a photo that there is only once, or results become photos."""
    before = {path: path.read_bytes() for path in folders.rglob("*.png")}
    call = ["finish", *(str(folders / name) for name in inputs), "-o", str(folders / out)]
    for more in ([], ["--overwrite"]):
        assert main([*call, *more]) == 1 and told in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folders.rglob("*.png")} == before


def test_a_mask_among_the_photos_is_no_photo(folders, capsys):
    mask = hole(folders / "photos" / "mask.png")
    assert main(["inpaint", str(folders / "photos"), str(mask), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("would write") == 3


def test_one_result_goes_into_a_folder_that_is_there(folders, capsys):
    call = ["finish", *(str(folders / name / "a.png") for name in ("photos", "edits", "masks"))]
    (folders / "made").mkdir()
    assert main([*call, "-o", str(folders / "made"), "--dry-run"]) == 0
    assert capsys.readouterr().out.strip() == f"would write {folders / 'made' / 'a_finished.png'}"
    assert main([*call, "-o", str(folders / "made.xyz")]) == 1
    assert "expected a name that ends in .png" in capsys.readouterr().err
    call = ["finish", *(str(folders / name) for name in ("photos", "edits", "masks")), "-o", str(folders / "one.png")]
    assert main(call) == 1 and "expected a folder, as photo is one" in capsys.readouterr().err


def test_masks_and_edits_that_are_seldom_meant_are_noted(folders, capsys):
    """Breaks when an inverted mask or one of white alone goes by without a word."""
    photo = np.zeros((40, 50, 3), np.uint8)
    photo[10:20, 10:30] = 200
    mask = np.zeros((40, 50), np.uint8)
    mask[8:22, 8:32] = 255
    paths = {name: str(folders / f"{name}.png") for name in ("photo", "edited", "mask", "inverted", "white")}
    pictures = {"photo": 0 * photo, "edited": photo, "mask": mask, "inverted": 255 - mask, "white": 0 * mask + 255}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(paths[name])

    def noted(*names: str) -> str:
        call = ["finish", *(paths[name] for name in names), "-o", str(folders / "out.png"), "--overwrite"]
        assert main(call) == 0
        return capsys.readouterr().err

    assert "note" not in noted("photo", "edited", "mask")
    assert "differs more outside the mask than in it" in noted("photo", "edited", "inverted")
    assert "all white" in noted("photo", "edited", "white")


def test_words_are_those_of_the_diffusion_model(capsys):
    assert edits.WORDS == WORDS
    assert main(["inpaint", "a.png", "b.png", "--word", "red purple"]) == 2
    assert "got 'purple', expected some of red, green" in capsys.readouterr().err
    assert main(["inpaint", "a.png", "b.png", "--word", "red dark"]) == 1  # there is no a.png


def test_two_pictures_of_one_name_are_refused(folders):
    picture(folders / "photos" / "a.jpg")
    with pytest.raises(ValueError, match="photo: got a.jpg and a.png, expected one picture of each name"):
        plan({"photo": folders / "photos"}, None, "_x", False)


def test_exit_codes_and_the_traceback(tmp_path, capsys):
    assert main(["finish"]) == 2 and main(["frobnicate"]) == 2 and main(["--help"]) == 0
    assert main(["info", "no_such_model"]) == 1
    told = capsys.readouterr().err
    assert (
        "error: artefact: got no_such_model, expected an existing file or folder, or one of base, " in told
        and "Traceback" not in told
    )
    with pytest.raises(FileNotFoundError):
        main(["--debug", "info", "no_such_model"])
    assert main(["--debug", "finish"]) == 2


def test_debug_shows_where_one_of_many_failed(folders, capsys, caplog):
    """Breaks when what is caught, so that the others are done, leaves no trace."""
    (folders / "edits" / "a.png").write_bytes(b"no picture")
    call = ["finish", *(str(folders / name) for name in ("photos", "edits", "masks")), "-o", str(folders / "out")]
    assert main(call) == 1 and not caplog.records
    assert main(["--debug", *call, "--overwrite"]) == 1
    assert [record.exc_info[0] for record in caplog.records] == [ValueError] and "read_photo" in caplog.text
    assert main(call) == 1 and len(caplog.records) == 1


def test_what_is_no_picture_is_noted_and_what_is_hidden_is_not(folders, capsys):
    for name in ("raw.CR2", "notes.txt", ".hidden"):
        (folders / "photos" / name).write_text("")
    call = ["finish", *(str(folders / name) for name in ("photos", "edits", "masks")), "--dry-run"]
    assert main(call) == 0
    assert capsys.readouterr().err == "note: photo: left out as no pictures: 2 (.CR2, .txt)\n"


@pytest.mark.parametrize("method", list(edits.Method))
def test_a_hole_is_filled_by_every_method(tmp_path, tiny_shipped, capsys, method):
    photo, mask, example = picture(tmp_path / "p.png", 1, (64, 48)), hole(tmp_path / "m.png", (64, 48)), tmp_path / "e"
    picture(example / "p.png", 2)

    def filled(name: str, *options: str) -> np.ndarray:
        out = tmp_path / f"{name}.png"
        call = ["inpaint", str(photo), str(mask), "-o", str(out), "--method", method, "--steps", "2", *options]
        assert main(call) == 0 and capsys.readouterr().out.strip() == str(out)
        return np.asarray(Image.open(out))

    made, outside = filled("first"), np.asarray(Image.open(mask)) == 0
    kept = (made == np.asarray(Image.open(photo)))[outside]
    assert kept.all() == (method != "vanilla") and kept.mean() < 1.01
    np.testing.assert_array_equal(filled("again", "--seed", "0"), made)
    for name, options in {"seed": ["--seed", "1"], "word": ["--word", "blue"]}.items():
        assert (filled(name, *options) != made)[~outside].any()
    assert (filled("example", "--example", str(example / "p.png")) != made)[~outside].any()
    assert main(["inpaint", str(photo), str(mask), "--example", str(example)]) == 1
    assert "example: got the folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["finish", "inpaint"])
def test_metadata_stays_and_a_turned_photo_comes_out_upright(tmp_path, tiny_shipped, command):
    """Breaks when the profile, the camera's data or the resolution are lost, or the picture is turned twice."""
    exif, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turn by 90 degrees; made by
    photo = Image.open(picture(tmp_path / "raw.png", 1, (64, 48)))
    photo.save(tmp_path / "p.jpg", exif=exif, icc_profile=profile, dpi=(300, 300), quality=95)
    mask = str(hole(tmp_path / "m.png", (48, 64)))
    given = [str(picture(tmp_path / "e.png", 2, (48, 64)))] if command == "finish" else []
    out = tmp_path / "out.png"
    assert main([command, str(tmp_path / "p.jpg"), *given, mask, "-o", str(out)]) == 0
    made = Image.open(out)
    assert made.size == (48, 64) and made.info["icc_profile"] == profile and round(made.info["dpi"][0]) == 300
    assert made.getexif().get(0x010F) == "a camera" and made.getexif().get(0x0112, 1) == 1


def test_finishers_are_compared_on_a_folder_and_no_table_is_overwritten(first_stage, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("asymlib.study.evaluation.finishers.load", lambda name: LastWord(8))
    first_stage.save_pretrained(tmp_path / "vae")
    for i in range(4):
        picture(tmp_path / "photos" / f"{i}.png", i, (70, 70))
    call = ["evaluate", str(tmp_path / "vae"), str(tmp_path / "photos"), "-o", str(tmp_path / "tables")]
    assert main([*call, "--scenes", "4", "--size", "64"]) == 0
    assert "hole_psnr" in capsys.readouterr().out
    tables = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    assert set(tables) == {"rows.csv", "table.csv", "regret.csv"}
    assert main([*call, "--scenes", "4", "--size", "64", "--seed", "1"]) == 1
    assert "out: got" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()} == tables
    assert main([*call, "--scenes", "4", "--size", "64", "--seed", "1", "--overwrite"]) == 0
    assert (tmp_path / "tables" / "rows.csv").read_bytes() != tables["rows.csv"]


def test_a_profile_is_run(monkeypatch):
    asked = []
    monkeypatch.setattr("asymlib.study.profiles.run_profile", lambda *given: asked.append(given) or 0)
    assert main(["repro", "smoke", "report"]) == 0 and asked == [("smoke", project_root(), ["report"])]


@pytest.mark.parametrize("command, missing, extra", [("evaluate", "pandas", "study"), ("paint", "gradio", "app")])
def test_what_is_not_installed_is_named_with_its_extra(tmp_path, command, missing, extra):
    call = [command, *([str(tmp_path), str(tmp_path), "-o", str(tmp_path)] if command == "evaluate" else [])]
    code = f"import sys; sys.modules[{missing!r}] = None; from asymlib.cli import main; sys.exit(main({call!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == f"error: {command} needs {missing}: pip install 'asymlib[{extra}]'\n" and done.returncode == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_whose_options_there_are(command, capsys):
    """Breaks when an example names an option that was renamed or is gone."""
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    examples = [line.split() for line in told.splitlines() if line.strip().startswith(f"asymlib {command}")]
    assert examples
    for words in examples:
        assert all(word in told.split("Options:")[1] for word in words if word.startswith("--"))


def test_a_folder_of_weights_and_a_table_tell_their_history(tmp_path, capsys):
    assert main(["info", "first_stage", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["class"] == "AutoencoderKL" and facts["parameters"] > 2_000_000 and len(facts["sha256"]) == 12
    results = tmp_path / "results" / "mine"
    (results / "provenance").mkdir(parents=True)
    (results / "provenance" / "base.json").write_text(json.dumps({"commit": "abc", "seed": 3, "data": "d"}))
    (results / "table.csv").write_text("a,b\n")
    assert main(["info", str(results / "table.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base"] == {"commit": "abc", "seed": 3, "data": "d"}
    (results / "last_word").mkdir()
    (results / "last_word" / "record.json").write_text(json.dumps({"commit": "lw", "seed": 5}))
    assert main(["info", str(results / "table.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["last_word"] == {"commit": "lw", "seed": 5}
    runs = tmp_path / "results" / "runs"
    runs.mkdir()
    (runs / "provenance.json").write_text(json.dumps({"base_0": {"commit": "def", "seed": 0}}))
    (runs / "rows.csv.gz").write_bytes(b"")
    assert main(["info", str(runs / "rows.csv.gz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base_0"] == {"commit": "def", "seed": 0}
    (runs / "words.csv").write_text("a,b\n")
    (runs / "words.json").write_text(json.dumps({"commit": "ghi"}))
    assert main(["info", str(runs / "words.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == "ghi"
    (runs / "words.json").write_text("[1]")
    assert main(["info", str(runs / "words.csv"), "--json"]) == 0
    assert "base_0" in json.loads(capsys.readouterr().out)
    (runs / "words.json").write_text("{")
    assert main(["info", str(runs / "words.csv")]) == 1 and "words.json is no JSON" in capsys.readouterr().err
    assert main(["info", str(weights(tmp_path / "checkpoints" / "mine" / "decoders" / "base")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == "abc"
    assert main(["info", str(weights(tmp_path / "checkpoints" / "alone")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"] == "none beside the weights"


def weights(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_weights_go_to_every_layout_and_back(first_stage, tmp_path):
    """Breaks when a way round changes a pixel."""
    vqgan = asymmetric_vqgan(first_stage, 8, 2, seed=0)
    vqgan.save_pretrained(tmp_path / "ours")
    (tmp_path / "ours" / "record.json").write_text('{"commit": "abc"}')
    steps = [("ours", "official.ckpt", "official"), ("ours", "theirs", "diffusers"), ("theirs", "again", "asymlib")]
    steps += [("official.ckpt", "from_official", "asymlib"), ("official.ckpt", "their_official", "diffusers")]
    for source, target, layout in steps:
        assert main(["convert", str(tmp_path / source), str(tmp_path / target), "--to", layout]) == 0
    assert json.loads((tmp_path / "again" / "record.json").read_text()) == {"commit": "abc"}
    again, from_official = (type(vqgan).from_pretrained(tmp_path / name) for name in ("again", "from_official"))
    theirs, their_official = (
        AsymmetricAutoencoderKL.from_pretrained(tmp_path / name) for name in ("theirs", "their_official")
    )
    picture, mask = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    with torch.no_grad():
        latent = vqgan.encode(picture)
        expected = vqgan.decode(latent, image=picture, mask=mask)
        for ours in (again, from_official):
            torch.testing.assert_close(ours.decode(latent, image=picture, mask=mask), expected)
        for diffusers_own in (theirs, their_official):
            torch.testing.assert_close(diffusers_own.decode(latent, image=picture, mask=mask).sample, expected)
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--to", "diffusers"]) == 1


def test_what_is_no_decoder_is_not_taken_for_one(first_stage, tmp_path, capsys):
    """Breaks when weights of another class leave a decoder as it was drawn, which once went to every layout."""
    first_stage.save_pretrained(tmp_path / "vae")
    AutoencoderTiny().save_pretrained(tmp_path / "tiny")
    wrong = {
        str(tmp_path / "tiny"): "onnx",
        "last_word": "official",
        str(tmp_path / "vae"): "diffusers",
        "inpainter": "onnx",
        "nothing": "onnx",
    }
    for source, layout in wrong.items():
        assert main(["convert", source, str(tmp_path / "made"), "--to", layout]) == 1
        assert capsys.readouterr().err.startswith("error: source: got ") and not (tmp_path / "made").exists()
    with pytest.raises(ValueError, match="got AutoencoderKL, expected one of AsymmetricVQGAN, "):
        load_vqgan(tmp_path / "vae")
    assert main(["convert", str(tmp_path / "vae"), str(tmp_path / "plain.onnx"), "--to", "onnx"]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    latent = torch.rand(1, 4, 3, 5)
    made = session.run(["picture"], {"latent": latent.numpy()})[0]
    np.testing.assert_allclose(made, first_stage.decode(latent).sample, atol=1e-4)


def test_a_decoder_is_trained_on_a_folder(first_stage, tmp_path, capsys, monkeypatch):
    fitted = []
    monkeypatch.setattr(fitting, "fit_known_pixels", lambda vqgan, *_, seed, **kept: fitted.append(seed))
    first_stage.save_pretrained(tmp_path / "vae")
    for i in range(2):
        picture(tmp_path / "photos" / f"{i}.png", i, (50, 40))
    call = ["train", str(tmp_path / "photos"), "--first-stage", str(tmp_path / "vae"), "-o", str(tmp_path / "made")]
    assert main([*call, "--steps", "2", "--batch", "2", "--crop", "32"]) == 0
    assert json.loads((tmp_path / "made" / "record.json").read_text())["settings"]["steps"] == 2 and fitted == [0]
    assert main([*call, "--steps", "2"]) == 1
    tiny = {"num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4}
    widths = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(**tiny, **widths).save_pretrained(tmp_path / "tiny")
    call[3], call[5] = str(tmp_path / "tiny"), str(tmp_path / "of_tiny")  # its decoder gives nothing to start from
    assert main([*call, "--steps", "2", "--batch", "2", "--crop", "32"]) == 0
    assert load_vqgan(tmp_path / "of_tiny").config.first_stage["_class_name"] == "AutoencoderTiny"
    assert "out: got" in capsys.readouterr().err and not list(tmp_path.glob("*.resume.pt"))


def test_what_fails_is_told_and_does_not_stop_the_others(tmp_path, capsys):
    planned = plan({"photo": picture(tmp_path / "p.png")}, tmp_path / "out.png", "", False)

    def work(job):
        raise ValueError("photo: got something, expected another")

    assert carry_out(planned, work, False, True) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == {
        str(tmp_path / "p.png"): "photo: got something, expected another"
    }
    assert carry_out(Plan([], [], {}), work, False, False) == 0
