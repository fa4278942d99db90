"""The papers' recipes: each is built, and takes two steps on made-up data, in a tiny network."""

import copy
import functools

import numpy as np
import pytest
import torch
from commands import run
from made_sets import make_part
from world import tiny_clip

from urushi import yaml_text
from urushi.app.output import EXIT_WELL
from urushi.backbones import BACKBONES, create_backbone
from urushi.data.data_sets import SCHEME, open_pairs, open_pictures
from urushi.data.pack import pack_pairs, pack_pictures
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.errors import RecipeError
from urushi.evaluation.catalog import BENCHMARKS
from urushi.files.model import ModelHeader, read_header, write_model
from urushi.settings import read_mapping, rows_of
from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe
from urushi.training.all_in_one.datasets import pack_all_in_one
from urushi.training.all_in_one.run import AllInOneTraining
from urushi.training.build import build_network, build_stages, check_scale
from urushi.training.compare.cell import run_cell
from urushi.training.compare.cell_plan import make_plan
from urushi.training.compare.description import load_comparison
from urushi.training.fitting import fit, learning_rate
from urushi.training.loop import train
from urushi.training.losses import make_loss
from urushi.training.recipe import PAPERS, ScheduleSettings, load_recipe

ADAPTIR = rows_of(PAPERS / "adaptir.yaml", RecipeError)
PRETRAINING = rows_of(PAPERS / "colora-pretraining.yaml", RecipeError)
TINY = {
    "ipt": {**BACKBONES["ipt"].example, "n_feats": 3},
    "edt": {**BACKBONES["edt"].example, "num_feat": 4},
    "nafnet": BACKBONES["nafnet"].example,
    "restormer": BACKBONES["restormer"].example,
}
PATCH = {"ipt": 12, "edt": 16, "nafnet": 16, "restormer": 16}
# Settings that tiny networks are too small for, or that are only a matter of size.
SMALLER = {"adaptir": {"hidden": 4, "reduction": 24}, "vpt": {"tokens": 2}}


@pytest.fixture(autouse=True, scope="module")
def read_once():
    """A table of 187 rows takes a tenth of a second to read; here each is read once."""
    with pytest.MonkeyPatch.context() as patch:
        known = functools.cache(yaml_text.read_yaml)
        patch.setattr(yaml_text, "read_yaml", lambda path: copy.deepcopy(known(path)))
        yield
        known.cache_clear()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("sets")


def made(root, names, side=72):
    """Writes the parts of data sets that are not there yet."""
    for name in names:
        mark = root / name.removeprefix(SCHEME).replace("/", "-")
        if not mark.exists():
            make_part(root, name.removeprefix(SCHEME), 2, side, side)
            mark.touch()


def as_text(config):
    return "{" + ", ".join(f"{key}: {value}" for key, value in config.items()) + "}"


def tiny_model(folder, backbone, head=None):
    path = folder / f"{backbone}-{head}.safetensors"
    if not path.exists():
        config = dict(TINY[backbone])
        if head is not None:
            config |= {"heads": [head], "head": head}
        torch.manual_seed(0)
        network = create_backbone(backbone, config)
        tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        write_model(path, tensors, ModelHeader(backbone=backbone, config=config), "float32")
    return path


def packed(root, recipe):
    """The pictures or pairs of a recipe, each pack once."""
    names = recipe.data.pairs or recipe.data.pictures
    made(root, names)
    target = root / f"{hash(tuple(names))}.safetensors"
    if recipe.data.pairs:
        pairs = [(f"{i}/{p.name}", p.input, p.target)
                 for i, n in enumerate(names) for p in open_pairs(root, n)]  # fmt: skip
        if not target.exists():
            pack_pairs(pairs, target)
        return PackedPairs(target)
    if not target.exists():
        pack_pictures([path for n in names for path in open_pictures(root, n)], target)
    return PackedPictures(target)


def two_steps(recipe, pack):
    """What `urushi.training.loop` does in each step, without all around it."""
    torch.manual_seed(recipe.seed)
    network = build_network(recipe)
    stages = build_stages(recipe, pack, torch.device("cpu"))
    check_scale(network, stages, recipe.loss)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    loss_of = make_loss(**recipe.loss.model_dump())

    def loss(step):
        batch = stages[0][1](step)
        return loss_of(network(batch.degraded), batch.clean)

    trained = [p for p in network.parameters() if p.requires_grad]
    value = fit(trained, loss, recipe.optimizer, recipe.schedule)
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    return network, moved, value


@pytest.mark.parametrize("task", sorted({row.rpartition(".")[0] for row in ADAPTIR}))
def test_adaptir_and_its_baselines(root, task):
    """All tasks of one method on one backbone."""
    backbone, method = task.split(".")
    for row in (row for row in ADAPTIR if row.rpartition(".")[0] == task):
        whole = load_recipe(f"adaptir:{row}")
        assert whole.optimizer.learning_rate == 1e-4
        assert whole.adapter["method"] == method
        head = whole.start.partition("-")[2].removesuffix(".safetensors")
        start = tiny_model(root, backbone, head)
        patch = PATCH[backbone]
        recipe = load_recipe(
            f"adaptir:{row}",
            [f"start={start}", f"data.patch={patch}", "data.batch=2", "schedule.steps=2",
             *(f"adapter.{key}={value}" for key, value in SMALLER.get(method, {}).items())],
        )  # fmt: skip
        _, moved, value = two_steps(recipe, packed(root, recipe))
        assert np.isfinite(value)
        assert moved
        assert all(n.startswith("adapters") for n in moved) or method == "full"


@pytest.mark.parametrize("row", PRETRAINING)
def test_prod_and_its_rivals(root, tmp_path, row):
    backbone, order = row.split(".")
    whole = load_recipe(f"colora-pretraining:{row}")
    with torch.device("meta"):
        network = create_backbone(whole.backbone.name, whole.backbone.config)
    count = sum(p.numel() for p in network.parameters())
    assert count == {"nafnet": 29_159_715, "restormer": 26_126_644}[backbone]
    recipe = load_recipe(
        f"colora-pretraining:{row}",
        [f"backbone.config={as_text(TINY[backbone])}", "data.patch=16", "data.batch=2",
         "schedule.steps=2",
         "schedule.patches=[]"],
    )  # fmt: skip
    if order != "masked":
        assert recipe.pretext is None
        assert two_steps(recipe, packed(root, recipe))[1]
        return
    # What is learned beside restoring is in the loop itself.
    result = train(recipe, packed(root, recipe), tmp_path / "run", device="cpu")
    assert result.finished
    assert np.isfinite(result.loss)


@pytest.mark.parametrize("name", ["paper-colora", "paper-pretraining"])
@pytest.mark.parametrize("backbone", ["nafnet", "restormer"])
def test_few_pairs_of_real_tasks(root, tmp_path, name, backbone):
    """Every task and every method once, and weights that are random or not."""
    comparison = f"{name}-{backbone}"
    whole = load_comparison(comparison)
    assert whole.pairs == [16, 32, 64, 128]
    assert len(whole.tasks) == 6
    made(root, [part for task in whole.tasks for part in (task.pairs, task.validation)])
    model = tiny_model(root, backbone)
    changes = [f"base.{index}.model={model}" for index in range(len(whole.bases))]
    if name == "paper-colora":  # 7 % of a tiny network are less than rank 1 everywhere
        changes += ["methods.2.budget=70%", "methods.3.budget=70%"]
    plan = make_plan(
        load_comparison(
            comparison,
            [*changes, "pairs=[2]", "seeds=[0]", "steps=2", "patch=16", "batch=2", "warmup=0"],
        ),
        root,
    )
    kinds = {(cell.base, cell.label) for cell in plan.cells if cell.pairs}
    tasks = [task.name for task in whole.tasks]
    chosen = [
        next(c for c in plan.cells if (c.base, c.label, c.task) == (*kind, task))
        for kind, task in zip(2 * sorted(kinds), tasks, strict=False)
    ]
    assert {cell.task for cell in chosen} == set(tasks)
    if name == "paper-pretraining":  # here all bases are the same file, but for random weights
        chosen = [next(c for c in chosen if c.random is random) for random in (False, True)]
    assert not [cell.problem for cell in plan.cells if cell.problem]
    first, *others = chosen
    assert run_cell(first, tmp_path, device="cpu", alone=False).steps == 2
    for cell in others:
        target = tmp_path / f"{cell.hash}.safetensors"
        pack_pairs(cell.examples, target)
        _, moved, _ = two_steps(cell.recipe, PackedPairs(target))
        assert moved


@pytest.mark.parametrize("setting", rows_of(PAPERS / "lora-ir.yaml", RecipeError))
def test_lora_ir_in_three_stages(root, tmp_path, setting):
    name = f"lora-ir:{setting}"
    whole = load_all_in_one_recipe(name)
    assert (whole.guided.steps, whole.experts.steps, whole.router.steps) == (200_000, 100_000, 1400)
    tiny_clip().save_pretrained(tmp_path / "clip")
    recipe = load_all_in_one_recipe(
        name,
        [f"backbone.config={as_text(TINY['nafnet'])}",
         f"router.encoder.name={tmp_path / 'clip'}", "router.sides=[32]", "router.per_class=2",
         "router.steps=2", "router.validation.per_class=2", "router.precision=float32",
         "data.patch=16", "data.batch=2", "guided.steps=2", "experts.steps=2",
         "experts.adapter.rank=1",
         "guided.settings={hidden: 4, reduction: 2}"],
    )  # fmt: skip
    parts = [*recipe.data.clean, *recipe.data.validation]
    parts += [part for plan in recipe.classes.values() for part in (*plan.pairs, *plan.validation)]
    made(root, parts)
    files = pack_all_in_one(recipe, tmp_path / "packs", root)
    result = AllInOneTraining(recipe, files, tmp_path / "run", device="cpu", download=False).train()
    assert result.finished
    assert set(result.header.experts) == set(recipe.classes)
    assert result.trained == ("router", "guidance", "experts")


def test_the_command_trains_a_row_from_pairs(root, tmp_path):
    made(root, ["lol/train"])
    start = tiny_model(root, "ipt", "denoise50")
    changes = [f"start={start}", "data.patch=12", "data.batch=2", "schedule.steps=2"]
    done = run(
        "train", "adaptir:ipt.lora.lol", "--data", root, "-o", tmp_path / "run", "--device", "cpu",
        *(word for change in changes for word in ("--set", change)),
    )  # fmt: skip
    assert done.exit_code == EXIT_WELL, done.stderr
    assert "pairs: 2 packed" in done.stdout
    assert (tmp_path / "run" / "adaptir-ipt-lora-lol.safetensors").is_file()
    assert read_header(start).backbone == "ipt"


def test_the_learning_rate_is_halved_at_milestones():
    schedule = ScheduleSettings(steps=500, milestones=[0.5, 0.8, 0.9, 0.95])
    rates = [learning_rate(schedule, 1e-4, step) for step in (0, 249, 250, 400, 450, 475, 499)]
    halves = [0, 0, 1, 2, 3, 4, 4]
    assert rates == pytest.approx([1e-4 / 2**n for n in halves])
    with pytest.raises(ValueError, match="ascending"):
        ScheduleSettings(steps=9, milestones=[0.5, 0.5])
    with pytest.raises(ValueError, match="decay has no effect"):
        ScheduleSettings(steps=9, milestones=[0.5], decay=0.5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adaptir", "a row is called as in adaptir:ipt.adaptir.x2"),
        ("adaptir:ipt.adaptir.x5", "did you mean 'ipt.adaptir.x4'"),
        ("edt.vpt.x4", "no recipe 'edt.vpt.x4'"),
        ("adaptir:edt.vpt.x4", "names no row of a table"),
        ("base-cpu:x", "is no table"),
        ("nothing:x", "no recipe 'nothing'"),
    ],
)
def test_rows_that_are_not_there(name, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(name)


def test_a_table_states_what_differs(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text(
        "{rows: {a: {x: {k: {p: 1}}, y: {}}, b: {u: {k: {q: 2}}, v: }},"
        " except: {x.*: {k: {p: 3}}, y.v: }, k: {p: 0, r: 0}}"
    )
    assert rows_of(path, RecipeError) == ["x.u", "x.v", "y.u"]
    first = {"k": {"p": 3, "q": 2, "r": 0}, "name": "table-x-u"}
    assert read_mapping(f"{path}:x.u", RecipeError) == first
    assert read_mapping(f"{path}:y.u", RecipeError)["k"] == {"p": 0, "q": 2, "r": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [("{rows: [1]}", "not mappings"), ("{rows: {a: {x: 1}}}", "states no mapping")],
)
def test_broken_tables_are_told(tmp_path, text, said):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(RecipeError, match=said):
        rows_of(tmp_path / "broken.yaml", RecipeError)


def test_recipes_and_papers_name_what_is_there():
    assert len(ADAPTIR) == (9 + 8) * 11
    assert {"sidd-rgb", "lol-rgb", "set5-lr4-jpeg30"} <= set(BENCHMARKS)
