"""All commands, each from its file."""

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
