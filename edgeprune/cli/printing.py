"""What is printed on stdout."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from edgeprune.atomic import naming

if TYPE_CHECKING:
    from rich.table import Table


def show(content: object) -> None:
    """Print text; sentences are folded where they are wider than the terminal."""
    from edgeprune.text_table import fold_text

    _print(fold_text(str(content)))


def _print(text: str) -> None:
    """Print at once, so that a full disk is noticed while it can still be reported."""
    try:
        with naming("stdout"):
            print(text, flush=True)
    except BrokenPipeError:  # whoever reads the output has seen enough
        sys.exit(128 + signal.SIGPIPE)


def show_json(content: dict[str, Any]) -> None:
    """Print plain values as JSON."""
    _print(json.dumps(content, indent=2))


def show_tables(*tables: Table) -> None:
    """Print tables, as wide as the terminal or one line a row, with an empty line between them."""
    from edgeprune.text_table import text_of

    _print("\n\n".join(text_of(table, colour=True) for table in tables))
