"""Takes the pictures of the page that mends in the browser, and compares what it does.

    python docs/browser_pictures.py     # docs/browser-page.jpg and docs/browser-phone.jpg

The page is written anew, with the shipped base and an expert. What it makes of a picture of several
tiles is compared with what the command makes of it, pixel by pixel; more than 1 of 255 is an error.
Needs `playwright`, `npm`, the extra `export`, and Debian's `chromium` or another one named by
`--browser`.
"""

import argparse
import contextlib
import functools
import http.server
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from serve_pictures import INPUTS, ROOT, taken

EXPERT = "noise"
BLOCKY = INPUTS / "jpeg-10.jpg"
# Longer sides than one tile has, and more pixels than are restored whole.
SIZE = (1240, 900)
PATIENCE = 600_000


def main() -> None:
    """Reads the command line, writes the page and looks at it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--target", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    if options.browser is None:
        raise SystemExit("no chromium is installed: name a browser by --browser")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        urushi("export", "base", "--for", "browser", "--adapter", EXPERT, "-o", folder / "site")
        with sync_playwright() as playwright, served(folder / "site") as address:
            browser = playwright.chromium.launch(
                executable_path=options.browser, args=["--no-sandbox"]
            )
            compare(browser, address, folder)
            view: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
            page = mended(browser, address, BLOCKY, "base", color_scheme="light", **view)
            taken(page, options.target / "browser-page.jpg")
            view = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 1.5}
            page = mended(browser, address, BLOCKY, "base", color_scheme="dark", **view)
            taken(page, options.target / "browser-phone.jpg")
            browser.close()


def urushi(*words: object) -> None:
    """Runs a command."""
    subprocess.run([sys.executable, "-m", "urushi", *map(str, words)], cwd=ROOT, check=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Hands out the files of a folder without a word."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Hands out the files of a folder; gives the address."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def compare(browser: Any, address: str, folder: Path) -> None:
    """Tells by how much page and command differ, with the base and with the expert."""
    source, mine, theirs = (folder / f"{name}.png" for name in ("source", "page", "command"))
    Image.open(BLOCKY).convert("RGB").resize(SIZE).save(source)
    for network, asked in (("base", ["--task", "none"]), (EXPERT, ["--adapter", EXPERT])):
        page = mended(browser, address, source, network)
        with page.expect_download() as coming:
            page.click("#download")
        coming.value.save_as(mine)
        told = page.locator("#notes li").first.inner_text()
        page.context.close()
        urushi("restore", source, "-o", theirs, "--overwrite", *asked)
        made, expected = (np.asarray(Image.open(path)).astype(int) for path in (mine, theirs))
        error = np.abs(made - expected)
        print(f"{told} Differs by {error.max()} of 255 at most, in {(error > 0).mean():.4%}.")
        if error.max() > 1:
            raise SystemExit(f"{network}: the page gives another picture than the command")


def mended(browser: Any, address: str, path: Path, network: str, **context: Any) -> Any:
    """The page, when it has mended a picture."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator(f"[name=network][value={network}]").evaluate("radio => { radio.checked = true }")
    page.set_input_files("#file", str(path))
    page.locator("#download:enabled").wait_for()
    return page


if __name__ == "__main__":
    main()
