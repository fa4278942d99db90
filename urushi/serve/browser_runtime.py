"""onnxruntime-web, which runs networks in browsers: one release of it, fetched, checked and packed.

It has ten times the size of the rest of Urushi, so it is no part of it: `npm` fetches the package
when a folder for the browser is first written, and what is taken of it stays in the cache.
"""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from urushi.errors import FileFormatError
from urushi.inference.cache_folder import cache_folder

__all__ = ["LICENCE", "VERSION", "runtime_folder"]

VERSION = "1.30.0"
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs":
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm":
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs":
        "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm":
        "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}  # fmt: skip
"""What is taken of the package's `dist`, and its SHA-256."""

LICENCE = Path(__file__).parent / "browser" / "onnxruntime-web.LICENSE"
_PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
_ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/{_PACKAGE}"
_PATIENCE = 600.0  # seconds


def runtime_folder(package: Path | None = None) -> Path:
    """Where the programs lie as the page wants them: `.mjs`, and `.wasm.gz`, a quarter of `.wasm`.

    Args:
        package: onnxruntime-web of this `VERSION`, as `npm pack` gives it; None takes what was
            taken of it before, or lets `npm` fetch it.

    Raises:
        FileFormatError: it cannot be had, or is not the release that is known.
    """
    if package is not None and not package.is_file():
        raise FileFormatError(f"{package}: there is no such file: fetch {_ADDRESS}")
    folder = cache_folder() / f"onnxruntime-web-{VERSION}"
    if package is None and _is_sound(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".urushi-", dir=folder.parent) as made:
            _unpack(package or _fetched(Path(made)), Path(made) / "ready")
            shutil.rmtree(folder, ignore_errors=True)
            (Path(made) / "ready").rename(folder)
    except OSError as error:
        if package is not None and error.filename == str(package):
            raise FileFormatError(f"{package} cannot be read ({error.strerror})") from error
        raise FileFormatError(f"{folder} cannot be written ({error.strerror or error})") from error
    return folder


def _fetched(folder: Path) -> Path:
    """The package, by npm, which knows about registries, proxies and their certificates."""
    npm = shutil.which("npm")
    way_out = f"fetch {_ADDRESS} and give it by --runtime"
    if npm is None:
        raise FileFormatError(f"npm, which fetches onnxruntime-web, is not installed: {way_out}")
    try:
        done = subprocess.run(
            [npm, "pack", "--silent", f"onnxruntime-web@{VERSION}"],
            cwd=folder, capture_output=True, text=True, check=False, timeout=_PATIENCE,
        )  # fmt: skip
        problem = " ".join(done.stderr.split())[:200] if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"no end after {_PATIENCE:.0f} s"
    package = folder / _PACKAGE
    if problem or not package.is_file():
        raise FileFormatError(
            f"npm cannot fetch onnxruntime-web {VERSION} ({problem or 'no file came'}): {way_out}"
        )
    return package


def _unpack(package: Path, folder: Path) -> None:
    """Take what is needed, if it is what it should be."""
    folder.mkdir()
    try:
        with tarfile.open(package) as pack:
            for name, expected in FILES.items():
                member = pack.extractfile(f"package/dist/{name}")
                assert member is not None
                content = member.read()
                if hashlib.sha256(content).hexdigest() != expected:
                    raise FileFormatError(
                        f"{package}: {name} is not that of onnxruntime-web {VERSION}, or is "
                        f"damaged: fetch {_ADDRESS}"
                    )
                if name.endswith(".wasm"):
                    name, content = f"{name}.gz", gzip.compress(content, 9, mtime=0)
                (folder / name).write_bytes(content)
    except (tarfile.TarError, KeyError, EOFError, AssertionError) as error:
        raise FileFormatError(
            f"{package} is not onnxruntime-web {VERSION} as npm packs it: fetch {_ADDRESS}"
        ) from error


def _is_sound(folder: Path) -> bool:
    """Whether all that is needed is there, and unharmed."""
    for name, expected in FILES.items():
        packed = name.endswith(".wasm")
        path = folder / (f"{name}.gz" if packed else name)
        try:
            content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        except (OSError, EOFError):
            return False
        if hashlib.sha256(content).hexdigest() != expected:
            return False
    return True
