"""The `edgeprune` command: parse, call the library, print. One file a command.

Figures go to stdout, as tables or with `--json` as JSON; progress and errors go to stderr, progress as bars in a
terminal and as one line a stage elsewhere. What is wrong with the
input is reported in one line, with exit code 2.
"""

from __future__ import annotations

from typing import Any

from edgeprune.cli.signals import exit_on_signals
from edgeprune.cli.streams import open_streams
from edgeprune.progress import stage_lines


def main() -> None:
    """Run the command line, as a process of its own."""
    with open_streams(), exit_on_signals(), stage_lines():
        from edgeprune.cli.commands import app  # takes a moment, in which a signal may come

        app()


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'edgeprune.cli' has no attribute {name!r}")
    from edgeprune.cli.commands import app

    return app
