"""`urushi import-peft`: an adapter file from the format of Hugging Face PEFT."""

from pathlib import Path
from typing import Annotated

import typer

from urushi.app.options import Description, Json, Licence, Model, OverwriteFile, require
from urushi.app.output import Output, examples, size_text
from urushi.writing import refuse_taken

__all__ = ["EPILOG", "import_peft"]

EPILOG = examples(
    "urushi import-peft folder/ -o mine.safetensors",
    "urushi import-peft folder/ -o mine.safetensors --model other.safetensors --licence MIT",
)


def import_peft(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="With adapter_config.json and adapter_model.safetensors."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The adapter file to write.")
    ],
    model: Model = "base",
    description: Description = "",
    licence: Licence = "",
    overwrite: OverwriteFile = False,
    json: Json = False,
) -> None:
    """Make an adapter file of a LoRA that was trained with Hugging Face PEFT on the model."""
    require(("torch",), "reading PEFT's format", "torch")
    from urushi.adapters.peft import read_peft
    from urushi.files.adapter import write_adapter
    from urushi.files.model import read_model
    from urushi.inference.zoo import find_model

    refuse_taken([output], overwrite)
    base = read_model(find_model(model))
    tensors, header = read_peft(folder, base, description=description, licence=licence)
    # Nothing is known of how these numbers were trained, so none of their digits is dropped.
    write_adapter(output, tensors, header, storage="float32")
    out, size = Output(json=json), output.stat().st_size
    out.say(f"adapter: {output} ({size_text(size)}), for {base.path.name}")
    if json:
        out.document({"adapter": str(output), "size": size, "base": header.base.name})
