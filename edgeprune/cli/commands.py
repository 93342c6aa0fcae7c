"""All commands, each from its file, with an example for its help."""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.cli import benchmark, bundle, channels, convert, demo, inspect, prune, targets, verify
from edgeprune.cli.root import Command, app

# In the order of the help text.
EXAMPLES: dict[Callable[..., None], str] = {
    demo.demo: "edgeprune demo --epochs 2 -o demo_out",
    inspect.inspect: "edgeprune inspect model.keras",
    prune.prune: "edgeprune prune model.keras --data data.npz --sparsity 0.75 -o pruned.keras",
    channels.channels: "edgeprune channels model.keras --target-macs 0.5 --round-to 8 -o smaller.keras",
    convert.convert: "edgeprune convert model.keras --quantization int8 --data data.npz -o model.tflite",
    verify.verify: "edgeprune verify model.tflite --model model.keras --data data.npz",
    benchmark.benchmark: "edgeprune benchmark model.tflite other.tflite --num-runs 20",
    bundle.bundle: "edgeprune bundle model.keras --target phone --data data.npz -o bundle",
    targets.targets: "edgeprune targets | grep ethos-u55",
}

for _command, _example in EXAMPLES.items():
    app.command(cls=Command, epilog=f"Example: {_example}")(_command)
