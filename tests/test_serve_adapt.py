"""Learning from pairs by the service: scores, a sheet, and an adapter that is there at once."""

import io

import numpy as np
import pytest
from commands import run
from pictures import picture
from PIL import Image
from serve_support import ended, file, serving, write
from world import write_tiny_model

from urushi.files.adapter import read_adapter
from urushi.image import write_picture

# A dark copy: any adapter learns to brighten it in a few steps.
DARK = 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def client(model):
    with serving(model=str(model)) as client:
        yield client


@pytest.fixture
def pairs(tmp_path):
    sent = []
    for index in range(5):
        pixels = picture(shift=float(index))
        for side, factor in (("inputs", DARK), ("targets", 1.0)):
            path = tmp_path / f"{side}{index}.png"
            write_picture(path, pixels * np.float32(factor))
            sent.append((side, (path.name, path.read_bytes())))
    return sent


def test_an_adapter_is_learnt_and_used(client, model, pairs, tmp_path):
    answer = client.post("/v1/adapt", files=pairs, data={"name": "mine/../x", "steps": "50"})
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json())
    assert job["state"] == "done", job
    facts = job["facts"]
    assert facts["gain"] == pytest.approx(facts["psnr"] - facts["psnr_base"])
    assert facts["gain"] > 1
    sheet = client.get(job["links"]["sheet"])
    assert Image.open(io.BytesIO(sheet.content)).width > 4 * 300
    path = tmp_path / "learnt.safetensors"
    path.write_bytes(client.get(job["links"]["result"]).content)
    header = read_adapter(path).header
    assert header.method == "colora"
    assert header.scores["validation"]["psnr"] == pytest.approx(facts["psnr"])
    # It is among those that can be asked for, and does what the file does.
    (own,) = [one for one in client.get("/v1/adapters").json() if not one["ships"]]
    assert own["id"] == facts["adapter"]
    dark = write(tmp_path / "dark.png", shift=9.0)
    answer = client.post("/v1/restore", files=file(dark), data={"adapters": own["id"]})
    made = tmp_path / "made.png"
    options = ("--model", model, "-a", path, "--threads", "1")
    assert run("restore", dark, "-o", made, *options).exit_code == 0
    assert answer.content == made.read_bytes()


def test_learning_can_be_cancelled(client, pairs):
    job = client.post("/v1/adapt", files=pairs, data={"minutes": "20"}).json()
    for _ in range(1000):
        told = client.get(job["links"]["self"], params={"wait": 0.1}).json()
        if told["facts"].get("step", 0) > 0:
            break
    assert told["state"] == "running"
    client.delete(job["links"]["self"])
    told = ended(client, job)
    assert told["state"] == "cancelled"
    assert not (client.service.store.root / job["id"]).exists()


def test_pairs_of_different_sizes_are_told_in_the_words_of_the_command(client, pairs, tmp_path):
    other = write(tmp_path / "other.png", height=80, width=80)
    sent = [*pairs[:-1], ("targets", ("other.png", other.read_bytes()))]
    job = ended(client, client.post("/v1/adapt", files=sent, data={"steps": "1"}).json())
    assert job["state"] == "failed"
    assert job["problem"]["status"] == 422
    assert str(client.service.store.root) not in job["problem"]["detail"]
