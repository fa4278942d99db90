"""The page, in a browser: pictures in, mended ones out, by mouse and keyboard, wide and narrow."""

import re
import shutil
import signal
import zipfile
from urllib.parse import urlsplit

import pytest
from commands import run, start
from serve_support import write

from urushi.inference.zoo import find_adapter

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
expect = sync_api.expect
PATIENCE = 120_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def address():
    process = start("serve", "--port", "0", "--threads", "1")
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+/", line).group()
        process.send_signal(signal.SIGTERM)
        out, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
        assert out == "stopped\n"
        assert complaints == ""
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.faults, page.requested = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(address)
    expect(page.locator("#service")).to_have_text("ready")
    yield page
    assert page.faults == []
    ours = urlsplit(address).netloc
    assert {urlsplit(url).netloc for url in page.requested if url.startswith("http")} == {ours}
    context.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropped")
    return [
        write(folder / f"picture{i}.png", height=300, width=400, shift=float(i)) for i in (0, 1)
    ]


def give(page, *paths):
    page.set_input_files("#files", [str(path) for path in paths])
    expect(page.locator("#list li.done, #list li.failed")).to_have_count(
        len(paths), timeout=PATIENCE
    )


def test_a_picture_goes_in_and_comes_back_as_the_command_gives_it(page, pictures, tmp_path):
    give(page, pictures[0])
    expect(page.locator("#bars li")).not_to_have_count(0)
    assert page.locator("#reason").inner_text()
    expect(page.locator("#view-facts")).to_contain_text("400 × 300")
    with page.expect_download() as coming:
        page.click("#download")
    assert coming.value.suggested_filename == "picture0_restored.png"
    coming.value.save_as(tmp_path / "by-page.png")
    run("restore", pictures[0], "-o", tmp_path / "by-command.png", "--threads", "1")
    assert (tmp_path / "by-page.png").read_bytes() == (tmp_path / "by-command.png").read_bytes()


def test_all_come_in_one_file_with_their_settings(page, pictures, tmp_path):
    give(page, *pictures)
    page.locator("#strengths input").first.fill("0.5")
    page.click("#same")
    with page.expect_download() as coming:
        page.click("#all")
    coming.value.save_as(tmp_path / "all.zip")
    run("restore", *pictures, "-o", f"{tmp_path}/half/", "--strength", "0.5", "--threads", "1")
    with zipfile.ZipFile(tmp_path / "all.zip") as pack:
        assert pack.namelist() == ["picture0_restored.png", "picture1_restored.png"]
        for name in pack.namelist():
            made = tmp_path / "half" / name.replace("_restored", "")
            assert pack.read(name) == made.read_bytes()


def test_what_cannot_be_read_is_told_in_the_words_of_the_command(page, pictures, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"this is no picture")
    give(page, pictures[0], bad)
    page.click("#list li.failed button")
    expect(page.get_by_role("alert").first).to_contain_text("bad.jpg")
    assert "/" not in page.locator("#problem").inner_text()


def test_sliders_redraw_what_is_seen(page, pictures, tmp_path):
    give(page, pictures[0])
    with page.expect_response(lambda answer: "strength=0.35" in answer.url) as coming:
        page.locator("#strengths input").first.fill("0.35")
    assert coming.value.ok
    page.click("#mixing summary")
    with page.expect_response(lambda answer: "/try?" in answer.url) as coming:
        page.locator("#mix input").first.fill("0.5")
    assert coming.value.ok
    mine = shutil.copy(find_adapter("jpeg"), tmp_path / "mine.safetensors")
    page.set_input_files("#adapter-file", str(mine))
    expect(page.get_by_label("mine")).to_have_value("1")
    expect(page.locator("#mix-said")).to_contain_text("mended so")
    page.click("#apply")
    # In words, and not by what the service calls it.
    first = page.locator("#mix label").first.inner_text()
    expect(page.locator("#reason")).to_have_text(f"mended by {first} and mine")
    expect(page.locator("#list li.done .state")).to_have_text(f"mended by {first} and mine")


def test_it_works_by_keyboard(page, pictures):
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    give(page, pictures[0])
    slider = page.get_by_role("slider", name="Where before ends")
    slider.focus()
    before = slider.get_attribute("aria-valuenow")
    page.keyboard.press("ArrowRight", delay=200)
    expect(slider).not_to_have_attribute("aria-valuenow", before)
    for control in page.locator("#bench button:visible, #bench input:visible").all():
        name = control.evaluate(
            "e => e.innerText || e.ariaLabel || [...(e.labels ?? [])].map(l => l.innerText).join()"
        )
        assert name.strip(), control.evaluate("e => e.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page, pictures, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    give(page, *pictures)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    paper, ink = page.evaluate(
        "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"
    )
    assert _contrast(paper, ink) >= 7


def _contrast(one, other):
    """As WCAG 2 defines it."""
    lights = []
    for colour in (one, other):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_removing_all_leaves_nothing(page, pictures):
    give(page, pictures[0])
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.click("#clear")
    expect(page.locator("#bench")).to_be_hidden()
    expect(page.locator("#choose")).to_be_focused()
