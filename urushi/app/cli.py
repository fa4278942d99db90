"""The command `urushi`: its commands put together, errors told, exit codes given."""

import errno
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, complain, examples, refusal
from urushi.errors import UrushiError
from urushi.plugins import tell_plugins_with
from urushi.termination import exit_code, stop_on_sigterm
from urushi.version import __version__

if TYPE_CHECKING:
    app: typer.Typer

__all__ = ["app", "command_line", "main"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Commands(TyperGroup):
    """Tells errors meant for users in one sentence; others stay what they are, faults of ours."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
        except UrushiError as error:
            # One of several processes of a training says which it is.
            rank = os.environ.get("RANK", "0")
            complain(error if rank == "0" else f"process {rank}: {error}")
            raise typer.Exit(EXIT_USAGE if error.usage else EXIT_FAILED) from error
        except KeyboardInterrupt as error:
            complain("interrupted")
            raise typer.Exit(exit_code()) from error
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            where = f"{error.filename}: " if error.filename else ""
            complain(f"{where}no space left to write to: make room and run the same command again")
            raise typer.Exit(EXIT_FAILED) from error
        if why := refusal():
            complain(f"the output takes no more text ({why}): make room there")
            raise typer.Exit(EXIT_FAILED)
        return result


class _Command(TyperCommand):
    """Names in its help the adapters that ship, as they lie there when it is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from urushi.inference.zoo import zoo_experts

        for option in self.params:
            if isinstance(option, TyperOption) and "--adapter" in option.opts and option.help:
                ships = ", ".join(zoo_experts()) or "none"
                option.help = f"{option.help.partition(_SHIPS)[0]}{_SHIPS}{ships}."
        super().format_help(ctx, formatter)


_SHIPS = " Those that ship: "
# Home of each command, in the order that people are told of them. A home is imported where its
# command is asked for: restoring one picture waits for none of the others.
_HOMES = {
    "restore": "restore",
    "serve": "serve",
    "evaluate": "evaluate",
    "adapt": "adapt",
    "compare": "compare",
    "report": "report",
    "profile": "profile",
    "train": "train",
    "degrade": "degrade",
    "data": "data",
    "inspect": "inspect",
    "export": "export",
    "import": "import_model",
    "fetch": "fetch",
    "import-peft": "import_peft",
    "push": "push",
    "pull": "pull",
    "doctor": "doctor",
}


def command_line(names: Iterable[str] = _HOMES) -> typer.Typer:
    """The command `urushi` with these of its commands."""
    made = typer.Typer(
        name="urushi",
        cls=_Commands,
        help="Mends pictures: restores bad ones, measures how well, and trains networks that do "
        "it.",
        epilog=examples(
            "urushi restore photos/ -o mended/",
            "urushi doctor",
            "urushi restore --help",
        ),
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(urushi)
    for name in names:
        home = import_module(f"urushi.app.{_HOMES[name]}")
        if name == "data":
            made.add_typer(home.app, name=name)
        else:
            made.command(name, cls=_Command, epilog=home.EPILOG)(getattr(home, _HOMES[name]))
    return made


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()["app"] = command_line()
    return made


def _tell_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"urushi {__version__}")
        raise typer.Exit
    return wanted


def urushi(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Holds the options of `urushi` itself."""


def main() -> None:
    """Runs the command line of this process."""
    stop_on_sigterm()
    tell_plugins_with(lambda sentence: complain(f"note: {sentence}"))
    # OpenVINO imports its converter of models, which nothing here uses, where it is there to be
    # imported. In a process that is this command's alone it need not be.
    sys.modules.setdefault("openvino.tools.ovc", None)  # pyright: ignore[reportArgumentType]
    asked = sys.argv[1:2]
    made = command_line(asked) if asked and asked[0] in _HOMES else command_line()
    try:
        made()
    except OSError as error:
        # What click writes itself: versions and help texts.
        if error.errno not in _NO_ROOM:
            raise
        complain("the output takes no more text (no space left on device): make room there")
        sys.exit(EXIT_FAILED)
