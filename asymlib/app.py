"""The painter: a page on 127.0.0.1 on which a mask is painted on a photo and every method tried, before and after.

Gradio's components; ours are the photo's door (`pictures`), the mask, the methods, and who may come in.
"""

import os
import secrets
import socket
import tempfile
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path

import gradio as gr
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from PIL import Image

from asymlib.editing.compositing import paste_hard
from asymlib.editing.finishing import shipped
from asymlib.editing.inpainting import inpaint
from asymlib.masks import dilate, feather, grow
from asymlib.models.shipped import shipped_models
from asymlib.models.words import WORDS
from asymlib.pictures import UNREADABLE, Photo, read_photo, save_picture
from asymlib.pixels import resized, to_picture

SHOWN = 1024  # pixels of the longer side of what is painted on; the mask is brought to the photo's size
LARGEST = "64mb"  # of an upload
BUTTONS = ["download", "fullscreen"]  # of a picture: it is shared with nobody
FILE = 150  # pixels, the height of a box for a file
METHODS = {
    "last word": "the plain decoder, finished",
    "base": "the paper's decoder, which is told the known pixels",
    "pasted": "the plain decoder, known pixels pasted back",
    "vanilla": "the plain decoder, as it comes",
}
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # nothing is fetched
CSS = """
.gradio-container {max-width: 1200px !important; margin: auto}
.upload-container .wrap {min-height: 0; padding: 20px 0 0}
"""


def serve(photo: Path | None, port: int, browser: bool) -> None:
    """Serve the page until it is stopped.

    Args:
        photo: What it begins with.
        port: On 127.0.0.1; 0 takes a free one.
        browser: Whether to open it.

    Raises:
        FileNotFoundError, ValueError: The photo cannot be read, or the port is taken.
    """
    if photo is not None:
        read_photo(photo)
    token = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="asymlib_") as folder, listening(port) as door:
        address = f"http://127.0.0.1:{door.getsockname()[1]}/?token={token}"
        print(f"painting at {address} (control-c stops)", flush=True)
        if browser:  # beside this, since a text browser is waited for
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(make_app(token, Path(folder), photo), log_level="warning")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[door])


def listening(port: int) -> socket.socket:
    """A socket on that port of 127.0.0.1, or on a free one for 0.

    Raises:
        ValueError: It is taken, or none.
    """
    door = socket.socket()
    # a painter that has just been stopped is in nobody's way
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", port))
        door.listen()
    except (OSError, OverflowError) as error:
        door.close()
        raise ValueError(
            f"port: got {port}, which cannot be had ({error}); expected another, or 0 for a free one"
        ) from error
    return door


def make_app(token: str, folder: Path, photo: Path | None = None) -> FastAPI:
    """The page as an application.

    Args:
        token: What a visitor has to bring once, as ?token=; then a cookie remembers.
        folder: The one folder that is written to and served from, uploads included.
        photo: What it begins with.
    """
    for cache in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        os.environ[cache] = str(folder)  # else one that all of Gradio's pages share and nobody clears
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, go_on):
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        origin = request.headers.get("origin")
        if host not in ("127.0.0.1", "localhost", "testserver"):  # a name that was bent to this machine
            return PlainTextResponse("another host", 403)
        if origin and origin.split("://")[-1] != request.headers.get("host"):
            return PlainTextResponse("another origin", 403)
        brought = request.query_params.get("token", "") or request.cookies.get("asymlib", "")
        if not secrets.compare_digest(brought.encode(), token.encode()):
            return PlainTextResponse("open the address that `asymlib paint` printed", 403)
        answer = await go_on(request)
        answer.set_cookie("asymlib", token, httponly=True, samesite="strict")
        return answer

    return gr.mount_gradio_app(
        app, page(folder, photo), "/", max_file_size=LARGEST, theme=THEME, css=CSS, ssr_mode=False, footer_links=[]
    )


def page(folder: Path, photo: Path | None = None) -> gr.Blocks:
    """The components, and what happens when they are used."""
    with gr.Blocks(title="asymlib paint", analytics_enabled=False) as blocks:
        gr.Markdown(
            "# Edit a photo, and nothing else of it\nPaint the hole. Bring an edit of your own, or let the small "
            "model that ships fill it: it makes colours and simple texture, no objects."
        )
        with gr.Row():
            with gr.Column():
                file = gr.File(label="Photo", file_types=["image"], value=str(photo) if photo else None, height=FILE)
                canvas = gr.ImageEditor(
                    label="Mask", sources=(), transforms=(), layers=False, format="png", type="pil",
                    brush=gr.Brush(default_size=30, colors=["#ff2d2d"], color_mode="fixed"), height=480,
                )  # fmt: skip
                invert = gr.Checkbox(label="Invert: what is painted is kept")
                more = gr.Slider(-32, 64, 0, step=1, label="Grow (pixels)")
                soft = gr.Slider(0, 64, 0, step=1, label="Feather (pixels)")
            with gr.Column():
                edit = gr.File(label="Edit made elsewhere (optional)", file_types=["image"], height=FILE)
                method = gr.Radio(list(METHODS), value=next(iter(METHODS)), label="Method")
                word = gr.Dropdown(["", *WORDS], value="", label="What to fill in (without an edit)")
                seed = gr.Number(0, precision=0, label="Seed")
                run = gr.Button("Edit", variant="primary")
                both = gr.ImageSlider(label="Before and after", type="pil")
                told = gr.Markdown()
        with gr.Row():
            rim = gr.Image(label="The rim, magnified: before, after", type="pil", buttons=BUTTONS)
            heat = gr.Image(label="What changed outside, ten times", type="pil", buttons=BUTTONS)
        with gr.Row():
            picture, mask = gr.DownloadButton("Result"), gr.DownloadButton("Mask")
        file.change(_shown, file, canvas)
        blocks.load(_shown, file, canvas)
        inputs = [file, canvas, edit, invert, more, soft, method, word, seed]
        outputs = [both, told, rim, heat, picture, mask]
        run.click(lambda *given: _edit(folder, *given), inputs, outputs)
    return blocks


def _shown(file: str | None) -> Image.Image | None:
    """The photo, upright and small enough to be painted on."""
    if file is None:
        return None
    shown = Image.fromarray(_read(file, "Photo").on_white)
    shown.thumbnail((SHOWN, SHOWN))
    return shown


def _edit(folder, file, canvas, edit, invert, more, soft, method, word, seed) -> tuple:
    if file is None:
        raise gr.Error("Bring a photo first.")
    photo = _read(file, "Photo")
    painted = np.asarray(canvas["layers"][0].convert("RGBA"))[..., 3] > 0 if canvas and canvas["layers"] else None
    if painted is None or not painted.any():
        raise gr.Error("Paint the hole first.")
    hole = torch.from_numpy(painted)[None, None].float()
    hole = torch.nn.functional.interpolate(hole, photo.size, mode="nearest")
    hole = feather(grow(1 - hole if invert else hole, int(more)), int(soft))
    if not hole.any():
        raise gr.Error("Nothing is left of the hole.")
    given = None if edit is None else _read(edit, "Edit")
    if given is not None and method == "base":
        raise gr.Error("An edit made elsewhere has no latent for base to decode: choose another method.")
    with torch.no_grad():
        result = _result(photo, hole, given, method, word or None, int(seed))
    before, after = Image.fromarray(photo.on_white), Image.fromarray(read_photo(result).on_white)
    paths = [folder / f"{name}_{secrets.token_hex(4)}.png" for name in ("result", "mask")]
    save_picture(result, paths[0])
    to_picture(hole.expand(-1, 3, -1, -1) * 2 - 1).convert("L").save(paths[1])
    changed = np.abs(np.asarray(after).astype(int) - np.asarray(before)) * (hole[0, 0].numpy() == 0)[..., None]
    share = (changed.max(-1) > 0).sum() / max(1, int((hole == 0).sum()))
    told = f"Outside the hole: {share:.1%} of the pixels changed, the largest change is {changed.max()} of 255 levels."
    return (before, after), told, _rim(before, after, hole), _heat(before, changed), *(str(path) for path in paths)


def _result(photo: Photo, hole: torch.Tensor, edit: Photo | None, method: str, word: str | None, seed: int):
    """A PIL image of the photo's size."""
    whole, full = photo.tensor, (hole > 0).float()
    if edit is not None:
        edited = resized(edit.tensor, photo.size)
        if method == "last word":
            return photo.edited(shipped()(whole, edited, full), hole)
        return to_picture(edited) if method == "vanilla" else photo.edited(paste_hard(whole, edited, full), hole)
    mask = hole[0, 0].numpy()
    models = shipped_models(method.replace(" ", "_"))
    made = inpaint(Image.fromarray(photo.on_white), mask, seed=seed, word=word, **models)
    return made if method == "vanilla" else photo.edited(read_photo(made).tensor, full)


def _read(file: str, name: str) -> Photo:
    try:
        return read_photo(file, name)
    except UNREADABLE as error:
        raise gr.Error(str(error)) from None


def _rim(before: Image.Image, after: Image.Image, hole: torch.Tensor, side: int = 48) -> Image.Image:
    """A square at the rim, before and after, eight times."""
    edge = ((dilate((hole > 0).float(), 1) > 0) & (hole == 0))[0, 0].nonzero()
    y, x = edge[len(edge) // 2].tolist() if len(edge) else (extent // 2 for extent in hole.shape[-2:])
    left, top = (
        min(max(0, place - side // 2), max(0, extent - side)) for place, extent in zip((x, y), before.size, strict=True)
    )
    parts = [picture.crop((left, top, left + side, top + side)) for picture in (before, after)]
    shown = Image.new("RGB", (2 * side + 1, side), "white")
    for i, part in enumerate(parts):
        shown.paste(part, (i * (side + 1), 0))
    return shown.resize((8 * shown.width, 8 * shown.height), Image.Resampling.NEAREST)


def _heat(before: Image.Image, changed: np.ndarray) -> Image.Image:
    """The photo in grey, and in red what changed outside of the hole, ten times."""
    grey = np.asarray(before.convert("L").convert("RGB")).astype(float) / 2
    amount = np.clip(10 * changed.max(-1, keepdims=True) / 255, 0, 1)
    return Image.fromarray((grey * (1 - amount) + amount * np.array([255, 40, 40])).astype(np.uint8))
