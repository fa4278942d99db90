"""Packages that are installed and cannot be imported, as beside a torchvision of another torch."""

import sys

import pytest

from urushi.errors import BrokenExtraError, MissingExtraError
from urushi.inference import health
from urushi.routing.encoders import ClipEncoder

OPERATOR = "operator torchvision::nms does not exist"
RAISES = f"raise RuntimeError({OPERATOR!r})\n"
LAZY = (
    "def __getattr__(name):\n    raise ModuleNotFoundError(f'Could not import module {name!r}')\n"
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package of a text into the place of one that may be installed."""
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    def add(name: str, text: str) -> None:
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").write_text(text)

    yield add
    # Those that were imported from there meanwhile.
    for name in ("torchvision", "transformers"):
        found = getattr(sys.modules.get(name), "__file__", None)
        if found and found.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("text", [RAISES, LAZY])
def test_a_clip_that_cannot_be_imported_is_not_called_missing(install, text):
    install("transformers", text)
    with pytest.raises(BrokenExtraError, match="is installed but cannot be imported") as caught:
        ClipEncoder("x", download=False)
    assert isinstance(caught.value, MissingExtraError)
    assert OPERATOR in str(caught.value) or "Could not import" in str(caught.value)
    assert "is not installed" not in str(caught.value)


def test_doctor_says_so_and_goes_on(install, monkeypatch):
    install("torchvision", RAISES)
    install("transformers", LAZY)
    monkeypatch.setattr(health, "_self_test", lambda *_: {})  # takes long, and is tested elsewhere
    report = health.examine()
    assert report["ok"]
    for package, note in zip(("torchvision", "transformers"), report["notes"], strict=True):
        assert note.startswith(f"{package} ")
        assert "cannot be imported" in note
