"""`urushi import`: a model file from a checkpoint as its authors released it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urushi.app.options import Description, Json, Licence, OverwriteFile, require
from urushi.app.output import Output, examples, size_text

if TYPE_CHECKING:
    from urushi.convert.importing import Imported

__all__ = ["EPILOG", "import_model", "options_of", "tell_imported"]

EPILOG = examples(
    "urushi import NAFNet-SIDD-width64.pth -o nafnet.safetensors",
    "urushi import IPT_pretrain.pt -o ipt-x4.safetensors --set head=x4",
    "urushi restore photo.jpg --model nafnet.safetensors",
)


def import_model(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .pth, .pt, .ckpt or .safetensors file.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The model file to write.")
    ],
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What tensors cannot tell, such as head=x4 or pooling_window=384; copy=NAME says"
            " which of several networks alike. Repeatable.",
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store in 16 bits: half the size, weights rounded.")
    ] = False,
    description: Description = "",
    licence: Licence = "",
    overwrite: OverwriteFile = False,
    json: Json = False,
) -> None:
    """Make a model file of a released checkpoint: NAFNet, Restormer, SwinIR, IPT, EDT, LoRA-IR."""
    require(("torch",), "reading checkpoints", "torch")
    from urushi.convert.importing import import_released

    options = options_of(values or [])
    found = import_released(
        file,
        output,
        options=options,
        storage="float16" if half else "float32",
        description=description,
        licence=licence,
        overwrite=overwrite,
    )
    tell_imported(Output(json=json), found)


def options_of(values: list[str]) -> dict[str, object]:
    """What `--set` says. The name of a copy is a text, also where YAML would take it otherwise."""
    from urushi.errors import BackboneError
    from urushi.settings import set_values, shown

    told: dict[str, str] = {}
    for text in values:
        key, _, value = text.partition("=")
        if key in told:
            said = f"{shown(told[key])} and {shown(value)}"
            raise BackboneError(
                f"--set gives {shown(key)} twice, {said}: give one of them", usage=True
            )
        told[key] = value
    options: dict[str, object] = {}
    set_values(options, [text for text in values if not text.startswith("copy=")], BackboneError)
    return options if "copy" not in told else {**options, "copy": told["copy"]}


def tell_imported(out: Output, found: "Imported") -> None:
    """Says what was made of a checkpoint."""
    config = ", ".join(f"{key} {value}" for key, value in found.config.items())
    out.say(f"{found.backbone}, {found.parameters:,} parameters: {config}")
    for note in found.notes:
        out.say(f"note: {note}")
    for path in found.files:
        out.say(f"written: {path} ({size_text(path.stat().st_size)})")
    if out.json:
        out.document(
            {
                "backbone": found.backbone,
                "config": found.config,
                "parameters": found.parameters,
                "files": [str(path) for path in found.files],
                "notes": list(found.notes),
            }
        )
