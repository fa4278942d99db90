"""The training loop: learning, stopping, resuming bit for bit, and sharing a batch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from commands import run_script
from networks import same
from safetensors.torch import load_file
from world import TINY_TRAINING, newest, recipe

from urushi.errors import DataError, FileFormatError, RecipeError, UrushiError
from urushi.training.batches import DegradedBatches, turn_and_mirror
from urushi.training.checkpoint import WeightAverage, newest_checkpoint
from urushi.training.fitting import learning_rate
from urushi.training.loop import train
from urushi.training.losses import LOSSES, frequency_loss, grid_loss, make_loss
from urushi.training.recipe import load_recipe

# --- batches ---


def batches(pack, **changes):
    from urushi.degradations import create_degradation

    options = {
        "pack": pack,
        "degradation": create_degradation("gaussian_noise"),
        "patch": 16,
        "batch": 8,
        "augment": True,
        "seed": 3,
        "device": torch.device("cpu"),
    }
    return DegradedBatches(**{**options, **changes})


def test_a_batch_is_a_function_of_seed_and_step(pack):
    one, two = batches(pack), batches(pack)
    two(0)
    for result, again in zip(one(5)[:2], two(5)[:2], strict=True):
        assert result.shape == (8, 3, 16, 16)
        assert torch.equal(result, again)
    assert not torch.equal(one(5)[1], one(6)[1])
    assert not torch.equal(one(5)[1], batches(pack, seed=4)(5)[1])


def test_processes_share_the_global_batch(pack):
    whole = batches(pack)(7)
    parts = [batches(pack, rank=rank, processes=2)(7) for rank in (0, 1)]
    for index in (0, 1):
        joined = torch.cat([part[index] for part in parts])
        torch.testing.assert_close(joined, whole[index], atol=1e-6, rtol=0)


def test_processes_share_the_scenes_as_well(pack):
    from urushi.degradations import create_degradation

    scene = create_degradation("gaussian_noise", sigma_255=[5, 90])
    whole = batches(pack, scene=scene)(3)
    parts = [batches(pack, scene=scene, rank=rank, processes=2)(3) for rank in range(2)]
    assert torch.equal(torch.cat([part.clean for part in parts]), whole.clean)
    assert not torch.equal(whole.clean, batches(pack)(3).clean)


def test_a_recipe_may_state_the_scene_that_is_to_come_back(pack):
    from urushi.training.build import build_stages

    grey = {"name": "develop", "saturation": [0, 0], "balance": [0, 0]}
    own = recipe(scene=grey, degradation={"name": "low_light", "exposure": [0.1, 0.1]})
    ((_, draw),) = build_stages(own, pack, torch.device("cpu"))
    clean, degraded = draw(0)[1], draw(0)[0]
    assert (clean - clean[:, :1]).abs().max() < 1e-5
    assert degraded.mean() < 0.6 * clean.mean()
    with pytest.raises(RecipeError, match="scene has no effect without degradation"):
        recipe(scene=grey, degradation=None, data={"pairs": ["pairs"]})


def test_pixels_on_the_device_give_the_same_batch(pack):
    resident = batches(pack, resident=pack.to_tensor("cpu"))
    assert torch.equal(resident(2)[1], batches(pack)(2)[1])


def test_crops_lie_in_their_pictures_and_reach_every_corner(pack):
    plain = batches(pack, augment=False, batch=9000)
    indices, tops, lefts = plain._draw_crops(torch.Generator().manual_seed(0))
    sizes = pack.sizes[indices]
    assert (tops >= 0).all()
    assert (lefts >= 0).all()
    assert (tops + 16 <= sizes[:, 0]).all()
    assert (lefts + 16 <= sizes[:, 1]).all()
    assert set(indices) == {0, 1, 2}
    narrow = indices == 1
    assert set(tops[narrow]) >= {0, 17}
    assert lefts[narrow].max() == 4


def test_pictures_too_small_for_a_patch_are_left_out_or_refused(pack):
    indices, _, _ = batches(pack, patch=48)._draw_crops(torch.Generator().manual_seed(0))
    assert set(indices) == {2}
    with pytest.raises(DataError, match="65 pixels"):
        batches(pack, patch=65)


def test_the_eight_symmetries_differ_and_keep_the_pixels():
    image = torch.arange(27.0).view(1, 3, 3, 3)
    turned = turn_and_mirror(image.expand(8, 3, 3, 3), torch.arange(8))
    assert torch.equal(turned[0], image[0])
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8
    assert all(sorted(t[0].flatten().tolist()) == list(range(9)) for t in turned)


# --- losses and schedule ---


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_least_at_equality_and_means_over_pictures(name):
    clean = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    worse = clean + 0.1 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loss = make_loss(name)
    assert loss(clean, clean) < loss(worse, clean)
    halves = (loss(worse[:2], clean[:2]) + loss(worse[2:], clean[2:])) / 2
    torch.testing.assert_close(loss(worse, clean), halves)
    assert make_loss(name, 0.5)(worse, clean) > loss(worse, clean)


def test_the_floor_bounds_what_a_nearly_right_picture_can_gain():
    clean = torch.full((1, 3, 8, 8), 0.5)
    near, nearer, far = clean + 1e-3, clean + 1e-4, clean + 0.1
    plain, floored = make_loss("psnr"), make_loss("psnr", floor=1e-4)
    assert plain(near, clean) - plain(nearer, clean) > 15
    assert floored(near, clean) - floored(nearer, clean) < 0.1
    torch.testing.assert_close(floored(far, clean), plain(far, clean), atol=0.1, rtol=0)


def test_frequency_loss_does_not_depend_on_the_patch():
    generator = torch.Generator().manual_seed(0)
    values = [
        frequency_loss(torch.randn(4, 3, n, n, generator=generator), torch.zeros(4, 3, n, n)).mean()
        for n in (16, 64)
    ]
    assert abs(values[0] / values[1] - 1) < 0.05


def test_grid_loss_sees_what_repeats_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 44, 52, generator=generator)
    pattern = torch.randn(8, 8, generator=generator) / 255
    grid = pattern.repeat(6, 7)[:44, :52]
    slope = torch.linspace(-0.1, 0.1, 52) ** 3
    expected = 255 * (pattern - pattern.mean()).square().mean().sqrt()
    torch.testing.assert_close(grid_loss(clean + grid, clean), expected.expand(2))
    # A shift of the whole, and noise, are nearly no pattern; one of half its period is one as well.
    assert (grid_loss(clean + 0.2, clean) < 0.01).all()
    assert (grid_loss(clean + slope, clean) < 0.2).all()
    noise = torch.randn(2, 3, 400, 400, generator=generator) / 255
    assert (grid_loss(noise, torch.zeros(())) < 0.03).all()
    four = pattern[:4, :4].repeat(11, 13)
    assert (grid_loss(clean + four, clean) > 0.5).all()
    # It is added to the loss in levels of 255, and harmless where nothing is wrong.
    plain, with_grid = make_loss("l2"), make_loss("l2", grid=2.0)
    worse = clean + grid
    torch.testing.assert_close(with_grid(worse, clean) - plain(worse, clean), 2 * expected)
    same = clean.clone().requires_grad_()
    with_grid(same, clean).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_damaged_pixels_count_apart_from_the_others():
    clean = torch.full((2, 3, 16, 16), 0.5)
    degraded = clean.clone()
    degraded[:, :, 3, 2:6] = 1.0
    degraded[:, 1, 8:] += 1 / 255  # too little to be seen
    plain, own = make_loss("l1"), make_loss("l1", damaged=3.0)
    elsewhere, inside = clean.clone(), clean.clone()
    elsewhere[:, :, 10] += 0.1
    inside[:, :, 3, 2:6] += 0.1
    of_others = plain(elsewhere, clean) * 256 / 252
    torch.testing.assert_close(own(elsewhere, clean, degraded), of_others)
    torch.testing.assert_close(own(inside, clean, clean), plain(inside, clean))
    # A tenth off wherever it counts, however little that is.
    torch.testing.assert_close(own(inside, clean, degraded), torch.tensor(0.3))
    # As a logarithm it draws equally at a scratch and at a stain, however little either covers.
    of = make_loss("psnr", floor=1e-9, damaged=1.0)
    slopes = []
    for columns in (2, 12):
        degraded = clean.clone()
        degraded[:, :, 3, :columns] = 1.0
        restored = (clean + 0.3 * (degraded - clean)).requires_grad_()
        of(restored, clean, degraded).backward()
        assert restored.grad is not None
        slopes.append(float(restored.grad.sum()))
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)
    # And what was right is drawn back as strongly, whatever is wrong with the rest.
    drawn = []
    for wrong in (0.01, 0.4):
        restored = clean.clone()
        restored[:, :, 3, :12] += wrong
        restored[:, :, 12] += 0.01
        restored.requires_grad_()
        of(restored, clean, degraded).backward()
        assert restored.grad is not None
        drawn.append(restored.grad[:, :, 12])
    torch.testing.assert_close(*drawn)


def test_learning_rate_warms_up_and_falls_to_the_final_one():
    plan = recipe(schedule={"steps": 100, "warmup": 10, "final_learning_rate": 1e-6})
    rates = [
        learning_rate(plan.schedule, plan.optimizer.learning_rate, step) for step in range(100)
    ]
    assert rates[:2] == pytest.approx([1e-4, 2e-4])
    assert max(rates) == rates[9] == pytest.approx(1e-3)
    assert rates[99] == pytest.approx(1e-6)
    assert rates[10:] == sorted(rates[10:], reverse=True)


# --- the loop ---


def test_training_learns_and_reports(pack, tmp_path):
    plan = recipe(
        degradation={"name": "gaussian_noise", "sigma_255": [50, 50]},
        schedule={"steps": 60},
        optimizer={"learning_rate": 4e-3},
    )
    seen = []
    result = train(
        plan,
        pack,
        tmp_path,
        device="cpu",
        validate=lambda network: {"score": float(network(torch.zeros(1, 3, 8, 8)).mean())},
        on_progress=seen.append,
    )
    assert result.finished
    assert result.step == 60
    losses = [row["loss"] for row in result.log]
    assert losses[-1] < losses[0] - 1
    assert seen[-1].step == seen[-1].steps == 60
    assert "score" in seen[-1].scores
    assert list((tmp_path / "tensorboard").glob("**/events*"))
    assert load_recipe(tmp_path / "recipe.yaml") == plan


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_resuming_continues_bit_for_bit(pack, tmp_path, name):
    whole = train(recipe(), pack, tmp_path / "whole", device="cpu")
    plan = {**TINY_TRAINING, "validation": {"every": 3}}
    command = run_script(STOPPED, plan, pack, tmp_path / "stopped", name)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "3", str(getattr(signal, name).value)]
    torch.rand(5)
    resumed = train(recipe(), pack, tmp_path / "stopped", resume=True, device="cpu")
    assert resumed.finished
    assert same(resumed.weights, whole.weights)
    first = newest(tmp_path / "whole")
    second = newest(tmp_path / "stopped")
    assert same(first.tensors, second.tensors)


STOPPED = """
import os, signal, sys
from pathlib import Path
from urushi.data.pack import PackedPictures
from urushi.training.loop import train
from urushi.training.recipe import load_recipe
recipe = load_recipe(sys.argv[1])
def on_progress(progress):
    if progress.step == 3:
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))
run = Path(sys.argv[3])
pack = PackedPictures(sys.argv[2])
result = train(recipe, pack, run, device="cpu", on_progress=on_progress)
print(result.finished, result.step, result.stopped_by)
"""


KILLED = """
import os, signal, sys
from pathlib import Path
from urushi.data.pack import PackedPictures
from urushi.training import loop
from urushi.training.loop import train
from urushi.training.recipe import load_recipe
write = loop.write_checkpoint
def write_and_die(folder, checkpoint):
    write(folder, checkpoint)
    if checkpoint.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
loop.write_checkpoint = write_and_die
recipe = load_recipe(sys.argv[1])
train(recipe, PackedPictures(sys.argv[2]), Path(sys.argv[3]), device="cpu", resume=True)
"""


def test_a_killed_training_resumes_to_the_same_weights(pack, tmp_path):
    plan = {
        **TINY_TRAINING,
        "schedule": {"steps": 40},
        "checkpoint_minutes": 1e-6,
        "data": {**TINY_TRAINING["data"], "batch": 2},
    }
    run, path = tmp_path / "run", tmp_path / "run.yaml"
    done = subprocess.run(run_script(KILLED, plan, pack, run), check=False)
    assert done.returncode == -signal.SIGKILL
    assert newest(run).step == 7
    resumed = train(load_recipe(path), pack, run, resume=True, device="cpu")
    whole = train(load_recipe(path), pack, tmp_path / "whole", device="cpu")
    assert same(resumed.weights, whole.weights)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(pack, tmp_path):
    train(recipe(checkpoint_minutes=1e-6), pack, tmp_path, device="cpu")
    older, last = sorted((tmp_path / "checkpoints").glob("step-*"))
    last.write_bytes(last.read_bytes()[:1000])
    assert newest(tmp_path).step == 5
    older.write_bytes(b"")
    with pytest.raises(FileFormatError, match="damaged"):
        newest_checkpoint(tmp_path / "checkpoints")


def test_resuming_refuses_what_is_not_the_same_training(pack, tmp_path):
    train(recipe(), pack, tmp_path, device="cpu")
    with pytest.raises(RecipeError, match="--resume"):
        train(recipe(), pack, tmp_path, device="cpu")
    with pytest.raises(RecipeError, match="seed"):
        train(recipe(seed=1), pack, tmp_path, resume=True, device="cpu")
    longer = recipe(schedule={"steps": 8, "warmup": 2})
    assert train(longer, pack, tmp_path, resume=True, device="cpu").step == 8


def test_a_loss_that_is_not_finite_stops_the_training_and_is_not_kept(pack, tmp_path):
    plan = recipe(
        optimizer={"learning_rate": 1e30, "clip": None}, schedule={"steps": 50}, loss={"name": "l2"}
    )
    with pytest.raises(UrushiError, match="smaller optimizer"):
        train(plan, pack, tmp_path, device="cpu")
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_bf16_trains(pack, tmp_path):
    result = train(recipe(precision="bf16", ema=0), pack, tmp_path, device="cpu")
    assert all(torch.isfinite(t).all() for t in result.weights.values())
    checkpoint = newest(tmp_path)
    assert same(checkpoint.group("weights"), result.weights)
    assert not checkpoint.group("ema")


TWO = """
import json, sys
from pathlib import Path
from urushi.data.pack import PackedPictures
from urushi.training.loop import train
from urushi.training.recipe import load_recipe
recipe = load_recipe(sys.argv[1])
result = train(recipe, PackedPictures(sys.argv[2]), Path(sys.argv[3]), device="cpu")
import os
if os.environ["RANK"] == "0":
    Path(sys.argv[3], "losses.json").write_text(json.dumps([row["loss"] for row in result.log]))
"""


PRETEXT = {"until": 3, "mask": 0.4, "cell": 4, "classify": 1.0}


@pytest.mark.parametrize("pretext", [None, PRETEXT], ids=["plain", "pretext"])
def test_two_processes_equal_one_with_twice_the_batch(pack, tmp_path, pretext):
    plan = {
        **TINY_TRAINING,
        "validation": {"every": 1},
        "schedule": {"steps": 4},
        "pretext": pretext,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(plan))
    script = tmp_path / "two.py"
    script.write_text(TWO)
    run = tmp_path / "two"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--master-port", str(20000 + os.getpid() % 20000)]
    done = subprocess.run(
        [*launch, str(script), str(path), str(pack.path), str(run)],
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(Path.cwd())},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one = train(load_recipe(path), pack, tmp_path / "one", device="cpu")
    losses = json.loads((run / "losses.json").read_text())
    assert losses == pytest.approx([row["loss"] for row in one.log], abs=2e-4)
    state = load_file(sorted((run / "checkpoints").glob("step-*"))[-1])
    for name, tensor in one.weights.items():
        torch.testing.assert_close(state[f"ema.{name}"], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_calculated_in_float32(name):
    generator = torch.Generator().manual_seed(0)
    restored, clean = (torch.rand(2, 3, 24, 24, generator=generator).bfloat16() for _ in range(2))
    loss = make_loss(name, frequency=0.5)
    found = loss(restored, clean)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(restored.float(), clean.float()))


def test_the_average_follows_fast_at_first_and_slowly_later():
    network = torch.nn.Linear(1, 1)
    for step, decay in ((1, 2 / 11), (20, 21 / 30), (100_000, 0.99)):
        torch.nn.init.zeros_(network.weight)
        average = WeightAverage(network, 0.99)
        torch.nn.init.ones_(network.weight)
        average.update(network, step)
        assert average.weights["weight"].item() == pytest.approx(1 - decay, rel=1e-5)


@pytest.mark.parametrize("clip", [1e-3, None])
def test_gradients_are_clipped_where_the_recipe_says_so(pack, tmp_path, monkeypatch, clip):
    plain, norms = Accelerator.clip_grad_norm_, []

    def watched(self, parameters, most):
        parameters = list(parameters)
        found = plain(self, parameters, most)
        grads = [p.grad for p in parameters if p.grad is not None]
        norms.append((most, float(torch.nn.utils.get_total_norm(grads))))
        return found

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", watched)
    changes = {"optimizer": {"clip": clip}, "schedule": {"steps": 2, "warmup": 0}}
    train(recipe(**changes), pack, tmp_path, device="cpu")
    assert len(norms) == (0 if clip is None else 2)
    assert all(most == clip and norm <= 1.001 * clip for most, norm in norms)
