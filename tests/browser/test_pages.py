"""The painter and notebook 00 as a person meets them, in Debian's Chromium: `make browser`.

Not a part of `make test`: it needs a browser. A console error, a cut or an overlapping element fails; screenshots are
kept in build/browser.
"""

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
from playwright.sync_api import Page, sync_playwright

from asymlib.study.project import project_root

ROOT = project_root()
KEPT = ROOT / "build" / "browser"
SIZES = {"desk": (1400, 900), "phone": (390, 844)}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 120_000  # milliseconds: two cores


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


def nothing_sticks_out(page: Page) -> None:
    """No element is wider than the window: nobody has to scroll sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo <b>.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 260, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def painter(photo):
    """`asymlib paint`, and its address."""
    port = free_port()
    command = [sys.executable, "-m", "asymlib.cli", "paint", str(photo), "--port", str(port), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = re.search(r"http://\S+", process.stdout.readline())[0]
    wait_for(address)
    yield address
    process.terminate()
    process.wait()


@pytest.mark.parametrize("size", SIZES)
def test_a_hole_is_painted_and_edited(browser, painter, size):
    """Breaks when the photo is not shown, strokes do not arrive, or the result does not."""
    page, errors = open_page(browser, painter, size)
    page.get_by_text("Paint the hole").first.wait_for()
    canvas = page.locator("canvas").first
    canvas.wait_for()
    page.wait_for_timeout(4000)
    box = canvas.bounding_box()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=8)
    page.mouse.up()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Outside the hole: 0.0%").wait_for()
    nothing_sticks_out(page)
    page.screenshot(path=KEPT / f"painter_{size}.png", full_page=True)
    assert "<b>" not in page.inner_html("body").replace("&lt;b&gt;", "")
    assert not errors, errors
    page.close()


@pytest.fixture(scope="module")
def lab():
    """JupyterLab on the project's notebooks, without a token, on this machine alone."""
    port = free_port()
    options = [
        "--no-browser",
        f"--port={port}",
        "--IdentityProvider.token=",
        "--ServerApp.ip=127.0.0.1",
        "--allow-root",
    ]
    process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], cwd=ROOT / "notebooks")
    wait_for(f"http://127.0.0.1:{port}/api")
    yield f"http://127.0.0.1:{port}/doc/tree/00_start_here.ipynb"
    process.terminate()
    process.wait()


def test_notebook_00_runs_is_painted_on_and_runs_again(browser, lab):
    page, errors = open_page(browser, lab, "desk")
    page.get_by_text("Run").first.wait_for()
    page.get_by_role("menuitem", name="Run").click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.get_by_text("before | after").wait_for()
    painting = page.locator("canvas").first
    painting.scroll_into_view_if_needed()
    box = painting.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 120, steps=8)
    page.mouse.up()
    page.get_by_role("menuitem", name="Run").click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_timeout(20_000)
    page.screenshot(path=KEPT / "notebook_00.png", full_page=True)
    assert not page.get_by_text("Traceback").count()
    assert not [error for error in errors if "favicon" not in error], errors
    page.close()
