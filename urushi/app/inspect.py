"""`urushi inspect`: what a file is and what it says about itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from urushi.app.options import Json
from urushi.app.output import (
    Output,
    complain,
    examples,
    name_as_given,
    size_text,
    time_text,
)
from urushi.names import counted
from urushi.remote import is_url

__all__ = ["EPILOG", "inspect"]

EPILOG = examples(
    "urushi inspect base",
    "urushi inspect mine.safetensors --json",
    "urushi inspect photo.jpg",
    "urushi inspect s3://models/mine.safetensors",
)


def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A model, by name or file; an adapter; a router; a profile; a picture; a pack. Or "
            "the URL of one (s3://, gs://, https://).",
        ),
    ],
    json: Json = False,
) -> None:
    """Show what a model, an adapter, a router, a profile, a pack or a picture holds."""
    from urushi.inference.inspection import inspect_file
    from urushi.inference.local_copies import LocalCopies
    from urushi.inference.zoo import ZOO

    shipped = ZOO / f"{file}.safetensors"
    out = Output(json=json)
    with LocalCopies(out.say if json else complain) as copies:
        name_as_given(copies.told)
        if is_url(file) and file.lower().partition("?")[0].endswith(".safetensors"):
            path = Path(copies.model(file) or file)
        else:
            path = (
                shipped if file == Path(file).name and shipped.is_file() else copies.picture(file)
            )
        content = inspect_file(path)
    if json:
        out.document(content)
        return
    rows = {
        "model": _model,
        "adapter": _adapter,
        "router": _router,
        "profile": _profile,
        "pack": _pack,
        "checkpoint": _checkpoint,
        "picture": _picture,
    }
    out.rows(
        [
            ("file", content["path"]),
            ("kind", content["kind"]),
            ("size", size_text(content["size"])),
            *rows[content["kind"]](content),
        ]
    )


Rows = list[tuple[str, object]]
# A setting with more entries is told by their number; --json has them all.
_LONG = 4


def _model(content: dict[str, Any]) -> Rows:
    header = content["header"]
    config = ", ".join(f"{key} {value}" for key, value in header["config"].items())
    recipe = header["recipe"] or {}
    scores = [f"{name}: {_score(value)}" for name, value in header["scores"].items()]
    return [
        ("description", header["description"] or "-"),
        ("backbone", f"{header['backbone']}: {config}"),
        ("parameters", f"{content['parameters']:,} in {counted(content['tensors'], 'tensor')}"),
        ("storage", ", ".join(content["storage"])),
        ("for", ", ".join(header["degradations"]) or "-"),
        ("scores", "\n".join(scores) or "-"),
        ("recipe", recipe.get("name", "-")),
        ("licence", header["licence"] or "-"),
        ("data", header["data"] or "-"),
        ("graph", content["graph"] or "none: only the engine torch can run it"),
        ("int8", _int8(content["int8"])),
        ("written by", header["created_by"]),
        ("weights hash", header["weights_hash"]),
    ]


def _adapter(content: dict[str, Any]) -> Rows:
    header, base = content["header"], content["header"]["base"]
    recipe = header["recipe"] or {}
    scores = [f"{name}: {_score(value)}" for name, value in header["scores"].items()]
    config = {n: v for n, v in header["config"].items() if v not in (None, False, [], {})}
    settings = [f"{name} {_setting(value)}" for name, value in config.items()]
    runs = "any engine, in the weights" if content["foldable"] else "the engine torch alone"
    return [
        ("name", content["name"]),
        ("description", header["description"] or "-"),
        ("method", f"{header['method']}: {', '.join(settings) or 'no settings'}"),
        ("base", f"{base['name']}, a {base['backbone']}, weights {base['weights_hash'][:12]}"),
        ("parameters", f"{content['parameters']:,} in {counted(content['tensors'], 'tensor')}"),
        ("storage", ", ".join(content["storage"])),
        ("run by", runs),
        ("for", ", ".join(header["degradations"]) or "-"),
        ("scores", "\n".join(scores) or "-"),
        ("recipe", recipe.get("name", "-")),
        ("licence", header["licence"] or "-"),
        ("data", header["data"] or "-"),
        ("written by", header["created_by"]),
        ("tensors hash", header["tensors_hash"]),
    ]


def _abstains(header: dict[str, Any]) -> str:
    own = [f"for {name} below {100 * least:.3g} %" for name, least in header["thresholds"].items()]
    return ", ".join([f"below {100 * header['threshold']:g} %", *own])


def _again(header: dict[str, Any]) -> str:
    """When a second expert acts."""
    least = header["again"]
    return "no" if least is None else f"a second expert acts from {100 * least:.3g} %"


def _router(content: dict[str, Any]) -> Rows:
    header = content["header"]
    recipe = header["recipe"] or {}
    encoder, base = header["encoder"], header["base"]
    views = [f"{key} {value}" for key, value in header["views"].items() if value is not None]
    of_base = "none: a router alone"
    if base is not None:
        of_base = f"{base['name']}, a {base['backbone']}, weights {base['weights_hash'][:12]}"
    return [
        ("name", content["name"]),
        ("description", header["description"] or "-"),
        ("tells apart", f"{', '.join(header['classes'])} ({_MODES[header['mode']]})"),
        ("abstains", _abstains(header)),
        ("looks again", _again(header)),
        ("base", of_base),
        ("experts", content["problem"] or "\n".join(map(_member, content["members"])) or "none"),
        ("encoder", f"{encoder['kind']}, {encoder['width']} numbers"),
        ("looks at", ", ".join(views)),
        ("tries", _tried(header["evidence"])),
        ("parameters", f"{content['parameters']:,} in {counted(content['tensors'], 'tensor')}"),
        ("scores", _router_scores(header["scores"])),
        ("recipe", recipe.get("name", "-")),
        ("licence", header["licence"] or "-"),
        ("data", header["data"] or "-"),
        ("graph", content["graph"] or "none: only the engine torch can run it"),
        ("written by", header["created_by"]),
        ("tensors hash", header["tensors_hash"]),
    ]


def _tried(evidence: dict[str, Any] | None) -> str:
    if evidence is None:
        return "nothing: the encoder alone decides"
    size, scales = evidence["size"], ", ".join(evidence["scales"])
    views = f"views of {size}x{size} pixels ({scales}; windows: {evidence['windows']} at most)"
    return f"{', '.join(evidence['experts'] + evidence['own'])}, each on {views}"


_MODES = {"single": "one at a time", "multi": "several at once"}


def _member(row: dict[str, Any]) -> str:
    strength = "" if row["strength"] == 1 else f", strength {row['strength']:g}"
    said = f"{row['method']}, {row['parameters']:,} parameters, {size_text(row['size'])}"
    return f"{row['for']}: {row['file']} ({said}{strength})"


def _router_scores(scores: dict[str, Any]) -> str:
    """Accuracies and the error of its confidence; --json has the confusion matrix."""
    lines = []
    for name, found in scores.items():
        if not isinstance(found, dict) or not isinstance(found.get("accuracy"), float):
            continue
        said = f"{name}: {100 * found['accuracy']:.1f} % of "
        said += f"{counted(found.get('pictures', 0), 'picture')} right"
        if isinstance(found.get("ece"), float):
            said += f", sure by {100 * found['ece']:.1f} points too much or too little"
        lines.append(said)
    return "\n".join(lines) or "-"


def _profile(content: dict[str, Any]) -> Rows:
    base = content["base"]
    tasks = [
        f"{task['name']}: {counted(task['pictures'], 'picture')}, {task['psnr_baseline']:.2f} dB "
        "with the "
        f"base, {task['psnr_target']:.2f} dB tuned"
        for task in content["tasks"]
    ]
    return [
        ("base", f"{base['name']}, a {base['backbone']}, weights {base['weights_hash'][:12]}"),
        ("tasks", "\n".join(tasks)),
        ("integral", f"{counted(content['steps'], 'step')}, rule {content['rule']}"),
        ("scores", f"of {content['parameters']:,} parameters, relative to {content['normalise']}"),
        ("by kind", _relative(content["kinds"])),
        ("by stage", _relative(content["stages"])),
        ("written by", content["created_by"]),
    ]


def _relative(scores: dict[str, float]) -> str:
    """Scores as parts of the greatest of them."""
    greatest = max(scores.values(), default=0.0)
    shares = {name: value / greatest if greatest else 0.0 for name, value in scores.items()}
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items()) or "-"


def _setting(value: object) -> str:
    """A setting for people: of long ones, such as a rank for every layer, how many there are."""
    if isinstance(value, dict | list) and len(value) > _LONG:
        return f"({counted(len(value), 'entry', 'entries')})"
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def _int8(content: dict[str, Any] | None) -> str:
    if content is None:
        return "none: `urushi export --precision int8` makes it"
    if content["problem"]:
        return f"unusable: {content['problem']}"
    layers = counted(content["layers"], "convolution")
    said = f"{content['path']} ({size_text(content['size'])}, {layers})"
    scores = [content["calibration"].get(f"psnr_{name}") for name in ("int8", "float32")]
    if all(isinstance(score, float) for score in scores):
        said += f", {scores[0]:.2f} dB on its crops, float32 {scores[1]:.2f} dB"
    return said


def _score(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_score(item)}" for key, item in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _pack(content: dict[str, Any]) -> Rows:
    return [
        ("holds", f"{content['count']} {content['holds'].removeprefix('urushi-')}"),
        ("pixels", f"{content['pixels']:,}"),
        ("widths", f"{content['narrowest']} to {content['widest']}"),
        ("heights", f"{content['lowest']} to {content['highest']}"),
        ("first", "\n".join(content["first"])),
        ("sha256", content["sha256"]),
    ]


def _checkpoint(content: dict[str, Any]) -> Rows:
    recipe = content.get("recipe") or {}
    steps = (recipe.get("schedule") or {}).get("steps", "?")
    return [
        ("recipe", recipe.get("name", "-")),
        ("step", f"{content.get('step')} of {steps}"),
        ("trained for", time_text(float(content.get("seconds", 0)))),
    ]


def _picture(content: dict[str, Any]) -> Rows:
    megapixels = content["width"] * content["height"] / 1e6
    return [
        ("format", content["format"]),
        ("pixels", f"{content['width']} x {content['height']} ({megapixels:.1f} megapixels)"),
        ("channels", _channels(content)),
        ("bits", content["bits"]),
        ("colour profile", "embedded" if content["has_profile"] else "none"),
        ("orientation", content["orientation"]),
        ("pages", content["pages"]),
        *([("beside", " and ".join(content["beside"]))] if content["beside"] else []),
    ]


def _channels(content: dict[str, Any]) -> str:
    others = len(content["extra"]) - content["has_alpha"]
    alpha = " with alpha" if content["has_alpha"] else ""
    return content["channels"] + alpha + (f" and {others} further" if others else "")
