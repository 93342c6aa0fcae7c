"""What goes to stdout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def print_json(content: dict[str, Any]) -> None:
    """Plain values as JSON."""
    print(json.dumps(content, indent=2))


def print_table(table: Table) -> None:
    """A table as wide as the terminal."""
    from rich.console import Console

    Console().print(table)
