"""All commands, each from its file, with an example for its help."""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.cli.apply import apply_command
from edgeprune.cli.benchmark import benchmark_command
from edgeprune.cli.bundle import bundle_command
from edgeprune.cli.channels import channels_command
from edgeprune.cli.compress import compress_command
from edgeprune.cli.convert import convert_command
from edgeprune.cli.debug import debug_command
from edgeprune.cli.demo import demo_command
from edgeprune.cli.inspect import inspect_command
from edgeprune.cli.latency import latency_files_command, latency_table_command
from edgeprune.cli.prune import prune_command
from edgeprune.cli.quantize_aware import quantize_aware_command
from edgeprune.cli.report import report_command
from edgeprune.cli.root import Command, app
from edgeprune.cli.sensitivity import sensitivity_command
from edgeprune.cli.targets import targets_command
from edgeprune.cli.verify import verify_command

# In the order of the help text.
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "demo": (demo_command, "edgeprune demo --epochs 2 -o demo_out"),
    "inspect": (inspect_command, "edgeprune inspect model.keras"),
    "prune": (prune_command, "edgeprune prune model.keras --data data.npz --sparsity 0.75 -o pruned.keras"),
    "quantize-aware": (
        quantize_aware_command,
        "edgeprune quantize-aware model.keras --data data.npz --scheme int4 -o small.tflite",
    ),
    "channels": (channels_command, "edgeprune channels model.keras --target-macs 0.5 --round-to 8 -o smaller.keras"),
    "latency-files": (latency_files_command, "edgeprune latency-files model.keras --quantization int8 -o phone_files"),
    "latency-table": (latency_table_command, "edgeprune latency-table phone_files -o phone.csv"),
    "sensitivity": (sensitivity_command, "edgeprune sensitivity model.keras --data data.npz -o curves.json"),
    "compress": (
        compress_command,
        "edgeprune compress model.keras --data data.npz --target cortex-m --max-drop 1% -o compressed",
    ),
    "apply": (apply_command, "edgeprune apply compressed/recipe.json model.keras --data data.npz -o again.tflite"),
    "convert": (convert_command, "edgeprune convert model.keras --quantization int8 --data data.npz -o model.tflite"),
    "verify": (verify_command, "edgeprune verify model.tflite --model model.keras --data data.npz"),
    "debug": (debug_command, "edgeprune debug model.keras model.tflite --data data.npz"),
    "report": (report_command, "edgeprune report model.keras model.tflite --data data.npz -o report.html"),
    "benchmark": (benchmark_command, "edgeprune benchmark model.tflite other.tflite --num-runs 20"),
    "bundle": (bundle_command, "edgeprune bundle model.keras --target phone --data data.npz -o bundle"),
    "targets": (targets_command, "edgeprune targets | grep ethos-u55"),
}

for _name, (_command, _example) in COMMANDS.items():
    app.command(_name, cls=Command, epilog=f"Example: {_example}")(_command)
