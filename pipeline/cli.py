"""The `egapipe` command: assembles the stages' commands and turns their errors into one line."""

import errno
import importlib
import logging
import os
import sys
from typing import Annotated, TextIO

import typer

from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.terminal.text import say, visible

# Each module registers its commands and imports nothing heavy until one of them runs.
COMMANDS = (
    "egapipe.stages.extract.command",
    "egapipe.stages.distill.command",
    "egapipe.stages.evaluate.command",
    "egapipe.stages.compare.command",
    "egapipe.stages.sweep.command",
    "egapipe.stages.report.command",
    "egapipe.stages.export.command",
    "egapipe.stages.predict.command",
    "egapipe.stages.push.command",
    "egapipe.stages.index.command",
    "egapipe.stages.watch.command",
    "egapipe.stages.track.command",
    "egapipe.stages.submit.command",
    "egapipe.stages.bench.command",
    "egapipe.stages.doctor.command",
    "egapipe.pipeline.store.command",
    "egapipe.pipeline.store.commands.hub_command",
    "egapipe.stages.extract.importing.import_command",
    "egapipe.stages.extract.verifying.verify_command",
    "egapipe.pipeline.config.command",
)

INTERRUPTED = 130
# The machine's state and not a bug: no traceback helps.
FULL_OR_FORBIDDEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
FULL_OR_FORBIDDEN |= {errno.ENAMETOOLONG, errno.ENOTDIR}

app = typer.Typer(
    name="egapipe",
    help="Distil a large frozen vision teacher into small students, from features extracted once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"egapipe {version('egapipe')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _assemble() -> None:
    for name in COMMANDS:
        importlib.import_module(name).register(app)


class _OneLine(logging.Formatter):
    """What is logged, with whatever names are in it, as one line of visible characters."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _Stderr(logging.StreamHandler[TextIO]):
    """What stderr is at the moment: a live table has one that prints above it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def show_warnings() -> None:
    """Show what this project's modules log on stderr, once, whoever else sets up logging."""
    handler = _Stderr()
    handler.setFormatter(_OneLine())
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("egapipe")
    logger.handlers = [handler]
    logger.propagate = False


def main() -> None:
    """Run the command line. A user's mistake ends in one line and exit code 2, a failure in 1."""
    _assemble()
    show_warnings()
    try:
        app()
    except EgapipeError as error:
        say(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Typer turns an interrupt into this exit, and says nothing.
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        typer.echo("interrupted: run the same command again to continue", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) is gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL_OR_FORBIDDEN:
            raise
        where = f"{error.filename}: " if error.filename else ""
        say(
            f"error: {where}{error.strerror}; make room or choose another place, then run it again",
            err=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
