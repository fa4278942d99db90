"""The command `urushi`: its commands put together, errors told, exit codes given."""

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from urushi.app import (
    adapt,
    compare,
    data,
    degrade,
    doctor,
    evaluate,
    export,
    fetch,
    import_model,
    import_peft,
    inspect,
    profile,
    restore,
    train,
)
from urushi.app.output import EXIT_FAILED, complain, examples, refusal
from urushi.app.signals import exit_code, stop_on_sigterm
from urushi.errors import UrushiError
from urushi.version import __version__

__all__ = ["app", "main"]


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
            raise typer.Exit(EXIT_FAILED) from error
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


app = typer.Typer(
    name="urushi",
    cls=_Commands,
    help="Mends pictures: restores bad ones, measures how well, and trains networks that do it.",
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
app.command("restore", epilog=restore.EPILOG)(restore.restore)
app.command("evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("adapt", epilog=adapt.EPILOG)(adapt.adapt)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
app.command("profile", epilog=profile.EPILOG)(profile.profile)
app.command("train", epilog=train.EPILOG)(train.train)
app.command("degrade", epilog=degrade.EPILOG)(degrade.degrade)
app.add_typer(data.app, name="data")
app.command("inspect", epilog=inspect.EPILOG)(inspect.inspect)
app.command("export", epilog=export.EPILOG)(export.export)
app.command("import", epilog=import_model.EPILOG)(import_model.import_model)
app.command("fetch", epilog=fetch.EPILOG)(fetch.fetch)
app.command("import-peft", epilog=import_peft.EPILOG)(import_peft.import_peft)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)


def _tell_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"urushi {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
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
    try:
        app()
    except OSError as error:
        # What click writes itself: versions and help texts.
        if error.errno not in _NO_ROOM:
            raise
        complain("the output takes no more text (no space left on device): make room there")
        sys.exit(EXIT_FAILED)
