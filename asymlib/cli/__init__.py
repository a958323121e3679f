"""The command `asymlib`: what people do with pictures and models, without a line of Python.

Exit codes: 0, all was done; 1, something was not, and one sentence says what; 2, the call itself was not understood.
"""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from asymlib.cli import edits, models
from asymlib.cli.jobs import first_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Put edits of photographs back, calibrated, without touching another pixel.",
)
for command in (edits.finish, edits.inpaint, edits.paint, models.train, models.convert, models.info):
    app.command()(command)
for command in import_module("asymlib.study.commands").COMMANDS:  # by name: the library depends on no study
    app.command()(command)


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    if debug:
        logging.basicConfig()
    logging.getLogger("asymlib.cli").setLevel(logging.DEBUG if debug else logging.NOTSET)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. What a person can mend is one sentence."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("stopped; what was written is whole", file=sys.stderr)
        return 1
    except Exception as error:
        if hasattr(error, "exit_code"):  # the call was not understood
            error.show()
            return error.exit_code
        if "--debug" in arguments:
            raise
        expected = (ValueError, OSError, ImportError)
        kind = "" if isinstance(error, expected) else f"{type(error).__name__}: "
        hint = "" if isinstance(error, expected) else " (a mistake of ours; --debug shows where)"
        print(f"error: {kind}{first_line(error)}{hint}", file=sys.stderr)
        return 1


def run() -> None:
    """What the command calls."""
    sys.exit(main())
