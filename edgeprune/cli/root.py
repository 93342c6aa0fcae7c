"""The command line itself: its help, its version, and how it ends."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgeprune import __version__
from edgeprune.atomic import NotOverwrittenError
from edgeprune.cli.option_names import in_options
from edgeprune.cli.printing import show

# What the library raises for bad input. Anything else is a bug and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError)


class Command(TyperCommand):
    """Reports what is wrong with the input in one line on stderr, in the names of the options; exit code 2."""

    def invoke(self, ctx: Any) -> Any:  # of typer or of click, by the version
        """Run the command."""
        try:
            return super().invoke(ctx)
        except USER_ERRORS as error:
            if os.environ.get("EDGEPRUNE_DEBUG"):
                raise
            can_overwrite = any("--overwrite" in parameter.opts for parameter in ctx.command.params)
            hint = " --overwrite replaces it." if can_overwrite and isinstance(error, NotOverwrittenError) else ""
            notes = getattr(error, "__notes__", [])
            _fail(in_options(" ".join([f"{error or type(error).__name__}{hint}", *notes]), ctx))
        except Exception as error:
            if not _is_tensorflow_s(error) or os.environ.get("EDGEPRUNE_DEBUG"):
                raise
            _fail(f"TensorFlow stopped: {_reason(getattr(error, 'message', str(error)))}")

    def get_short_help_str(self, limit: int = 0) -> str:
        """The command's first sentence for the list of commands, whole: what does not fit is folded."""
        return " ".join((self.help or "").partition("\n\n")[0].split())


class _Commands(TyperGroup):
    """Reports a command line that cannot be parsed in one line on stderr, and exits with code 2."""

    def main(self, *args: Any, **options: Any) -> None:  # as typer's
        """Run the command line and exit."""
        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except Exception as error:
            if not hasattr(error, "format_message"):  # an unknown option, a missing argument
                raise
            _fail(error.format_message().replace("Value error, ", ""))  # pydantic's words before a choice that is none
        sys.exit(code or 0)


def _is_tensorflow_s(error: Exception) -> bool:
    """Whether TensorFlow stopped in the middle of a computation, as for an index that a layer does not have."""
    return "tensorflow" in sys.modules and isinstance(error, sys.modules["tensorflow"].errors.OpError)


def _reason(message: str) -> str:
    """The line of TensorFlow's message that says what is wrong; the others name nodes and where they were made."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("File ", "Detected at", "[[{{", "(", "Stack trace"))]
    return said[-1] if said else message


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


app = typer.Typer(
    cls=_Commands,
    help="Prune a Keras model, convert it to TFLite, and verify the file that was written.",
    epilog="EDGEPRUNE_DEBUG=1 in the environment shows the traceback of an error.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its frames cut the names of long options
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        show(f"edgeprune {__version__}")
    elif context.invoked_subcommand is None:
        show(context.get_help())
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
