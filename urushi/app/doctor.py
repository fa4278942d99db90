"""`urushi doctor`: what is installed, what will be used, and whether it works."""

from typing import Any

import typer

from urushi.app.options import Adapters, Json, Model
from urushi.app.output import EXIT_FAILED, Output, complain, examples, size_text
from urushi.errors import UrushiError
from urushi.names import counted

__all__ = ["EPILOG", "doctor"]

EPILOG = examples("urushi doctor", "urushi doctor --adapter mine.safetensors --json")


def doctor(model: Model = "base", adapter: Adapters = None, json: Json = False) -> None:
    """Look at the installation, and restore a small picture as a test."""
    from urushi.inference.adapted_weights import parse_adapter
    from urushi.inference.health import examine

    out = Output(json=json)
    given = [parse_adapter(text) for text in adapter or ()]
    _check_asked(model, given)
    report = examine(model, given)
    if json:
        out.document(report)
    else:
        out.rows(_rows(report))
    for note in report["notes"]:
        complain(f"note: {note}")
    for problem in report["problems"]:
        complain(f"broken: {problem}")
    if not report["ok"]:
        raise typer.Exit(EXIT_FAILED)
    out.say("all is well")


def _check_asked(model: str, adapters: list[tuple[str, float]]) -> None:
    """Refuses what cannot be tested; what is broken or missing is for the report."""
    from urushi.inference.adapted_weights import adapter_file, check_strength
    from urushi.inference.zoo import find_model

    try:
        find_model(model)
        for name, strength in adapters:
            adapter_file(name)
            check_strength(strength, name)
    except UrushiError as error:
        if error.usage:
            raise


def _rows(report: dict[str, Any]) -> list[tuple[str, object]]:
    versions = [f"{name} {found or 'missing'}" for name, found in report["dependencies"].items()]
    extras = [f"{name}: {_packages(found)}" for name, found in report["extras"].items()]
    return [
        ("urushi", report["urushi"]),
        ("python", f"{report['python']} on {report['system']}"),
        (
            "computer",
            f"{counted(report['cores'], 'core')}, {size_text(report['memory'])} of memory free",
        ),
        ("needs", ", ".join(versions)),
        ("extras", "\n".join(extras)),
        ("libvips", _libvips(report["libvips"])),
        ("devices", ", ".join(report["devices"])),
        ("engines", ", ".join(report["engines"]) or "none"),
        ("models", ", ".join(report["models"]) or "none"),
        ("adapters", ", ".join(report["experts"]) or "none"),
        ("plugins", _plugins(report["plugins"])),
        ("chooses", _all_in_one(report["all_in_one"])),
        ("test", _test(report["test"])),
    ]


def _all_in_one(found: dict[str, Any] | None) -> str:
    """What tells the kinds of damage apart, for people."""
    if found is None:
        return "no all-in-one file ships: the base restores all pictures alike"
    return f"by itself, among {', '.join(found['classes'])}" if found["classes"] else "failed"


def _plugins(found: dict[str, dict[str, str]]) -> str:
    said = [
        f"{what} {name} ({package})"
        for what, added in found.items()
        for name, package in added.items()
    ]
    return ", ".join(said) or "none"


def _packages(found: dict[str, str | None]) -> str:
    missing = [name for name, number in found.items() if number is None]
    if missing:
        return f"not installed (without {', '.join(missing)})"
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _libvips(found: dict[str, Any]) -> str:
    if not found:
        return "missing"
    formats = [f"{name} {_abilities(able)}" for name, able in found["formats"].items()]
    return f"{found['version']}: {', '.join(formats)}"


def _abilities(able: dict[str, bool | None]) -> str:
    said = [what for what, can in able.items() if can]
    said += [f"perhaps {what}" for what, can in able.items() if can is None]
    return " and ".join(said) or "not at all"


def _test(test: dict[str, Any]) -> str:
    if "psnr_restored" not in test:
        return f"{test['model']}: failed"
    uses = test["uses"]
    names = [test["model"], *(adapter["name"] for adapter in uses["adapters"])]
    lines = [
        f"{' with '.join(names)} on {uses['engine']}, {uses['device']}, {uses['precision']}",
        f"noisy picture {test['psnr_noisy']:.2f} dB, restored {test['psnr_restored']:.2f} dB",
    ]
    if "engines" in test:
        difference = f"{test['largest_difference']:.1e}"
        lines.append(f"{' and '.join(test['engines'])} differ by at most {difference}")
    return "\n".join(lines)
