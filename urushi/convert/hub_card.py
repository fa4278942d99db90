"""The card of a file of ours on the Hugging Face hub: its front matter, its text, its scores.

The hub's pages are made of it: which library loads the file, for what, under which licence, on
which base, and how well it did. Scores stand in the front matter as `model-index`, and in
`.eval_results/`, which benchmarks of the hub collect.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import yaml

from urushi.files.adapter import AdapterHeader
from urushi.files.hub_config import HubConfig
from urushi.files.model import ModelHeader
from urushi.files.router_file import RouterHeader
from urushi.names import counted

__all__ = ["Measured", "Subject", "card_text", "licence_fields", "measured", "results_text"]

Header = AdapterHeader | ModelHeader | RouterHeader

# What the hub knows licences by; any other is `other`, with a name.
_LICENCES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 h-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr
    lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 pddl
    postgresql unlicense wtfpl zlib
"""
# The field's words for what mends a degradation.
_TASKS = {
    "noise": "denoising", "blur": "deblurring", "rain": "deraining", "haze": "dehazing",
    "snow": "desnowing", "raindrop": "raindrop-removal", "low-light": "low-light-enhancement",
    "jpeg": "jpeg-artifact-removal",
}  # fmt: skip
_METRICS = {
    "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "ssimulacra2": "SSIMULACRA 2", "flip": "FLIP",
    "mae": "MAE", "accuracy": "accuracy", "ece": "expected calibration error",
}  # fmt: skip
_MOST_RECIPE = 4000


class Measured(NamedTuple):
    """A score: of one metric, on the data of one benchmark.

    Attributes:
        benchmark: what the data are called here.
        metric: such as `psnr`.
        value: what was measured.
        base: what the base alone gives; None where nobody measured it.
        notes: of which pictures or part, for people; may be empty.
    """

    benchmark: str
    metric: str
    value: float
    base: float | None
    notes: str


@dataclass(frozen=True)
class Subject:
    """What a card is of.

    Attributes:
        repository: `owner/name`.
        config: what stands in `config.json` beside the card.
        header: of the file that is meant.
        parameters: how many numbers it holds.
        licence: its licence.
        base_model: repository of its base on the hub; None where that is not known.
        datasets: names on the hub of what it learned from.
        benchmarks: by benchmark, the hub's name for its data.
    """

    repository: str
    config: HubConfig
    header: Header
    parameters: int
    licence: str
    base_model: str | None = None
    datasets: Sequence[str] = ()
    benchmarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["model", "adapter", "router"]:
        """Which of our files it is."""
        return self.config.kind


def measured(scores: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[Measured]:
    """The scores in what a header states, which may be in groups."""
    found = {
        key: float(value)
        for key, value in scores.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    for metric in _METRICS if above else ():
        if metric in found:
            limit = found.get("limit", found.get("pictures"))
            parts = [
                f"the first {limit:.0f} pictures" if "limit" in found else "",
                f"{counted(round(limit), 'picture')}"
                if limit is not None and "limit" not in found
                else "",
                " ".join(above[:-1]),
            ]
            notes = ", ".join(filter(None, parts))
            base = found.get(f"{metric}_base")
            yield Measured(above[-1], metric, found[metric], base, notes)
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from measured(value, (*above, str(key)))


def licence_fields(licence: str) -> dict[str, str]:
    """What the front matter says of a licence: the hub's name for it, or `other` and its name."""
    known = licence.strip().lower()
    known = re.sub(r"(?<=\d)-(only|or-later)$", "", known)
    if known in _LICENCES.split():
        return {"license": known}
    return {"license": "other", "license_name": _slug(licence)}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60] or "unnamed"


def results_text(subject: Subject) -> str:
    """The file of `.eval_results/`; empty where nothing was measured.

    The data of a benchmark are named as the hub does where that is known, else as here.
    """
    entries = []
    for score in measured(subject.header.scores):
        known = subject.benchmarks.get(score.benchmark)
        notes = [score.notes, "" if known else f"the benchmark {score.benchmark} of Urushi"]
        entry: dict[str, Any] = {
            "dataset": {"id": known or score.benchmark, "task_id": score.metric},
            "value": round(score.value, 4),
            "source": {
                "url": f"https://huggingface.co/{subject.repository}",
                "name": "urushi evaluate",
            },
        }
        if said := "; ".join(filter(None, notes)):
            entry["notes"] = said
        entries.append(entry)
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True) if entries else ""


def card_text(subject: Subject) -> str:
    """The card: front matter and text, as `README.md` holds them."""
    front = yaml.safe_dump(_front(subject), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{_text(subject)}"


def _front(subject: Subject) -> dict[str, Any]:
    header, scores = subject.header, list(measured(subject.header.scores))
    front: dict[str, Any] = {
        "library_name": "urushi",
        "pipeline_tag": "image-to-image",
        **licence_fields(subject.licence),
    }
    if subject.base_model is not None:
        front["base_model"] = subject.base_model
    if subject.kind == "adapter":
        front["base_model_relation"] = "adapter"
    if subject.datasets:
        front["datasets"] = list(subject.datasets)
    if scores:
        front["metrics"] = list(dict.fromkeys(score.metric for score in scores))
    front["tags"] = _tags(header)
    if scores:
        front["model-index"] = [{"name": _title(subject), "results": _results(subject, scores)}]
    return front


def _tags(header: Header) -> list[str]:
    degradations = header.classes if isinstance(header, RouterHeader) else header.degradations
    words = [_slug(word) for word in degradations if word != "clean"]
    tasks = [_TASKS[word] for word in words if word in _TASKS]
    if isinstance(header, AdapterHeader):
        own = [header.base.backbone, header.method]
    elif isinstance(header, ModelHeader):
        own = [header.backbone]
    else:
        own = ["router", *([header.base.backbone] if header.base else [])]
    return list(dict.fromkeys(["urushi", "image-restoration", *tasks, *own, *words]))


def _results(subject: Subject, scores: Sequence[Measured]) -> list[dict[str, Any]]:
    """The entries of `model-index`, one for each benchmark."""
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for score in scores:
        name = score.benchmark + (f" ({score.notes})" if score.notes else "")
        entry = entries.setdefault(
            (score.benchmark, score.notes),
            {
                "task": {"type": "image-to-image", "name": "image restoration"},
                "dataset": {
                    "type": subject.benchmarks.get(score.benchmark, score.benchmark),
                    "name": name,
                },
                "metrics": [],
            },
        )
        metric = {"type": score.metric, "value": round(score.value, 4)}
        entry["metrics"].append({**metric, "name": _METRICS[score.metric]})
    return list(entries.values())


def _title(subject: Subject) -> str:
    name = "" if isinstance(subject.header, ModelHeader) else subject.header.name
    return name or subject.repository.partition("/")[2]


def _text(subject: Subject) -> str:
    header = subject.header
    parts = [f"# {_title(subject)}", header.description.strip(), _what(subject), _use(subject)]
    scores = list(measured(header.scores))
    if scores:
        parts.append(_score_table(scores))
    data = header.data.strip() or "The file does not say what it was trained on."
    parts += [f"## Training data\n\n{data}", _recipe(header), _files(subject)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(subject: Subject) -> str:
    header, base = subject.header, subject.config.base
    rows = [("what", {"model": "a network's weights", "adapter": "an adapter of a frozen base"}.get(
        subject.kind, "an all-in-one file: sees what is wrong, and takes the expert for it"
    ))]  # fmt: skip
    if isinstance(header, AdapterHeader):
        rows.append(("method", header.method))
    if base is not None:
        place = f", of {base.repository}" if base.repository else ""
        rows.append(("base", f"`{base.name}` (weights {base.weights_hash[:12]}){place}"))
    if isinstance(header, ModelHeader):
        rows.append(("network", header.backbone))
    words = header.classes if isinstance(header, RouterHeader) else header.degradations
    if words:
        rows.append(("mends", ", ".join(word for word in words if word != "clean")))
    rows += [("parameters", f"{subject.parameters:,}"), ("licence", subject.licence)]
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {_cell(text)} |" for key, text in rows)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _use(subject: Subject) -> str:
    name, file = subject.repository, subject.config.file
    if subject.kind == "router":
        command = f"urushi restore photo.jpg --router folder/{file}"
        python = f'mend = urushi.AutoRestorer("folder/{file}")'
        pull = f"urushi pull {name} -o folder"
    else:
        way = "--adapter" if subject.kind == "adapter" else "--model"
        command = f"urushi restore photo.jpg {way} {file}"
        python = f'mend = urushi.Restorer.from_hub("{name}")'
        pull = f"urushi pull {name} -o {file}"
    return (
        "## Use\n\n"
        "```\npip install 'urushi[fast,hub]'\n"
        f"{pull}\n{command}\n```\n\n"
        f"```python\nimport urushi\n\n{python}\n```"
    )


def _score_table(scores: Sequence[Measured]) -> str:
    lines = ["## Scores", "", "| benchmark | metric | base alone | this |", "|---|---|---|---|"]
    for score in scores:
        name = score.benchmark + (f" ({score.notes})" if score.notes else "")
        base = "" if score.base is None else f"{score.base:.4g}"
        metric = _METRICS[score.metric] + (", dB" if score.metric == "psnr" else "")
        lines.append(f"| {_cell(name)} | {metric} | {base} | {score.value:.4g} |")
    return "\n".join(lines)


def _recipe(header: Header) -> str:
    if not header.recipe:
        return ""
    text = yaml.safe_dump(header.recipe, sort_keys=False, allow_unicode=True)
    if len(text) > _MOST_RECIPE or "```" in text:
        return "## Recipe\n\nThe file states it whole: `urushi inspect` shows it."
    return f"## Recipe\n\n```yaml\n{text}```"


def _files(subject: Subject) -> str:
    lines = ["## Files", "", "| file | bytes | SHA-256 |", "|---|---|---|"]
    for name, facts in subject.config.files.items():
        lines.append(f"| `{name}` | {facts.size:,} | `{facts.sha256}` |")
    made = subject.header.created_by
    return "\n".join([*lines, "", f"Made by {made}; `urushi pull` compares the hashes."])
