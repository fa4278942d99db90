"""The public surface, and what importing it costs."""

import subprocess
import sys

import pytest

import urushi

PUBLIC = {
    "Adapter",
    "AutoRestorer",
    "Restorer",
    "UrushiError",
    "__version__",
    "adapt",
    "attach",
    "create_adapter",
    "create_backbone",
    "create_degradation",
    "evaluate",
    "load_recipe",
    "read_model",
    "read_picture",
    "restore",
    "train",
    "write_model",
    "write_picture",
}


def test_public_names_are_these_and_all_load():
    assert set(urushi.__all__) == PUBLIC == set(dir(urushi))
    for name in PUBLIC:
        assert getattr(urushi, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'mend'"):
        urushi.mend  # noqa: B018


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_imports_nothing_heavy():
    code = (
        "import sys, urushi; print([m for m in ('torch', 'numpy', 'pyvips') if m in sys.modules])"
    )
    assert run(code).stdout.strip() == "[]"


NO_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'torch':
            raise ModuleNotFoundError("No module named 'torch'", name='torch')
sys.meta_path.insert(0, Absent())
"""


def test_without_torch_the_extra_is_named():
    code = "try: urushi.create_backbone\nexcept urushi.UrushiError as error: print(error)"
    done = run(NO_TORCH + "import urushi\n" + code)
    assert "pip install 'urushi[torch]'" in done.stdout


def test_the_mending_wing_does_not_need_torch():
    modules = [
        "image", "files.model", "files.adapter", "adapters.fold", "inference.restorer",
        "inference.batch", "inference.hub", "app.cli", "api", "sheet",
    ]  # fmt: skip
    code = NO_TORCH + "\n".join(f"import urushi.{module}" for module in modules) + "\nprint('ok')"
    done = run(code)
    assert done.stdout.strip() == "ok", done.stderr


def test_a_bare_install_names_the_small_extra():
    absent = NO_TORCH.replace("== 'torch'", "in ('torch', 'openvino')")
    code = """
import numpy as np, urushi
for make in (urushi.AutoRestorer, urushi.Restorer, lambda: urushi.restore(np.zeros((8, 8, 3)))):
    try:
        make()
    except urushi.UrushiError as error:
        print(error)
"""
    done = run(absent + code)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for line in lines:
        assert line.endswith("is not installed: run  pip install 'urushi[fast]'")
