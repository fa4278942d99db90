"""How soon the page of the service shows what a slider asks for, in a browser.

    python benchmarks/page.py     # results/page.json

A picture of two megapixels, shown whole on a window of 1440 x 900. A slider is moved several times,
and each time the first and the last change of what is seen are timed: strength blends what is
there, an expert's slider restores the visible part anew, a small version first.

Needs `playwright`, and `chromium`.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring import write_report

from urushi.image import write_picture

SIZE = (1224, 1632)
PATIENCE = 300_000
# An expert is tried on a small version first, and on a finer one when the slider rests.
SLIDERS = {"strength": ("#strengths input", 1500), "expert": ("#mix input", 15000)}
# Moves a slider, and says after how many milliseconds the picture changed first and last.
MOVED = """async ([selector, value, idle]) => {
  const seen = () => {
    const canvas = document.querySelector("#after canvas");
    const small = new OffscreenCanvas(96, 64).getContext("2d");
    small.drawImage(canvas, 0, 0, 96, 64);
    return small.getImageData(0, 0, 96, 64).data.join();
  };
  const frame = () => new Promise(requestAnimationFrame);
  const input = document.querySelector(selector);
  let before = seen(), first = null, last = null;
  const begin = performance.now();
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  for (let now = begin; now < (last ?? begin + 60000) + idle; now = performance.now()) {
    await frame();
    const after = seen();
    if (after !== before) first ??= last = performance.now();
    if (after !== before) last = performance.now();
    before = after;
  }
  return last === null ? null : [first - begin, last - begin];
}"""


def main() -> None:
    """Reads the command line, starts a service and moves its sliders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--moves", type=int, default=9)
    options = parser.parse_args()
    if options.browser is None:
        raise SystemExit("no chromium is installed: name a browser by --browser")
    from playwright.sync_api import sync_playwright

    line = [sys.executable, "-m", "urushi", "serve", "--port", "0"]
    service = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        found = re.search(r"http://\S+/", service.stdout.readline())
        if found is None:
            raise SystemExit("urushi serve does not start")
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            browser = playwright.chromium.launch(
                executable_path=options.browser, args=["--no-sandbox"]
            )
            page = opened(browser, found.group(), Path(folder))
            rows = [measured(page, name, options.moves) for name in SLIDERS]
            facts = {"pixels": SIZE[0] * SIZE[1], "load": round(os.getloadavg()[0], 1)}
            write_report("page", facts, ("openvino", "playwright"), rows)
            browser.close()
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    for row in rows:
        print(row)


def opened(browser: Any, address: str, folder: Path) -> Any:
    """The page with a picture that is restored."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : 1 : SIZE[0] * 1j, 0 : 1 : SIZE[1] * 1j]
    waves = [np.sin(40 * rows * columns + phase) / 3 + 0.5 for phase in range(3)]
    noisy = np.stack(waves, axis=2) + random.normal(0, 0.06, (*SIZE, 3))
    write_picture(folder / "picture.png", noisy.clip(0, 1).astype(np.float32))
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address)
    page.locator("#service", has_text="ready").wait_for()
    page.set_input_files("#files", str(folder / "picture.png"))
    page.wait_for_selector("#list li.done")
    page.click("#mixing summary")
    page.wait_for_timeout(3000)
    return page


def measured(page: Any, slider: str, moves: int) -> dict[str, Any]:
    """Seconds from a move of a slider to the first and the last change of what is seen."""
    selector, idle = SLIDERS[slider]
    times: dict[str, list[float]] = {"first": [], "last": []}
    for number in range(moves):
        value = round(0.15 + 0.8 * number / max(moves - 1, 1), 2)
        taken = page.evaluate(MOVED, [selector, str(value), idle])
        if taken is None:
            raise SystemExit(f"{slider} {value}: nothing changed within a minute")
        for name, milliseconds in zip(times, taken, strict=True):
            times[name].append(milliseconds / 1000)
    row: dict[str, Any] = {"slider": slider, "moves": moves}
    for name, found in times.items():
        row[f"{name}_s"] = {
            "median": round(statistics.median(found), 3),
            "most": round(max(found), 3),
        }
    return row


if __name__ == "__main__":
    main()
