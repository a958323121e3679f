"""The painter and notebook 00 as a person meets them, in Debian's Chromium: `make browser`.

Not a part of `make test`: it needs a browser. A console error, a cut or an overlapping element fails; screenshots are
kept in build/browser. CHROMIUM names another browser of its kind.
"""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from asymlib.study.dataset.photographs import packaged_photographs
from asymlib.study.project import project_root

ROOT = project_root()
KEPT = ROOT / "build" / "browser"
SIZES = {"desk": (1400, 900), "phone": (390, 844)}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 240_000  # milliseconds: two cores, perhaps busy ones


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "chromium: got none, expected one: apt-get install chromium"
    KEPT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def open_page(browser, address: str, size: str) -> tuple[Page, list[str]]:
    """A page, and the errors that it will write to the console."""
    width, height = SIZES[size]
    page, errors = browser.new_page(viewport={"width": width, "height": height}), []
    page.set_default_timeout(WAIT)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address, wait_until="domcontentloaded")
    return page, errors


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def wait_for(address: str, seconds: int = 120) -> None:
    for _ in range(seconds):
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(1)
    raise TimeoutError(address)


CUT = """() => [...document.querySelectorAll('p, span, button, label, h1, h2, div')].filter(e => {
    const style = getComputedStyle(e), own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!e.checkVisibility({visibilityProperty: true, opacityProperty: true})) return false;
    const text = own || e.querySelector('p, span, button, label') !== null;
    const hides = way => way === 'hidden' || way === 'clip';
    const high = hides(style.overflowY) && e.scrollHeight > e.clientHeight + 4;
    const wide = own && hides(style.overflowX) && e.scrollWidth > e.clientWidth + 4;
    return text && e.clientHeight > 20 && (high || wide);
}).filter(e => e.innerText.trim()).map(e => `${e.innerText.slice(0, 60)}: ${e.scrollWidth} x ${e.scrollHeight} px`)"""
OVERLAPPING = """() => {
    const boxes = [...document.querySelectorAll('button, img, input[type=number], input[type=checkbox], h1, p')]
        .filter(e => e.checkVisibility({visibilityProperty: true}) && (e.innerText || e.tagName === 'INPUT'))
        .map(e => [e, e.getBoundingClientRect()]).filter(([e, b]) => b.width > 1 && b.height > 1);
    const found = [];
    boxes.forEach(([a, x], i) => boxes.slice(i + 1).forEach(([b, y]) => {
        const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);
        const high = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
        const over = e => e.tagName === 'IMG' || e.closest('.image-container, .slider-wrap');
        if (wide > 2 && high > 2 && !a.contains(b) && !b.contains(a) && !(over(a) && over(b)))
            found.push(`${a.tagName} ${a.innerText} | ${b.tagName} ${b.innerText}`);
    }));
    return found;
}"""


def looks_right(page: Page) -> None:
    """Nobody has to scroll sideways, no text is cut, no two things that are read or used lie over each other."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert page.evaluate(CUT) == []
    assert page.evaluate(OVERLAPPING) == []


@pytest.mark.parametrize(
    "broken",
    [
        "<p style='width: 100px; overflow: hidden; white-space: nowrap; padding: 10px'>much more than fits in here</p>",
        "<p style='height: 30px; overflow: hidden'>much<br>more<br>than<br>fits<br>in here</p>",
        "<button>one</button><button style='margin-left: -20px'>another</button>",
        "<p style='width: 3000px'>wide</p>",
    ],
)
def test_a_broken_page_does_not_look_right(browser, broken):
    """Breaks when the checks of the pages below cannot fail."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_content("<h1>A page</h1><button>one</button> <button>another</button><p>that is in order</p>")
    looks_right(page)
    page.set_content(broken)
    with pytest.raises(AssertionError):
        looks_right(page)
    page.close()


def stroke(page: Page, canvas: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag the mouse over a canvas, from and to shares of its sides."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    (x, y), (x_end, y_end) = ((box["x"] + box["width"] * u, box["y"] + box["height"] * v) for u, v in (start, end))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x_end, y_end, steps=8)
    page.mouse.up()


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A packaged photograph, under a name that a page must not take for a tag."""
    path = tmp_path_factory.mktemp("photo") / "photo <b>.png"
    Image.fromarray(next(p for p in packaged_photographs() if p.name == "astronaut").pixels).save(path)
    return path


@pytest.fixture(scope="module")
def painter(photo):
    """`asymlib paint`, and its address."""
    port = free_port()
    command = [sys.executable, "-m", "asymlib", "paint", str(photo), "--port", str(port), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = re.search(r"http://\S+", process.stdout.readline())[0]
    wait_for(address)
    yield address
    process.terminate()
    process.wait()


@pytest.mark.parametrize("size", SIZES)
def test_a_hole_is_painted_and_edited(browser, painter, size):
    """Breaks when the photo is not shown, strokes do not arrive, or the result does not."""
    opened = time.monotonic()
    page, errors = open_page(browser, painter, size)
    canvas = page.locator("canvas").first
    canvas.wait_for()
    page.wait_for_function("() => document.querySelector('canvas').clientHeight > 100")
    looks_right(page)
    page.wait_for_timeout(2000)  # the editor draws the photo after it has said that it is there
    page.screenshot(path=KEPT / f"painter_{size}_opened.png", full_page=True)
    stroke(page, canvas, (0.4, 0.4), (0.6, 0.55))
    page.wait_for_timeout(1500)  # and sends a stroke a moment after it ends
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Outside the hole: 0.0%").wait_for()
    (KEPT / f"painter_{size}.txt").write_text(
        f"{time.monotonic() - opened:.0f} seconds from opening to a first result\n"
    )
    page.mouse.move(0, 0)
    looks_right(page)
    page.screenshot(path=KEPT / f"painter_{size}.png", full_page=True)
    with page.expect_download() as loaded:
        page.get_by_role("button", name="Mask", exact=True).click()
    area = (np.asarray(Image.open(loaded.value.path()).convert("L")) > 0).sum()
    stroke(page, canvas, (0.2, 0.7), (0.3, 0.8))
    page.get_by_role("button", name="Undo", exact=True).first.click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.wait_for_timeout(3000)
    with page.expect_download() as loaded:
        page.get_by_role("button", name="Mask", exact=True).click()
    assert area > 0 and (np.asarray(Image.open(loaded.value.path()).convert("L")) > 0).sum() == area
    assert "<b>" not in page.inner_html("body").replace("&lt;b&gt;", "")
    assert not errors, errors
    page.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab as `make lab` starts it, on a copy: its root is the project's. Without a token, on this machine alone;
    it renders every cell, also those that are not in the window, and asks for no news."""
    root, settings = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("settings")
    (root / "asymlib").symlink_to(ROOT / "asymlib")
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(ROOT / "results" / "default" / "figures", root / "results" / "default" / "figures")
    for plugin, wanted in {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false"},
    }.items():
        path = settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wanted))
    port = free_port()
    options = ["--no-browser", f"--port={port}", "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1"]
    environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(settings)}
    command = [sys.executable, "-m", "jupyterlab", *options, "--allow-root"]
    process = subprocess.Popen(command, cwd=root, env=environment)
    wait_for(f"http://127.0.0.1:{port}/api")
    yield f"http://127.0.0.1:{port}/lab/tree/notebooks/00_start_here.ipynb?reset"
    process.terminate()
    process.wait()


def slid(page: Page) -> np.ndarray:
    """The picture above the slider, (H, W, 3)."""
    page.locator(".widget-image").wait_for()
    read = """async () => {
        const read = await (await fetch(document.querySelector('.widget-image').src)).arrayBuffer();
        return [...new Uint8Array(read)];
    }"""
    return np.asarray(Image.open(io.BytesIO(bytes(page.evaluate(read)))).convert("RGB")).astype(int)


WAITING = "[...document.querySelectorAll('.jp-InputPrompt')].filter(e => e.textContent.includes('*'))"


def run(page: Page, which: str) -> None:
    """Choose an entry of the menu Run and wait until no cell waits or runs; the kernel rests between cells as well."""
    page.get_by_text("| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text(which, exact=True).click()
    page.wait_for_function(f"() => {WAITING}.length > 0")
    page.wait_for_function(f"() => {WAITING}.length === 0")


def test_notebook_00_runs_is_painted_on_and_runs_again(browser, lab):
    """Breaks when a cell fails, a picture is not found, what is painted has no effect, or the slider does nothing."""
    page, errors = open_page(browser, lab, "desk")
    run(page, "Run All Cells")
    of_the_suit = slid(page)
    stroke(page, page.locator("canvas").first, (0.1, 0.1), (0.3, 0.2))
    page.locator(".jp-CodeCell", has_text="mask = painted(").locator(".cm-content").click()
    run(page, "Run Selected Cell and All Below")
    of_the_stroke = slid(page)
    changed = np.abs(of_the_stroke - of_the_suit).mean(2)
    height, width = changed.shape
    assert changed[height // 2 :].max() > 40, "the suit is no longer blue"
    assert changed[: height // 4, 3 * width // 4 :].max() < 20, "the same photo, and its known pixels"
    page.locator(".widget-slider .noUi-handle").press("ArrowRight")
    page.wait_for_timeout(2000)
    assert (slid(page) != of_the_stroke).any()
    page.locator(".widget-image").scroll_into_view_if_needed()
    page.screenshot(path=KEPT / "notebook_00_slider.png")
    for place, heading in enumerate(("One photograph, one wish", "The problem", "Use it")):
        page.get_by_role("heading", name=heading).first.evaluate("heading => heading.scrollIntoView()")
        page.screenshot(path=KEPT / f"notebook_00_{place}.png")
    assert not page.get_by_text("Traceback").count()
    assert not errors, errors
    page.close()
