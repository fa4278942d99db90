"""What is sent to the service and would be ignored is refused, in the service's own words."""

import pytest
from serve_support import unserved

from urushi.inference.zoo import zoo_experts
from urushi.serve.requests import Wish
from urushi.serve.service_wording import in_forms

PICTURE = {"file": ("a.png", b"no picture, which is not looked at before")}


@pytest.fixture(scope="module")
def client():
    with unserved() as client:
        yield client


@pytest.mark.parametrize(
    ("address", "form", "words"),
    [
        ("restore", {"strenght": "1"}, ("'strenght'", "did you mean 'strength'", "strip_metadata")),
        ("restore", {"exposure": "1", "task": "noise"}, ("'exposure'", "adapters, chroma, file")),
        ("restore", {"task": ["haze", "noise"]}, ("task is given 2 times",)),
        ("restore?task=haze", {}, ("'task' is no parameter", "it has none")),
        ("look", {"task": "haze"}, ("'task' is no field of this form", "it has file")),
        ("pictures", {"task": "haze"}, ("'task'", "it has file")),
        ("adapters", {"name": "mine"}, ("'name'", "it has file")),
    ],
    ids=str,
)
def test_what_would_be_ignored_is_refused(client, address, form, words):
    answer = client.post(f"/v1/{address}", files=PICTURE, data=form)
    assert answer.status_code == 422
    for word in words:
        assert word in answer.json()["detail"]


def test_addresses_that_are_read_have_their_parameters_alone(client):
    answer = client.get("/v1/adapters", params={"id": "haze"})
    assert (answer.status_code, "'id' is no parameter" in answer.json()["detail"]) == (422, True)
    answer = client.post("/v1/pictures/x/restore", json={"tsak": "noise"})
    assert "'tsak' is no field of this form (did you mean 'task'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("adapters", "word"),
    [
        ("film,film", "film twice"),
        ("film:0.5,haze,film:0.5", "film twice"),
        ("film:-1", "from 0 to 2"),
        ("film:3", "from 0 to 2"),
        ("film:nan", "from 0 to 2"),
        ("film:", "from 0 to 2"),
    ],
)
def test_adapters_are_mixed_once_and_within_their_strengths(client, adapters, word):
    answer = client.post("/v1/restore", files=PICTURE, data={"adapters": adapters})
    assert answer.status_code == 422
    assert word in answer.json()["detail"]


def test_lists_may_be_given_several_times(client):
    several = [("inputs", ("a.png", b"a")), ("inputs", ("b.png", b"b"))]
    answer = client.post("/v1/adapt", files=[*several, ("targets", ("a.png", b"a"))])
    assert "2 inputs and 1 target were sent" in answer.json()["detail"]


def test_the_description_says_that_forms_are_closed(client):
    shapes = client.get("/v1/openapi.json").json()["components"]["schemas"]
    forms = [shape for name, shape in shapes.items() if name.startswith("Body_") or name == "Wish"]
    assert len(forms) >= 5
    assert all(shape["additionalProperties"] is False for shape in forms)


def test_every_adapter_that_ships_says_what_it_is_for_itself(client):
    told = {one["name"]: one["description"] for one in client.get("/v1/adapters").json()}
    assert list(told) == zoo_experts()
    assert all(told.values())
    assert len(set(told.values())) == len(told)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"strength": "3"}, "strength is '3': expected a number from 0 to 1"),
        ({"strength": ""}, "strength is empty: expected a number from 0 to 1, or leave it out"),
        ({"adapters": ""}, "adapters is empty: expected adapters such as haze:0.5,noise:0.25"),
        ({"adapters": "haze,,noise"}, "adapters has '': expected NAME"),
        ({"format": "bmp"}, "format is 'bmp': expected one of png, jpg, jpeg, tif, tiff, webp"),
        ({"quality": "1.5"}, "quality is '1.5': expected a whole number from 1 to 100"),
        ({"strip_metadata": "maybe"}, "strip_metadata is 'maybe': expected true or false"),
        ({"task": "x" * 70}, "task has 70 characters: expected at most 64"),
        ({"task": ""}, "task is empty: expected auto, none or a task"),
    ],
    ids=str,
)
def test_what_a_field_cannot_be_is_told_with_what_it_can(client, form, said):
    answer = client.post("/v1/restore", files=PICTURE, data=form)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"strength": 3}', "strength is 3: expected a number from 0 to 1"),
        ('{"adapters": ""}', "adapters is empty: expected adapters such as"),
        ("[1]", "the request cannot be read: expected adapters, chroma, format, luma"),
        ("{", "the request's JSON cannot be read"),
        ("", "the body of the request is missing: expected adapters, chroma"),
    ],
)
def test_json_is_told_of_in_the_same_words(client, content, said):
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/pictures/x/restore", content=content, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(said)


def test_other_places_are_told_so_too(client):
    def detail(answer):
        assert answer.status_code == 422
        return answer.json()["detail"]

    assert detail(client.post("/v1/restore", data={"task": "haze"})).startswith("file is missing")
    assert detail(client.post("/v1/look", data={"file": "x"})) == "file is 'x': expected a file"
    assert (
        detail(client.get("/v1/jobs/x?wait=99")) == "wait is '99': expected a number from 0 to 30"
    )
    told = detail(client.get("/v1/pictures/x/tiles/99/0/0"))
    assert told == "level is '99': expected a whole number from 0 to 40"
    sides = [(name, ("a.png", b"a")) for name in ("inputs", "targets")]
    told = detail(client.post("/v1/adapt", files=sides, data={"minutes": "0"}))
    assert told == "minutes is '0': expected a number above 0 and at most 1440"


def test_a_format_is_read_as_the_command_reads_it():
    assert [Wish(format=said).format for said in ("PNG", ".Tif", "webp")] == ["png", "tif", "webp"]


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("unsure: --task haze, if so", "unsure: task haze, if so"),
        ("give it with --adapter", "give it with adapters"),
        ("leave --strip-metadata out", "leave strip_metadata out"),
        ("the first: --pages takes another.", "the first: urushi restore --pages takes another."),
        ("If it is 9, say --white 9.", "If it is 9, say urushi restore --white 9."),
        ("take smaller tiles (--tile)", "take smaller tiles (urushi serve --tile)"),
        ("use  urushi export A --merged B", "use  urushi export A --merged B"),
        ("a--task, pip install --upgrade x", "a--task, pip install --upgrade x"),
    ],
)
def test_sentences_of_the_command_name_fields(sentence, said):
    assert in_forms(sentence) == said
