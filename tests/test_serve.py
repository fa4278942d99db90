"""The HTTP interface: what comes back is what the command gives, whatever is sent."""

import base64
import io
import json
import zipfile

import numpy as np
import pytest
import pyvips
from commands import run
from pictures import picture
from PIL import Image, ImageCms
from serve_support import ended, file, serving, wait_until_ready, write
from world import write_random

from urushi.errors import UnreadableError
from urushi.files.model import read_model
from urushi.image import inspect_picture, read_picture, write_picture
from urushi.image.formats.causes import _TRIAL as HEVC
from urushi.image.formats.causes import decodes_hevc
from urushi.inference.zoo import find_model
from urushi.serve.limits import Limits


@pytest.fixture(scope="module")
def client():
    with serving(limits=Limits(pixels=100_000, at_once=20_000, body=2_000_000)) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def small(folder):
    return write(folder / "small.png")


def by_command(source, *options):
    """What `urushi restore` makes of a picture."""
    out = source.parent / f"by-command-{len(list(source.parent.iterdir()))}"
    result = run("restore", source, "-o", f"{out}/", "--threads", "1", *options)
    assert result.exit_code == 0, result.output
    (made,) = out.iterdir()
    return made.read_bytes()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ({}, []),
        ({"task": "noise", "format": "jpg", "quality": "80"}, None),
        ({"task": "none", "strength": "0.5", "chroma": "0.25"}, None),
        ({"adapters": "haze:0.5,noise"}, ["-a", "haze:0.5", "-a", "noise"]),
    ],
    ids=str,
)
def test_a_small_picture_is_answered_as_the_command_writes_it(client, small, form, options):
    if options is None:
        options = [word for key, value in form.items() for word in (f"--{key}", value)]
    answer = client.post("/v1/restore", files=file(small), data=form)
    assert answer.status_code == 200, answer.text
    assert answer.content == by_command(small, *options)
    kind = {"jpg": "image/jpeg"}.get(form.get("format"), "image/png")
    assert answer.headers["content-type"] == kind


def test_the_answer_names_a_job_that_says_what_was_done(client, small):
    answer = client.post("/v1/restore", files=file(small))
    assert "small_restored.png" in answer.headers["content-disposition"]
    told = client.get(answer.links["describedby"]["url"]).json()
    assert told["state"] == "done"
    assert told["progress"] == 1
    assert set(told["facts"]["router"]) >= {"seen", "reason", "route", "probabilities"}
    assert client.get(told["links"]["result"]).content == answer.content


def test_depth_profile_and_metadata_come_back(client, folder):
    deep = folder / "deep.tif"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_picture(folder / "eight.png", picture())
    like = Image.open(folder / "eight.png")
    like.save(folder / "with.jpg", exif=_exif("kept"), icc_profile=profile, quality=95)
    pixels = np.round(picture() * 65535).astype(np.uint16)
    pyvips.Image.new_from_array(pixels).copy(interpretation="rgb16").tiffsave(str(deep))
    answer = client.post("/v1/restore", files=file(deep))
    assert Image.open(io.BytesIO(answer.content)).tag_v2[258] == (16, 16, 16)
    answer = client.post("/v1/restore", files=file(folder / "with.jpg"))
    made = Image.open(io.BytesIO(answer.content))
    assert made.getexif()[270] == "kept"
    assert made.info["icc_profile"] == profile
    answer = client.post(
        "/v1/restore", files=file(folder / "with.jpg"), data={"strip_metadata": "true"}
    )
    assert 270 not in Image.open(io.BytesIO(answer.content)).getexif()


def _exif(words):
    exif = Image.Exif()
    exif[270] = words
    return exif.tobytes()


def test_a_large_picture_becomes_a_job(client, folder):
    large = write(folder / "large.png", height=150, width=200)
    answer = client.post("/v1/restore", files=file(large))
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["links"]["self"]
    told = ended(client, answer.json())
    assert told["state"] == "done", told
    assert client.get(told["links"]["result"]).content == by_command(large)


def test_whoever_prefers_a_job_gets_one(client, small):
    answer = client.post("/v1/restore", files=file(small), headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert ended(client, answer.json())["state"] == "done"


def test_look_tells_what_the_command_would_do(client, small):
    said = client.post("/v1/look", files=file(small)).json()
    result = run("restore", small, "--look", "-o", small.parent / "look.jpg", "--json")
    (row,) = json.loads(result.stdout)["files"]
    assert said["probabilities"] == row["router"]["probabilities"]
    assert said["reason"] == row["router"]["reason"]
    assert not client.get("/v1/jobs").json() or all(
        job["kind"] == "restore" for job in client.get("/v1/jobs").json()
    )


@pytest.mark.parametrize(
    ("name", "content", "status", "word"),
    [
        ("a.jpg", b"no picture at all, but some words that are long enough", 422, "a.jpg"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 422, "a.png"),
        ("a.jpg", b"", 422, "empty"),
        ("film.mp4", b"\0\0\0\x18ftypmp42" + b"\0" * 40, 422, "film.mp4"),
    ],
    ids=["words", "broken", "empty", "video"],
)
def test_what_is_no_picture_is_told_in_the_words_of_the_command(
    client, name, content, status, word
):
    answer = client.post("/v1/restore", files={"file": (name, content)})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail = answer.json()["detail"]
    assert word in detail
    assert "/" not in detail.replace("and/or", "")


def test_a_truncated_picture_fails_in_the_words_of_the_command(client, small, folder):
    cut = folder / "cut.png"
    cut.write_bytes(small.read_bytes()[:-2000])
    answer = client.post("/v1/restore", files=file(cut))
    result = run("restore", cut, "-o", folder / "never/")
    assert answer.status_code == 422
    assert answer.json()["detail"].replace("'", "") in result.stderr.replace("'", "").replace(
        f"{folder}/", ""
    )


def test_heic_that_cannot_be_decoded_is_told_with_the_way_out(client, folder):
    path = folder / "iphone.heic"
    path.write_bytes(base64.b64decode(HEVC))
    if decodes_hevc():
        pytest.skip("this libvips decodes HEVC")
    for route in ("restore", "look", "pictures"):
        answer = client.post(f"/v1/{route}", files=file(path))
        assert answer.status_code == 422
        assert answer.json()["detail"] == (
            "'iphone.heic' is coded in HEVC, which the installed libvips does not decode: convert "
            "it to JPEG, PNG or TIFF first."
        )


def test_heic_that_can_be_decoded_comes_back(client, folder):
    path = folder / "phone.heic"
    pyvips.Image.black(40, 24, bands=3).copy(interpretation="srgb").heifsave(
        str(path), compression="av1"
    )
    answer = client.post("/v1/restore", files=file(path), data={"format": "png"})
    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size == (40, 24)
    answer = client.post("/v1/restore", files=file(path))
    if answer.status_code != 200:  # few encode it
        assert answer.json()["detail"].startswith(
            "'phone.heic' cannot be written because the installed libvips has no HEIF encoder: "
            "choose another format, one of jpg, png,"
        )


def test_an_empty_file_is_told_in_the_words_of_the_command(client, folder):
    empty = folder / "nothing.jpg"
    empty.touch()
    detail = client.post("/v1/restore", files=file(empty)).json()["detail"]
    with pytest.raises(UnreadableError) as told:
        inspect_picture(empty)
    assert detail == str(told.value).replace(f"{folder}/", "")


def test_too_many_pixels_are_refused_by_the_header_alone(client, folder):
    huge = folder / "huge.png"
    write_picture(huge, np.zeros((400, 400, 3), np.float32))
    answer = client.post("/v1/restore", files=file(huge))
    assert answer.status_code == 413
    assert "huge.png" in answer.json()["detail"]


@pytest.mark.parametrize(
    "form",
    [
        {"strength": "1.5"},
        {"strength": "nan"},
        {"luma": "-1"},
        {"quality": "0"},
        {"format": "exe"},
        {"adapters": "../../etc/passwd"},
        {"adapters": "nothing-of-that-name"},
        {"adapters": "haze:lots"},
        {"adapters": "haze", "task": "noise"},
        {"task": "haez"},
    ],
    ids=str,
)
def test_wishes_that_cannot_be_are_refused(client, small, form):
    answer = client.post("/v1/restore", files=file(small), data=form)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "name",
    ["../../../tmp/x.png", "..\\x.png", "/etc/x.png", "x\r\nSet-Cookie: a.png", '"; a="b.png', "."],
)
def test_names_are_never_paths_nor_headers(client, small, name):
    answer = client.post("/v1/restore", files=file(small, name))
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        disposition = answer.headers["content-disposition"]
        assert ".." not in disposition
        assert "/" not in disposition
        assert "set-cookie" not in answer.headers
    root = client.service.store.root
    assert all(root in path.resolve().parents for path in root.rglob("*"))


def test_a_name_of_other_letters_comes_back(client, small):
    answer = client.post("/v1/restore", files=file(small, "Größe 漆.png"))
    assert (
        "filename*=utf-8''Gr%C3%B6%C3%9Fe%20%E6%BC%86_restored.png"
        in (answer.headers["content-disposition"])
    )


def test_sent_adapters_are_read_as_data_used_and_removed(client, small, tmp_path):
    base = read_model(find_model("base"))
    path = tmp_path / "mine.safetensors"
    write_random(path, base, method="lora")
    answer = client.post("/v1/adapters", files=file(path))
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert told["name"] == "mine"
    assert told["method"] == "lora"
    assert told["id"] in {one["id"] for one in client.get("/v1/adapters").json()}
    answer = client.post("/v1/restore", files=file(small), data={"adapters": f"{told['id']}:0.5"})
    assert answer.content == by_command(small, "-a", f"{path}:0.5")
    assert client.delete(f"/v1/adapters/{told['id']}").status_code == 204
    assert client.delete(f"/v1/adapters/{told['id']}").status_code == 404
    assert client.delete("/v1/adapters/haze").status_code == 403


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle.", b"\xff" * 64], ids=repr)
def test_what_is_no_adapter_is_refused(client, content):
    answer = client.post("/v1/adapters", files={"file": ("a.safetensors", content)})
    assert answer.status_code == 422
    assert "a.safetensors" in answer.json()["detail"]


def test_a_kept_picture_is_shown_part_by_part(client, folder):
    path = write(folder / "kept.png", height=150, width=600)
    kept = client.post("/v1/pictures", files=file(path)).json()
    assert (kept["width"], kept["height"], kept["bits"]) == (600, 150, 8)
    home = f"/v1/pictures/{kept['id']}"
    before = np.round(read_picture(path) * 255).astype(np.uint8)
    tile = client.get(f"{home}/tiles/0/1/0")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(tile.content))), before[:, 512:])
    assert Image.open(io.BytesIO(client.get(f"{home}/tiles/1/0/0").content)).size == (300, 75)
    assert client.get(f"{home}/tiles/9/0/0").status_code == 404
    assert client.get(f"{home}/tiles/0/2/0").status_code == 404
    job = ended(client, client.post(f"{home}/restore", json={}).json())
    assert job["state"] == "done", job
    there = f"/v1/jobs/{job['id']}/tiles/0/0/0"
    shown = [
        np.asarray(Image.open(io.BytesIO(client.get(there, params=one).content))).astype(int)
        for one in ({"strength": 0}, {}, {"strength": 0.5})
    ]
    assert np.array_equal(shown[0], before[:, :512])
    after = np.asarray(Image.open(io.BytesIO(client.get(job["links"]["result"]).content))).astype(
        int
    )
    assert np.array_equal(shown[1], after[:, :512])
    assert abs(shown[2] - (shown[0] + shown[1]) / 2).max() <= 1
    tried = client.get(
        f"{home}/try", params={"adapters": "noise:0.5", "width": 64, "height": 48, "left": 100}
    )
    assert Image.open(io.BytesIO(tried.content)).size == (64, 48)
    assert client.delete(home).status_code == 204
    assert client.get(home).status_code == 404
    assert client.get(job["links"]["self"]).status_code == 404


def test_several_results_come_as_one_file(client, folder, small):
    jobs = []
    for _ in range(2):
        answer = client.post("/v1/restore", files=file(small))
        jobs.append(answer.links["describedby"]["url"].rsplit("/", 1)[1])
    answer = client.get("/v1/archive", params={"job": jobs})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as pack:
        assert pack.namelist() == ["small_restored.png", "small_restored_2.png"]
        assert pack.read("small_restored.png") == by_command(small)


def test_unknown_things_are_not_here(client):
    for path in ("/v1/jobs/x", "/v1/jobs/x/result", "/v1/pictures/x", "/v1/nothing", "/v2"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    answer = client.put("/v1/adapters")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"


def test_metrics_have_their_names_and_no_label_that_a_client_chooses(client, small):
    client.post("/v1/restore", files=file(small), data={"task": "noise"})
    client.get("/v1/jobs/some-name-of-a-client")
    text = client.get("/metrics").text
    for name in (
        'urushi_requests_total{route="/v1/restore",status="200"}',
        'urushi_requests_total{route="/v1/jobs/{id}",status="404"}',
        "urushi_request_duration_seconds_bucket",
        "urushi_queue_depth 0.0",
        "urushi_queue_capacity 64.0",
        "urushi_restored_pixels_total ",
        'urushi_expert_selected_total{expert="noise"}',
        "urushi_build_info{version=",
    ):
        assert name in text, name
    assert "some-name" not in text


def test_the_interface_describes_itself(client):
    found = client.get("/v1/openapi.json").json()
    assert {"/v1/restore", "/v1/look", "/v1/adapters", "/v1/adapt", "/v1/jobs/{id}"} <= set(
        found["paths"]
    )
    shapes = found["components"]["schemas"]
    assert shapes["Problem"]["examples"]
    assert shapes["JobTold"]["examples"]
    codes = set(found["paths"]["/v1/restore"]["post"]["responses"])
    assert {"200", "202", "401", "413", "422", "429", "507"} <= codes


def test_pairs_that_do_not_match_are_refused(client, small):
    content = small.read_bytes()
    one, two = ("inputs", ("a.png", content)), ("targets", ("a.png", content))
    answer = client.post("/v1/adapt", files=[one, one, two])
    assert answer.status_code == 422
    assert "2 inputs and 1 target were sent" in answer.json()["detail"]
    answer = client.post("/v1/adapt", files=[one, two], data={"steps": "1"})
    told = ended(client, answer.json())
    assert told["state"] == "failed"
    assert "at least 2 are needed" in told["problem"]["detail"]
