"""A folder with a page that mends pictures in the browser: no service, nothing leaves the computer.

Any server of static files serves it. The page (`browser/`) runs networks with onnxruntime-web, and
cuts pictures into the tiles of `Restorer`, of which it is told what `choose_tiles` chooses.
"""

import gzip
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from urushi.convert.standalone import export_standalone
from urushi.errors import EngineError, FileFormatError, TakenError
from urushi.files.model import LoadedModel
from urushi.inference.adapted_weights import (
    AdapterLike,
    AppliedAdapter,
    apply_adapters,
    notes_of_graphs,
)
from urushi.inference.changed_light import (
    brightens,
    changes_light,
    clears_haze,
    leaves_detail,
    margin_of,
)
from urushi.inference.engines.base import working_memory
from urushi.inference.tile_sizes import ON_CPU, choose_tiles, overlap_of, sees_widely
from urushi.serve.browser_runtime import LICENCE, VERSION, runtime_folder
from urushi.version import __version__
from urushi.writing import taken

__all__ = ["MOST_BYTES", "BrowserFolder", "write_browser_folder"]

_HERE = Path(__file__).parent
_PAGE = _HERE / "browser"
_OF_SERVICE = ("icon.svg", "style.css", "words.js")
_SLIDER = "img-comparison-slider"

MOST_BYTES = 30_000_000
"""What people should have to fetch at most."""


class BrowserFolder(NamedTuple):
    """What was written.

    Attributes:
        path: the folder.
        networks: names of the networks in it, the base first.
        size: bytes of all its files.
        notes: sentences about what is to be known.
    """

    path: Path
    networks: tuple[str, ...]
    size: int
    notes: tuple[str, ...] = ()


def write_browser_folder(
    model: LoadedModel,
    target: Path,
    adapters: Sequence[AdapterLike] = (),
    *,
    runtime: Path | None = None,
    tile: int | None = None,
    overwrite: bool = False,
) -> BrowserFolder:
    """Write a folder that mends pictures in the browser, with a network and some of its adapters.

    Args:
        model: a checked model file, the first choice on the page.
        target: the folder; it must be missing or empty unless `overwrite`.
        adapters: as for `Restorer`; each is a choice of its own on the page.
        runtime: as for `runtime_folder`.
        tile: longest side of a tile, as for `Restorer`.
        overwrite: replace files of the same names; others stay.

    Raises:
        EngineError: the network enlarges.
        FileFormatError: onnxruntime-web cannot be had, or the folder cannot be written.
        TakenError: the folder holds something, and nothing is to be overwritten.
        UrushiError: as `export_standalone` raises.
    """
    target = Path(target)
    if not overwrite and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise TakenError(taken(target))
    # What cannot be is told before anything is fetched.
    _, applied, _ = apply_adapters(model, adapters)
    programs = runtime_folder(runtime)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".urushi-", dir=target.parent) as made:
            folder = Path(made)
            _write_page(folder)
            shutil.copytree(programs, folder / "onnxruntime")
            choices = [(), *([item] for item in adapters)]
            names: set[str] = set()
            networks = [_write_network(folder, model, choice, tile, names) for choice in choices]
            facts = {"urushi": __version__, "networks": networks}
            (folder / "networks.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            # Each file appears whole, and the page last.
            for path in sorted(folder.rglob("*"), key=lambda path: path.name == "index.html"):
                if path.is_file():
                    place = target / path.relative_to(folder)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(place)
    except OSError as error:
        raise FileFormatError(f"{target} cannot be written ({error.strerror or error})") from error
    notes = notes_of_graphs(applied)
    if size > MOST_BYTES:
        notes += (
            f"the folder has {size / 1e6:.1f} MB, which is much to fetch for a page: leave some "
            "adapters out",
        )
    return BrowserFolder(target, tuple(str(facts["name"]) for facts in networks), size, notes)


def _write_page(folder: Path) -> None:
    """The page, what it shares with that of the service, and the texts of licences."""
    for path in sorted(_PAGE.iterdir()):
        if path.suffix in (".html", ".css", ".js"):
            shutil.copyfile(path, folder / path.name)
    for name in _OF_SERVICE:
        shutil.copyfile(_HERE / "static" / name, folder / name)
    slider = _HERE / "static" / "vendor" / _SLIDER
    (folder / _SLIDER).mkdir()
    for name in ("index.js", "styles.css", "LICENSE"):
        shutil.copyfile(slider / name, folder / _SLIDER / name)
    parts = []
    for title, path in (
        (f"onnxruntime-web {VERSION}", LICENCE),
        (_SLIDER, slider / "LICENSE"),
    ):
        parts.append(f"{title}\n{'=' * len(title)}\n\n{path.read_text('utf-8').strip()}\n")
    (folder / "NOTICES.txt").write_text("\n\n".join(parts), "utf-8")


def _write_network(
    folder: Path,
    model: LoadedModel,
    adapters: Sequence[AdapterLike],
    tile: int | None,
    names: set[str],
) -> dict[str, Any]:
    """A network with adapters as one ONNX file, and what the page has to know of it.

    Args:
        folder: for the file.
        model, adapters, tile: as `write_browser_folder` takes them.
        names: of the networks before it; takes that of this one.
    """
    from urushi.inference.engines.torch_engine import TorchEngine

    ready, applied, attached = apply_adapters(model, adapters)
    engine = TorchEngine(ready, device="cpu", adapters=attached)
    name = _own_name("-".join(item.adapter.name for item in applied) or model.path.stem, names)
    if engine.scale != 1:
        raise EngineError(
            f"{model.path}: this network enlarges {engine.scale} times, and the page keeps the "
            "size of pictures: use  urushi restore"
        )
    # As much as the command would work with, where there is enough.
    share = engine.bytes_per_pixel / working_memory(ready.header, "openvino", "float32")
    overlap = overlap_of(tile)
    wide = sees_widely(applied)
    sizes = choose_tiles(engine, tile, overlap, int(ON_CPU.memory * share), wide=wide)
    graph = folder / "networks" / f"{name}.onnx"
    graph.parent.mkdir(exist_ok=True)
    export_standalone(model, graph, adapters)
    # Weights that were stored in 16 bits have half of their bits at zero.
    packed = graph.with_name(f"{graph.name}.gz")
    packed.write_bytes(gzip.compress(graph.read_bytes(), 3, mtime=0))
    graph.unlink()
    return {
        "name": name,
        "title": name,
        "description": _described(model, applied),
        "file": quote(packed.relative_to(folder).as_posix()),
        "multiple": engine.size_multiple,
        "tile": sizes.tile,
        "overlap": sizes.overlap,
        "whole": sizes.whole,
        "wide": wide,
        "light": changes_light(applied),
        "brightens": brightens(applied),
        "leavesDetail": leaves_detail(applied),
        "clearsHaze": clears_haze(applied),
        "margin": margin_of(applied, engine.size_multiple),
    }


def _own_name(name: str, names: set[str]) -> str:
    """The name of a choice, which gets a number where another has it; it is added to `names`."""
    found, number = name, 1
    while found.casefold() in names:
        number += 1
        found = f"{name}-{number}"
    names.add(found.casefold())
    return found


def _described(model: LoadedModel, adapters: Sequence[AppliedAdapter]) -> str:
    """In a few words, what a network mends."""
    headers = [item.adapter.header for item in adapters] or [model.header]
    mended = dict.fromkeys(name for header in headers for name in header.degradations)
    return ", ".join(mended) or headers[0].description
