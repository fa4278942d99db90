"""What the command line ends with: 2 where the command is wrong by itself, 1 where work failed."""

import shlex

import pytest
from commands import run
from pictures import picture

from urushi.app.output import EXIT_FAILED, EXIT_USAGE
from urushi.image import write_picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("codes")
    write_picture(made / "a.png", picture())
    (made / "pictures").mkdir()
    write_picture(made / "pictures" / "b.png", picture())
    (made / "wrong.yaml").write_text("nonsense: 3\n")
    return made


WRONG = """
restore a.png -o a.xyz --dry-run
restore a.png -o o.png --format xyz --dry-run
restore a.png -o o.jpg --format png --dry-run
restore a.png a.png -o - --dry-run
restore a.png -o https://x/y
restore a.png -o o.png --task noize --dry-run
restore a.png -o o.png --adapter film:3
restore a.png -o o.png --adapter nosuch
restore a.png -o o.png --model nosuch
restore a.png -o o.png --tile 0
restore a.png -o o.png --tile 16 --overlap 16
restore a.png -o o.png --device tpu
restore a.png -o o.png --pages 3-2
restore a.png -o o.png --top-k 1000 --task auto
evaluate --benchmark nosuch
evaluate --clean pictures --degrade jpeg --protocol nosuch
evaluate --clean pictures --degrade jpeg --sheet a.xyz
adapt --pairs pairs -o a.xyz
adapt --clean pictures --degrade jpeg -o a.safetensors --method-set rank=x --method lora
adapt --clean pictures --degrade jpeg -o a.safetensors --budget 2
adapt --clean pictures --degrade jpeg -o a.safetensors --backbone nosuch
compare adapters-cpu -o compared --plan --set nosuch=1
report --paper nosuch
train base-cpu --set seed=x
degrade a.png --name nosuch -o worse
degrade a.png --name jpeg --set nosuch=1 -o worse
export base -o a.xyz
export base --for opencv --static 0x0
export base --for imagetoolbox -o a.onnx
import a.png -o a.xyz
fetch nosuch
push a.safetensors nosuch
pull nosuch
doctor --adapter film:3
doctor --model nosuch
data list nosuch
data check gopro --part nosuch --root pictures
"""
FAILED = """
restore nosuch.png -o o.png --model base
restore a.png -o o.png --model nosuch.safetensors
restore a.png -o o.png --adapter nosuch.safetensors
restore a.png -o o.png --router ./nosuch
restore a.png -o o.png --device cuda:99
train wrong.yaml
train wrong.yaml --set seed=x
degrade nosuch.png --name jpeg -o worse
import a.png -o a.safetensors
push nosuch.safetensors owner/name
serve --token-file nosuch
"""


@pytest.mark.parametrize(
    ("line", "code"),
    [(line, EXIT_USAGE) for line in WRONG.split("\n") if line]
    + [(line, EXIT_FAILED) for line in FAILED.split("\n") if line],
)
def test_the_exit_code_says_whether_the_command_is_wrong(folder, monkeypatch, line, code):
    monkeypatch.chdir(folder)
    ended = run(*shlex.split(line))
    assert ended.exit_code == code, ended.output
    assert "Traceback" not in ended.output
