"""Files are written whole or not at all."""

import errno

import pytest

from asymlib.files import content_hash, save_pretrained, written, written_folder
from asymlib.models.first_stage import build_first_stage

FULL = OSError(errno.ENOSPC, "No space left on device")


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "code, message", [(errno.ENOSPC, "kept.txt: got a full disk, expected room"), (errno.EIO, "5")]
)
def test_a_write_that_fails_leaves_what_was_there(tmp_path, code, message):
    """Breaks when the file itself is opened, or the part that was written stays behind."""
    (tmp_path / "kept.txt").write_text("before")
    with pytest.raises(OSError, match=message), written(tmp_path / "kept.txt") as path:
        path.write_text("half")
        raise OSError(code, "stopped")
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"] and (tmp_path / "kept.txt").read_text() == "before"


@pytest.mark.parametrize(
    "code, message", [(errno.ENOSPC, "model: got a full disk, expected room"), (errno.EIO, "stopped")]
)
def test_a_folder_that_fails_is_as_it_was(tmp_path, code, message):
    """Breaks when files are written in place, or the folder that was begun stays behind."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("before")
    with pytest.raises(OSError, match=message), written_folder(tmp_path / "model") as folder:
        (folder / "a.txt").write_text("half")
        raise OSError(code, "stopped")
    assert contents(tmp_path) == {"model/a.txt": b"before"} and len(list(tmp_path.iterdir())) == 1


def test_a_new_folder_that_fails_is_not_there(tmp_path):
    """Breaks when the folder is made before its files are whole."""
    with pytest.raises(OSError, match="full disk"), written_folder(tmp_path / "model") as folder:
        (folder / "a.txt").write_text("half")
        raise FULL
    assert not list(tmp_path.iterdir())


def test_a_config_is_renamed_last(tmp_path, monkeypatch):
    """Breaks when a config can lie beside weights that are not there yet: a folder counts as whole once it has one."""
    moved = []
    monkeypatch.setattr("os.replace", lambda source, target: moved.append(target.relative_to(tmp_path).as_posix()))
    with written_folder(tmp_path) as folder:
        (folder / "sub").mkdir()
        for name in ("config.json", "weights.safetensors", "sub/z.bin"):
            (folder / name).write_text(name)
    assert moved == ["sub/z.bin", "weights.safetensors", "config.json"]


def test_a_model_that_cannot_be_saved_leaves_the_old_one_byte_for_byte(tmp_path, monkeypatch):
    """Breaks when diffusers writes into the folder itself: a full disk between config and weights mixes two models."""
    folder = tmp_path / "model"
    save_pretrained(build_first_stage(8, 1, 4, seed=0), folder)
    (folder / "curve.csv").write_text("step\n")
    before = contents(tmp_path)
    assert set(before) == {f"model/{n}" for n in ("config.json", "diffusion_pytorch_model.safetensors", "curve.csv")}
    other = build_first_stage(8, 1, 4, seed=1)
    real_save = other.save_pretrained

    def save_half(target, **options):
        real_save(target, **options)
        (target / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
        raise FULL

    monkeypatch.setattr(other, "save_pretrained", save_half)
    with pytest.raises(OSError, match="model: got a full disk, expected room"):
        save_pretrained(other, folder)
    assert contents(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_not_of_the_model_stays_beside_it(tmp_path):
    """Breaks when the folder is replaced as a whole: a curve or a card lies beside the weights."""
    save_pretrained(build_first_stage(8, 1, 4, seed=0), tmp_path)
    before = contents(tmp_path)
    (tmp_path / "curve.csv").write_text("step\n")
    save_pretrained(build_first_stage(8, 1, 4, seed=1), tmp_path)
    after = contents(tmp_path)
    assert after.pop("curve.csv") == b"step\n" and set(after) == set(before)
    assert after["diffusion_pytorch_model.safetensors"] != before["diffusion_pytorch_model.safetensors"]


def test_a_folder_s_hash_follows_every_name_and_byte_below_it_but_no_compiled_code(tmp_path):
    """Breaks when a file of a subfolder is left out, or Python's cache changes what a result is traced to."""
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "x.py").write_text("1")
    first = content_hash(tmp_path / "a")
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "x.pyc").write_text("2")
    assert content_hash(tmp_path / "a") == first and len(first) == 12
    (tmp_path / "a" / "sub" / "x.py").write_text("2")
    changed = content_hash(tmp_path / "a")
    (tmp_path / "a" / "sub" / "x.py").rename(tmp_path / "a" / "sub" / "y.py")
    assert len({first, changed, content_hash(tmp_path / "a")}) == 3
