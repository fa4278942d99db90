"""The page of the command line, from the parser: every command, option, default and example.

python docs/command_line.py     # prints it
"""

import re
from collections.abc import Iterator
from typing import Any

import typer

from urushi.app.cli import app
from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL

INTRODUCTION = f"""# Command line

Every command of `urushi`, with all options, as `urushi COMMAND --help` shows them. This page is
written from the parser when the site is built.

Exit codes: {EXIT_WELL} all is well, {EXIT_FAILED} something failed (stderr says what),
{EXIT_USAGE} wrong usage, 130 interrupted, 143 terminated. With `--json`, stdout holds one JSON
document and stderr the rest.

{EXIT_USAGE} says that the command itself is wrong, whatever the files hold: an option that there is
not, a value outside its range (`--adapter film:3`), a name that nothing has (`--task noize`), an
ending that no format has (`-o a.xyz`), options that contradict one another. {EXIT_FAILED} says that
a file or folder is missing, damaged or taken, that something is not installed, or that the work
failed; of many pictures, one or more.
"""


def command_line_page() -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION]
    for name, command in commands():
        parts.append("\n".join(_section(name, command)))
    return "\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """All commands with what they are called, such as `urushi data check`."""
    waiting: list[tuple[str, Any]] = [("urushi", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop(0)
        inner = getattr(command, "commands", {})
        if not inner:
            yield name, command
        waiting[:0] = [(f"{name} {word}", one) for word, one in inner.items()]


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## {name.removeprefix('urushi ')}\n"
    for paragraph in (command.help or "").split("\n\n"):
        yield f"{_plain(' '.join(paragraph.split()))}\n"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join(_metavar(argument) for argument in arguments)
    yield f"```\n{name} [OPTIONS]{' ' if words else ''}{words}\n```\n"
    yield from _examples(command)
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    yield "| argument or option | |"
    yield "|---|---|"
    for argument in arguments:
        yield f"| `{_metavar(argument)}` | {_cell(argument.help or '')} |"
    for option in options:
        names = ", ".join(f"`{one}`" for one in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else f" `{_metavar(option)}`"
        default = "" if option.is_flag or not _shown(option) else f" Default: `{option.default}`."
        yield f"| {names}{value} | {_cell(option.help or '')}{default} |"
    yield ""


def _examples(command: Any) -> Iterator[str]:
    lines = [line.strip() for line in (command.epilog or "").split("\n\n")]
    found = [line.replace("\\[", "[") for line in lines if line.startswith("urushi ")]
    if found:
        yield "```\n" + "\n".join(found) + "\n```\n"


def _metavar(parameter: Any) -> str:
    name = parameter.metavar or (parameter.name or "").upper()
    return f"{name}..." if parameter.nargs == -1 else name


def _shown(option: Any) -> bool:
    return isinstance(option.default, str | int | float) and option.default != ""


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")


def _plain(text: str) -> str:
    """Help texts escape brackets for the terminal, and Markdown takes some for a link."""
    text = re.sub(r"\\\[", "[", text)
    return text.replace("<", "&lt;")


if __name__ == "__main__":
    print(command_line_page())
