"""`urushi export`: graphs, files for other programs, a page for browsers, forms of adapters."""

import re
from pathlib import Path
from typing import Annotated

import typer

from urushi.app.options import Adapters, Json, Model, require
from urushi.app.output import Output, complain, examples, size_text
from urushi.names import counted
from urushi.writing import refuse_taken

__all__ = ["EPILOG", "export"]

EPILOG = examples(
    "urushi export mine.safetensors",
    "urushi export mine.safetensors -o mine-rain.onnx --adapter rain.safetensors",
    "urushi export base --for browser --adapter noise -o site/",
    "urushi export base --for darktable --adapter noise",
    "urushi export mine.safetensors --static 720x1280 -o mine-720.onnx",
    "urushi export mine.safetensors --precision int8 --clean photos/",
    "urushi export adapter.safetensors --merged whole.safetensors",
    "urushi export adapter.safetensors --peft folder/",
)
_CHOICES = ("float32", "int8")


File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A model, NAME.onnx goes beside it; or, with --merged or --peft, an adapter.",
    ),
]
Target = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.onnx|FILE|FOLDER",
        help="Write one ONNX file for other programs, with the weights inside and for pictures of "
        "any size; or the file of --for HOST, or the folder of --for browser.",
    ),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="HOST",
        help="Write what another program loads: spandrel (ComfyUI and others), opencv, darktable, "
        "chainner, imagetoolbox or vs-mlrt. Or browser: with -o FOLDER, a page that mends pictures "
        "in the browser, for any static web server; each --adapter is a choice on it.",
    ),
]
Static = Annotated[
    str | None,
    typer.Option(
        "--static",
        metavar="HEIGHTxWIDTH",
        help="Write an ONNX file for pictures of one size, for CoreML, MIGraphX, TensorRT, ncnn; "
        "also with --for.",
    ),
]
Runtime = Annotated[
    Path | None,
    typer.Option(
        "--runtime",
        metavar="PACKAGE.tgz",
        help="With --for browser: onnxruntime-web as `npm pack` gives it; else npm fetches it.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="PRECISION",
        help="float32 writes the graph, which serves bf16 as well; int8 writes NAME.int8, what "
        "8-bit arithmetic needs besides.",
    ),
]
Clean = Annotated[
    Path | None,
    typer.Option(
        "--clean", metavar="FOLDER", help="Good pictures, from which int8 takes its ranges."
    ),
]
Crops = Annotated[
    int | None,
    typer.Option("--crops", min=2, metavar="N", help="Crops of them to look at; 64 otherwise."),
]
Merged = Annotated[
    Path | None,
    typer.Option(
        "--merged", metavar="OUT", help="Write a model file with the adapter in its weights."
    ),
]
Peft = Annotated[
    Path | None,
    typer.Option(
        "--peft", metavar="FOLDER", help="Write the adapter in the format of Hugging Face PEFT."
    ),
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there of that name.")]


def export(
    file: File,
    output: Target = None,
    adapter: Adapters = None,
    precision: Precision = "float32",
    clean: Clean = None,
    crops: Crops = None,
    merged: Merged = None,
    model: Model = "base",
    peft: Peft = None,
    purpose: For = None,
    static: Static = None,
    runtime: Runtime = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Export a model: the graph that runs fast without torch, or a file for other programs.

    Or a page that mends in the browser, or an adapter in another form.
    """
    if precision not in _CHOICES:
        raise typer.BadParameter(f"--precision {precision!r} is not one of {', '.join(_CHOICES)}.")
    if (precision == "int8") != (clean is not None):
        raise typer.BadParameter("--precision int8 and --clean FOLDER need each other.")
    if crops is not None and clean is None:
        raise typer.BadParameter("--crops is for --precision int8.")
    if merged is not None and peft is not None:
        raise typer.BadParameter("give --merged or --peft, not both.")
    if (merged or peft) and clean is not None:
        raise typer.BadParameter("--merged and --peft are for adapters, int8 is for models.")
    if merged is None and model != "base":
        raise typer.BadParameter("--model is the base for --merged.")
    if (output or purpose or static) and (merged or peft or clean):
        raise typer.BadParameter(
            "-o, --for and --static stand alone: leave out --precision int8, --merged, --peft."
        )
    if purpose == "browser" and (output is None or static is not None):
        raise typer.BadParameter("--for browser needs -o FOLDER, and takes no --static.")
    if runtime is not None and purpose != "browser":
        raise typer.BadParameter("--runtime is for --for browser.")
    if adapter and not (output or purpose or static):
        raise typer.BadParameter("--adapter is for -o or --for; to merge one, give --merged OUT.")
    out = Output(json=json)
    if (purpose is not None and purpose != "browser") or static is not None:
        _export_for_host(out, file, purpose, static, output, adapter or [], overwrite)
    elif output is not None and purpose is not None:
        _export_browser(out, file, output, adapter or [], runtime, overwrite)
    elif output is not None:
        refuse_taken([output], overwrite)
        _export_standalone(out, file, output, adapter or [])
    elif merged is not None:
        refuse_taken([merged, merged.with_suffix(".onnx")], overwrite)
        _export_merged(out, file, model, merged)
    elif peft is not None:
        _export_peft(out, file, peft, overwrite)
    elif clean is None:
        _export_graph(out, file, overwrite)
    else:
        _export_int8(out, file, clean, crops, overwrite)


def _export_standalone(out: Output, model: str, target: Path, adapters: list[str]) -> None:
    from urushi.convert.standalone import export_standalone
    from urushi.files.model import read_model
    from urushi.inference.adapted_weights import parse_adapter
    from urushi.inference.zoo import find_model

    applied = [parse_adapter(text) for text in adapters]
    made = export_standalone(read_model(find_model(model)), target, applied)
    size = target.stat().st_size
    out.say(f"ONNX: {target} ({size_text(size)})")
    out.say(
        f"gives what torch gives at three odd sizes, run by {' and by '.join(made.checked_with)}"
    )
    for note in made.notes:
        complain(f"note: {note}")
    if out.json:
        out.document({**made._asdict(), "onnx": str(target), "path": model, "size": size})


def _export_for_host(
    out: Output,
    model: str,
    purpose: str | None,
    static: str | None,
    target: Path | None,
    adapters: list[str],
    overwrite: bool,
) -> None:
    size = None if static is None else _static_size(static)
    from urushi.convert.hosts import STATIC, export_for_host, find_host
    from urushi.files.model import read_model
    from urushi.inference.adapted_weights import parse_adapter
    from urushi.inference.zoo import find_model

    host = STATIC if purpose is None else find_host(purpose)
    refuse_taken([target], overwrite)
    made = export_for_host(
        read_model(find_model(model)),
        host,
        target,
        [parse_adapter(text) for text in adapters],
        static=size,
        overwrite=overwrite,
    )
    bytes_written = made.path.stat().st_size
    out.say(f"{host.programs}: {made.path} ({size_text(bytes_written)})")
    if made.checked_with:
        out.say(f"gives what torch gives, run by {' and by '.join(made.checked_with)}")
    out.say(f"to use it: {host.where}")
    for note in made.notes:
        complain(f"note: {note}")
    if out.json:
        out.document({**made._asdict(), "path": str(made.path), "size": bytes_written})


def _static_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text.strip())
    if found is None:
        raise typer.BadParameter(
            f"--static {text!r} is no size: expected HEIGHTxWIDTH in pixels, such as 720x1280."
        )
    return int(found[1]), int(found[2])


def _export_browser(
    out: Output,
    model: str,
    target: Path,
    adapters: list[str],
    runtime: Path | None,
    overwrite: bool,
) -> None:
    from urushi.convert.graph_checks import require_exporting
    from urushi.files.model import read_model
    from urushi.inference.adapted_weights import parse_adapter
    from urushi.inference.zoo import find_model

    require_exporting()
    from urushi.serve.browser_folder import write_browser_folder

    made = write_browser_folder(
        read_model(find_model(model)),
        target,
        [parse_adapter(text) for text in adapters],
        runtime=runtime,
        overwrite=overwrite,
    )
    out.say(f"page: {target} ({size_text(made.size)}, with {' and '.join(made.networks)})")
    out.say(f"to look at it: python -m http.server --directory {target}")
    for note in made.notes:
        complain(f"note: {note}")
    if out.json:
        out.document({**made._asdict(), "path": str(target)})


def _export_merged(out: Output, adapter: str, model: str, target: Path) -> None:
    from urushi.files.model import read_model
    from urushi.inference.adapted_weights import parse_adapter, write_merged
    from urushi.inference.zoo import find_model

    write_merged(read_model(find_model(model)), [parse_adapter(adapter)], target)
    size = target.stat().st_size
    out.say(f"model: {target} ({size_text(size)})")
    if out.json:
        out.document({"model": str(target), "size": size})


def _export_peft(out: Output, adapter: str, folder: Path, overwrite: bool) -> None:
    require(("torch",), "writing PEFT's format", "torch")
    from urushi.adapters.peft import CONFIG_NAME, TENSORS_NAME, write_peft
    from urushi.files.adapter import read_adapter
    from urushi.inference.adapted_weights import adapter_file

    refuse_taken([folder / TENSORS_NAME, folder / CONFIG_NAME], overwrite)
    write_peft(read_adapter(adapter_file(adapter)), folder)
    out.say(f"PEFT: {folder}")
    if out.json:
        out.document({"peft": str(folder)})


def _export_graph(out: Output, model: str, overwrite: bool) -> None:
    from urushi.convert.graphs import export_graph
    from urushi.errors import FileFormatError
    from urushi.files.model import graph_path
    from urushi.inference.inspection import is_adapter
    from urushi.inference.zoo import find_model

    path = find_model(model)
    if is_adapter(path):
        raise FileFormatError(
            f"{path}: an adapter has no graph of its own; it runs in its base's: choose "
            "--merged OUT or --peft FOLDER to export it"
        )
    refuse_taken([graph_path(path)], overwrite)
    graph = export_graph(path)
    out.say(f"graph: {graph} ({size_text(graph.stat().st_size)})")
    if out.json:
        out.document({"graph": str(graph), "size": graph.stat().st_size})


def _export_int8(out: Output, model: str, clean: Path, crops: int | None, overwrite: bool) -> None:
    from urushi.convert.quantize import export_int8
    from urushi.files.int8_file import int8_path
    from urushi.inference.zoo import find_model

    path = find_model(model)
    refuse_taken([int8_path(path)], overwrite)
    out.say("measuring the ranges of all layers ...")
    made = export_int8(path, clean) if crops is None else export_int8(path, clean, crops=crops)
    size = made.path.stat().st_size
    out.say(f"int8: {made.path} ({size_text(size)}, {counted(made.layers, 'convolution')})")
    out.say(
        f"the degraded crops come back at {made.psnr_int8:.2f} dB, in float32 at "
        f"{made.psnr_float32:.2f} dB; none loses more than {max(made.worst, 0):.2f} dB"
    )
    out.say("where it differs more, restoring notices, and goes on in float32 with a note")
    if out.json:
        out.document({**made._asdict(), "int8": str(made.path), "size": size, "path": str(path)})
