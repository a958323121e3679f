"""The painter: who may come in, what may come in, and what it makes of a mask; tests/browser looks at the page."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

gr = pytest.importorskip("gradio")
from starlette.testclient import TestClient  # noqa: E402

from asymlib import app as module  # noqa: E402
from asymlib.models.last_word import LastWord  # noqa: E402

TOKEN = "a-token"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    module.LARGEST = "50kb"
    folder = tmp_path_factory.mktemp("app")
    photo = picture(tmp_path_factory.mktemp("photo") / "p.png")
    client = TestClient(module.make_app(TOKEN, folder, photo), base_url="http://127.0.0.1:7860")
    client.folder = folder
    return client


@pytest.fixture
def known(client):
    client.cookies.clear()
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


def picture(path, seed=0, size=(60, 40)):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
    return str(path)


def painted(size=(60, 40)):
    """What Gradio's editor hands over: a layer with strokes."""
    layer = Image.new("RGBA", size)
    layer.paste((255, 45, 45, 255), (15, 10, 40, 30))
    return {"layers": [layer], "background": None, "composite": None}


def test_a_free_port_is_told_and_a_taken_one_refused(tmp_path):
    """Breaks when the address that is printed is another painter's, or none."""
    with module.listening(0) as door:
        port = door.getsockname()[1]
        assert port > 0
        with pytest.raises(ValueError, match=f"port: got {port}, which cannot be had"):
            module.listening(port)
    with pytest.raises(FileNotFoundError, match="photo: got .*none.jpg, expected an existing picture"):
        module.serve(tmp_path / "none.jpg", port, browser=False)


def test_only_who_brings_the_token_comes_in(client):
    client.cookies.clear()
    for url in ("/", "/?token=wrong", "/config", "/gradio_api/info"):
        assert client.get(url).status_code == 403
    assert client.get(f"/?token={TOKEN}").status_code == 200
    assert client.get("/config").status_code == 200  # the cookie remembers
    assert "httponly" in client.get(f"/?token={TOKEN}").headers["set-cookie"].lower()


def test_another_origin_and_another_host_are_refused(known):
    """Breaks when a page elsewhere can use the visitor's cookie, or a name that was bent to this machine works."""
    assert known.get("/", headers={"origin": "http://127.0.0.1:7860"}).status_code == 200
    assert known.get("/", headers={"origin": "http://evil.example"}).status_code == 403
    assert known.get("/", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/%2e%2e/%2e%2e/other.txt", "{elsewhere}/other.txt", __file__])
def test_no_file_outside_of_its_folder_is_served(known, path):
    """Breaks when a folder that other pages share, or a way up out of the own one, is served."""
    elsewhere = known.folder.parent
    (elsewhere / "other.txt").write_text("another's")
    answer = known.get(f"/gradio_api/file={path.format(folder=known.folder, elsewhere=elsewhere)}")
    assert answer.status_code == 403


def test_an_upload_stays_in_its_folder_whatever_its_name(known):
    before = {path for path in known.folder.parent.rglob("*") if known.folder not in path.parents}
    for name in ("a.png", "../../up.png", "/etc/up.png", "..\\up.png"):
        answer = known.post("/gradio_api/upload", files={"files": (name, b"content", "image/png")})
        assert answer.status_code == 200
        (kept,) = answer.json()
        assert Path(kept).resolve().is_relative_to(known.folder.resolve())
        assert known.get(f"/gradio_api/file={kept}").content == b"content"
    assert {path for path in known.folder.parent.rglob("*") if known.folder not in path.parents} == before
    assert any(path.name == "p.png" for path in known.folder.rglob("*")), "the photo it began with lies there too"


def test_an_upload_that_is_too_large_is_refused(known):
    small, large = ({"files": ("a.png", b"x" * size, "image/png")} for size in (1_000, 200_000))
    assert known.post("/gradio_api/upload", files=small).status_code == 200
    assert known.post("/gradio_api/upload", files=large).status_code == 413


def test_a_script_in_a_name_is_only_a_name(known):
    answer = known.post("/gradio_api/upload", files={"files": ("<script>alert(1)</script>.png", b"x", "image/png")})
    assert answer.status_code == 200 and "<script>" not in answer.text


@pytest.fixture
def finisher(monkeypatch):
    model = LastWord(8)
    monkeypatch.setattr(module, "shipped", lambda: model)


def edit(tmp_path, **changes):
    given = {"file": picture(tmp_path / "p.png"), "canvas": painted(), "edit": picture(tmp_path / "e.png", 1)}
    given |= {"invert": False, "more": 0, "soft": 0, "method": "last word", "word": "", "seed": 0} | changes
    return module._edit(tmp_path, *given.values())


def test_an_edit_made_elsewhere_is_put_in_and_nothing_else_changes(tmp_path, finisher):
    (before, after), told, rim, heat, result, mask = edit(tmp_path)
    hole = np.asarray(Image.open(mask)) > 0
    assert hole.sum() == 25 * 20 and hole[10:30, 15:40].all()
    for picture_of in (after, Image.open(result)):
        np.testing.assert_array_equal(np.asarray(picture_of)[~hole], np.asarray(before)[~hole])
    assert (np.asarray(after)[hole] != np.asarray(before)[hole]).mean() > 0.9
    assert told.startswith("Outside the hole: 0.0%") and rim.size[0] == 2 * rim.size[1] + 8 and heat.size == before.size


@pytest.mark.parametrize(
    "changes, area", [({"more": 2}, 29 * 24), ({"more": -2}, 21 * 16), ({"invert": True}, 60 * 40 - 25 * 20)]
)
def test_the_mask_can_be_grown_and_inverted(tmp_path, finisher, changes, area):
    assert (np.asarray(Image.open(edit(tmp_path, **changes)[-1])) > 0).sum() == area


def test_a_feathered_mask_fades(tmp_path, finisher):
    values = np.unique(np.asarray(Image.open(edit(tmp_path, soft=4)[-1])))
    assert len(values) > 3 and values[0] == 0 and values[-1] == 255


def test_vanilla_shows_what_an_edit_does_to_the_rest(tmp_path, finisher):
    (before, after), told, *_ = edit(tmp_path, method="vanilla")
    assert (np.asarray(after) != np.asarray(before)).mean() > 0.9 and "100.0%" in told


def test_without_an_edit_the_models_that_ship_fill_the_hole(tmp_path, tiny_shipped):
    for method in module.METHODS:
        (before, after), *_ = edit(tmp_path, edit=None, method=method, word="red")
        same = np.asarray(after)[:10] == np.asarray(before)[:10]
        assert same.all() == (method != "vanilla")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"file": None}, "Bring a photo first"),
        ({"canvas": {"layers": [Image.new("RGBA", (60, 40))]}}, "Paint the hole first"),
        ({"canvas": None}, "Paint the hole first"),
        ({"more": -32}, "Nothing is left of the hole"),
    ],
)
def test_what_is_missing_is_told(tmp_path, changes, message):
    with pytest.raises(gr.Error, match=message):
        edit(tmp_path, **changes)


def test_a_broken_upload_is_told(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for where in ("file", "edit"):
        with pytest.raises(gr.Error, match="got broken.png, which is no picture"):
            edit(tmp_path, **{where: str(tmp_path / "broken.png")})


def test_a_large_photo_is_painted_on_small_and_edited_whole(tmp_path, finisher):
    large = picture(tmp_path / "large.png", 2, (1500, 1000))
    assert max(module._shown(large).size) == module.SHOWN
    (before, after), *_ = edit(tmp_path, file=large, canvas=painted((1024, 683)), edit=large)
    assert after.size == (1500, 1000)


def test_the_rim_is_shown_whatever_the_hole(tmp_path):
    before = Image.new("RGB", (20, 10))
    for hole in (torch.zeros(1, 1, 10, 20), torch.ones(1, 1, 10, 20)):
        assert module._rim(before, before, hole).height == 8 * 48
