"""Takes the pictures of the page of the service, with a browser, from the demo's pictures.

    python docs/serve_pictures.py       # docs/serve-page.jpg and docs/serve-phone.jpg

Needs `playwright`, and Debian's `chromium` or another one named by `--browser`.
"""

import argparse
import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ROOT / "demo/pictures/input"
SHOWN = (
    "haze.webp",
    "low-light.webp",
    "rain.webp",
    "noise-display-p3.png",
    "photon-noise-16bit.png",
    "jpeg-10.jpg",
    "snow.webp",
)
PATIENCE = 120_000
MOST = 300_000


def main() -> None:
    """Reads the command line, starts a service and takes both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--target", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    if options.browser is None:
        raise SystemExit("no chromium is installed: name a browser by --browser")
    from playwright.sync_api import sync_playwright

    line = [sys.executable, "-m", "urushi", "serve", "--port", "0"]
    service = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert service.stdout is not None
        found = re.search(r"http://\S+/", service.stdout.readline())
        if found is None:
            raise SystemExit("urushi serve does not start")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=options.browser, args=["--no-sandbox"]
            )
            wide(browser, found.group(), options.target / "serve-page.jpg")
            phone(browser, found.group(), options.target / "serve-phone.jpg")
            browser.close()
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)


def wide(browser: Any, address: str, target: Path) -> None:
    """The page on a screen, with a mix of experts tried."""
    view = {"width": 1440, "height": 1000}
    page = opened(browser, address, viewport=view, color_scheme="light")
    page.click("#mixing summary")
    with page.expect_response(lambda answer: "/try?" in answer.url):
        page.get_by_role("slider", name="haze").fill("0.6")
    page.evaluate("window.scrollTo(0, 0)")
    taken(page, target)


def phone(browser: Any, address: str, target: Path) -> None:
    """The page on a phone, dark."""
    view = {"width": 390, "height": 844}
    page = opened(browser, address, viewport=view, color_scheme="dark", device_scale_factor=1.5)
    taken(page, target)


def opened(browser: Any, address: str, **context: Any) -> Any:
    """The page, when it has restored what is shown on it."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_text("ready", exact=True).wait_for()
    page.set_input_files("#files", [str(INPUTS / name) for name in SHOWN])
    page.wait_for_function(
        "count => document.querySelectorAll('#list li.done').length === count", arg=len(SHOWN)
    )
    page.click("#list li:first-child button")
    return page


def taken(page: Any, target: Path) -> None:
    """Takes what is seen when all parts of the picture are there, as a JPEG of bounded size."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(target, quality=88, optimize=True)
    size = target.stat().st_size
    print(f"{target.name}: {picture.width}x{picture.height}, {size} bytes")
    if size > MOST:
        raise SystemExit(f"{target.name} has {size} bytes: at most {MOST} are wanted")
    page.context.close()


if __name__ == "__main__":
    main()
