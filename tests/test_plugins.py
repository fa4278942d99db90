"""Methods, backbones and degradations of other packages, sound and broken ones."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from world import network_of, write_tiny

from urushi.adapters import METHODS, attach, create_adapter
from urushi.adapters.fold import can_hold, fold
from urushi.adapters.stored import header_of, load_adapter, tensors_of
from urushi.backbones import BACKBONES, create_backbone
from urushi.degradations import DEGRADATIONS, create_degradation
from urushi.errors import AdapterError, BackboneError, DegradationError
from urushi.files.adapter import read_adapter, write_adapter
from urushi.files.model import read_model
from urushi.inference import health
from urushi.plugins import PluginWarning

GUIDE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
# The file that the guide for new methods shows, as whoever follows it would copy it.
DIAGONAL = dedent(
    GUIDE.read_text("utf-8")
    .partition("## Adding a method")[2]
    .split("```")[1]
    .removeprefix("python")
)
TABLES = """
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from urushi.backbones import Backbone, RestorationNetwork, Sites
from urushi.degradations import Degradation, Parameters


class Plain(RestorationNetwork):
    size_multiple = 1

    def __init__(self, width):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x):
        return x + self.two(self.one(x))

    @property
    def sites(self):
        return Sites((), (), (), ())


BACKBONE = Backbone(Plain, lambda state: {"width": len(state["one.weight"])}, {"width": 2}, "ours",
                    "MIT", ())


@dataclass(frozen=True)
class Invert(Degradation):
    name: ClassVar[str] = "invert"
    reference: ClassVar[str] = "ours"

    def sample(self, shape, generator):
        return Parameters({})

    def apply(self, images, parameters):
        return 1 - images
"""


def install(folder, points, **modules):
    """A package as pip would leave it on a folder of `sys.path`."""
    info = folder / "lacquer-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lacquer\nVersion: 1.5\n", "utf-8")
    groups = {}
    for point, value in points.items():
        group, name = point.split(" ", 1)
        groups.setdefault(group, []).append(f"{name} = {value}")
    text = "".join(
        f"[urushi.{group}]\n" + "\n".join(lines) + "\n" for group, lines in groups.items()
    )
    (info / "entry_points.txt").write_text(text, "utf-8")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, "utf-8")
    return folder


@pytest.fixture
def with_plugins(tmp_path, monkeypatch):
    """Installs a package, whose entries the tables then have."""

    def installed(points, **modules):
        folder = install(tmp_path / "site", points, **modules)
        monkeypatch.syspath_prepend(folder)
        for name in modules:
            monkeypatch.delitem(sys.modules, name, raising=False)
        for table in (METHODS, BACKBONES, DEGRADATIONS):
            monkeypatch.setattr(table, "_found", None)
        return folder

    yield installed
    for name in ("lacquer_diagonal", "lacquer_tables", "lacquer_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def diagonal(with_plugins):
    return with_plugins({"methods diagonal": "lacquer_diagonal:METHOD"}, lacquer_diagonal=DIAGONAL)


def trained(base):
    adapter = create_adapter(network_of(base), {"method": "diagonal"})
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return adapter


def test_a_method_is_one_file_and_one_line(diagonal, tmp_path):
    """It is listed, attached, stored, read, merged and folded as those that are built in."""
    base = read_model(write_tiny(tmp_path / "base.safetensors"))
    assert list(METHODS)[-1] == "diagonal"
    assert METHODS.plugins() == {"diagonal": "lacquer 1.5"}
    network, adapter = network_of(base), trained(base)
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = network(x)
    fresh = attach(network, create_adapter(network, {"method": "diagonal", "layers": ["intro"]}))
    assert torch.equal(fresh(x), plain)
    assert fresh.report().trainable == 3
    fresh.detach()
    write_adapter(
        tmp_path / "a.safetensors", tensors_of(adapter), header_of(adapter, base), "float32"
    )
    stored = read_adapter(tmp_path / "a.safetensors")
    adapted = attach(network, load_adapter(network, stored))
    changed = adapted(x)
    assert (changed - plain).abs().max() > 1e-3
    merged = adapted.merge()
    torch.testing.assert_close(merged(x), changed)
    folded = fold(base, [(stored, 1)])
    for name, tensor in merged.state_dict().items():
        np.testing.assert_allclose(folded.tensors[name], tensor.numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(AdapterError, match="layer is not a known key"):
        create_adapter(network, {"method": "diagonal", "layer": ["intro"]})


def test_a_method_of_a_package_folds_without_torch(diagonal, tmp_path):
    base = read_model(write_tiny(tmp_path / "base.safetensors"))
    adapter = trained(base)
    write_adapter(tmp_path / "a.safetensors", tensors_of(adapter), header_of(adapter, base))
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path\n"
        "from urushi.adapters.fold import fold\n"
        "from urushi.files.adapter import read_adapter\n"
        "from urushi.files.model import read_model\n"
        "model, adapter = read_model(Path(sys.argv[1])), read_adapter(Path(sys.argv[2]))\n"
        "print(fold(model, [(adapter, 0.5)]).folded[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(base.path), str(tmp_path / "a.safetensors"), diagonal],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "a.safetensors:0.5"


def test_backbones_and_degradations_of_a_package(with_plugins):
    with_plugins(
        {
            "backbones plain": "lacquer_tables:BACKBONE",
            "degradations invert": "lacquer_tables:Invert",
        },
        lacquer_tables=TABLES,
    )
    assert list(BACKBONES)[-1] == "plain"
    assert list(DEGRADATIONS)[-1] == "invert"
    network = create_backbone("plain", {"width": 5})
    assert network(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)
    adapter = create_adapter(network, {"method": "lora", "rank": 1})
    assert set(adapter.deltas(dict(network.named_parameters()))) == {"one.weight", "two.weight"}
    with pytest.raises(BackboneError, match="'plain' cannot be built"):
        create_backbone("plain", {"breadth": 5})
    with pytest.raises(BackboneError, match=r"'plane' is unknown \(did you mean 'plain'"):
        create_backbone("plane", {})
    images = torch.rand(2, 3, 4, 4)
    found = create_degradation("invert")
    assert torch.equal(found.apply(images, found.sample(images.shape, None)), 1 - images)
    chain = create_degradation("chain", steps=[{"name": "invert"}])
    assert [step.name for step in chain.steps] == ["invert"]


def test_what_is_built_in_stays(with_plugins):
    before = METHODS["lora"]
    with_plugins(
        {
            "methods lora": "lacquer_diagonal:METHOD",
            "backbones nafnet": "lacquer_diagonal:METHOD",
            "degradations chain": "lacquer_diagonal:METHOD",
        },
        lacquer_diagonal=DIAGONAL,
    )
    with pytest.warns(PluginWarning, match=r"lacquer 1\.5 adds the method 'lora', which is built"):
        names = list(METHODS)
    assert names.count("lora") == 1
    assert METHODS["lora"] is before
    assert list(METHODS) == names, "told once"
    for table, name in ((BACKBONES, "nafnet"), (DEGRADATIONS, "chain")):
        assert f"{name!r}, which is built in" in table.problems()[0]
    assert "lacquer_diagonal" not in sys.modules


BROKEN = "import nothing_of_that_name\nMETHOD = 1\n"


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ("lacquer_broken:METHOD", "cannot be loaded .No module named 'nothing_of_that_name'."),
        ("lacquer_diagonal:MISSING", "cannot be loaded .module 'lacquer_diagonal' has no"),
        ("lacquer_diagonal:DiagonalSettings", "is a ModelMetaclass, expected a urushi.*Method"),
        ("no such thing", "cannot be loaded"),
    ],
)
def test_a_broken_one_is_named_and_stops_nothing(with_plugins, tmp_path, point, words):
    with_plugins({"methods odd": point}, lacquer_diagonal=DIAGONAL, lacquer_broken=BROKEN)
    said = rf"method 'odd' of the plugin lacquer 1\.5 is left out: .*{words}"
    with pytest.warns(PluginWarning, match=said) as warned:
        assert "odd" not in list(METHODS)
    assert len(warned) == 1
    assert not can_hold("odd", {})
    network = network_of(read_model(write_tiny(tmp_path / "base.safetensors")))
    with pytest.raises(AdapterError, match=said) as refused:
        create_adapter(network, {"method": "odd"})
    assert "\n" not in str(refused.value)
    assert create_adapter(network, {"method": "lora"}).method == "lora"


def test_names_that_are_none_and_names_given_twice(with_plugins, tmp_path, monkeypatch):
    with_plugins(
        {"degradations Big Name": "lacquer_tables:Invert", "degradations twice": "a:B"},
        lacquer_tables=TABLES,
    )
    other = tmp_path / "other" / "varnish-2.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: varnish\nVersion: 2\n", "utf-8")
    (other / "entry_points.txt").write_text("[urushi.degradations]\ntwice = c:D\n", "utf-8")
    monkeypatch.syspath_prepend(other.parent)
    bad, twice = DEGRADATIONS.problems()
    assert "'Big Name', which is no name: expected small letters" in bad
    assert "varnish 2 adds the degradation 'twice', and so does lacquer 1.5: neither" in twice
    with pytest.raises(DegradationError, match="neither is used"):
        create_degradation("twice")


def test_the_class_of_a_degradation_has_the_name_of_its_entry(with_plugins):
    with_plugins({"degradations negative": "lacquer_tables:Invert"}, lacquer_tables=TABLES)
    with pytest.raises(DegradationError, match="expected a class of that name below"):
        create_degradation("negative")


def test_the_doctor_lists_them(with_plugins):
    with_plugins(
        {"methods diagonal": "lacquer_diagonal:METHOD", "methods odd": "lacquer_broken:METHOD"},
        lacquer_diagonal=DIAGONAL,
        lacquer_broken=BROKEN,
    )
    assert "'odd' of the plugin lacquer 1.5 is left out" in METHODS.problems()[0]
    tables = health._tables()
    assert tables[0].plugins() == {"diagonal": "lacquer 1.5"}
    assert [table.what for table in tables] == ["method", "backbone", "degradation"]
    assert "'odd' of the plugin lacquer 1.5 is left out" in tables[0].problems()[0]
