"""The `edgeprune` command: parse, call the library, print. One file a command.

Figures go to stdout, as tables or with `--json` as JSON; progress and errors go to stderr. What is wrong with the
input is reported in one line, with exit code 2.
"""

from __future__ import annotations

from edgeprune.cli import benchmark, bundle, channels, convert, demo, inspect, prune, targets, verify
from edgeprune.cli.root import app

# In the order of the help text.
for _command in (
    demo.demo,
    inspect.inspect,
    prune.prune,
    channels.channels,
    convert.convert,
    verify.verify,
    benchmark.benchmark,
    bundle.bundle,
    targets.targets,
):
    app.command()(_command)


def main() -> None:
    """Run the command line."""
    app()
