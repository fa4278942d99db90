"""What is sent to the service and would be ignored is refused, in the service's own words."""

import pytest
from serve_support import unserved

from urushi.inference.zoo import zoo_experts

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
    assert "'tsak' is no field of this form, did you mean 'task'" in answer.json()["detail"]


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
