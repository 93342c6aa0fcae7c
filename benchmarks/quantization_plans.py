"""Bits planned for a time: what a plan says its file takes beside what the exported file takes, on this machine.

    python benchmarks/quantization_plans.py [--nets resnet8 mobilenet dense] [--shares 0.75 0.9 1.0 1.5] [--rounds 60]
    python benchmarks/quantization_plans.py --size 0.75 [--shares 1.5 2.5]   within a size too, relative to 8 bits
    python benchmarks/quantization_plans.py --again     make the rows again that are there

The nets are trained for one epoch on the sample inside the package. Each share is of the time of the file in 8 bits,
for LiteRT on this machine. Operators are timed as `plan_quantization` does, with a cache of their own. Then the plan's
file is exported, and timed in turns with the exported file of 8 bits in one process: printed is the median of the
ratios of the rounds, with their quartiles. Rows are added to benchmarks/out/quantization_plans.json as they come. Run
it on a machine that does nothing else. Goal: a file that takes at most 5 % more than its limit.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from channel_accuracy import LEARNING_RATE, Data, load, train
from channel_accuracy import NETS as CONVOLUTIONAL
from results import Results

import edgeprune as ep
from edgeprune.latency.timing import Stopwatch
from edgeprune.measure.machine import this_machine
from edgeprune.text_table import text_table

OUT = Path(__file__).parent / "out"
SAMPLES = 64
TOLERANCE = 1.05


def dense() -> keras.Model:
    """A net of dense layers, which LiteRT computes in 4 bits with kernels of their own."""
    layers = keras.layers
    hidden = [layers.Dense(units, activation="relu") for units in (512, 256, 256)]
    head = layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((28, 28, 1), name="image"), layers.Flatten(), *hidden, head], name="dense")


NETS: dict[str, Callable[[], Any]] = {
    **{name: CONVOLUTIONAL[name] for name in ("resnet8", "mobilenet")},
    "dense": dense,
}


def trained(name: str, data: Data) -> keras.Model:
    """A net after one epoch."""
    keras.utils.set_random_seed(1)
    model = NETS[name]()
    train(model, data, 1, LEARNING_RATE, name)
    return model


def relative_times(eight: Path, planned: Path, rounds: int) -> np.ndarray:
    """The time of a plan's file over that of the file in 8 bits, in each round."""
    with Stopwatch() as stopwatch:
        times = stopwatch.rounds([eight.read_bytes(), planned.read_bytes()], rounds)
    return times[1] / times[0]


def exported(model: keras.Model, quantization: Any, path: Path, x: np.ndarray) -> Path:
    """A file with ranges of the samples."""
    settings: dict[str, Any] = dict(calibration="min-max", verify=False, verbose=False, overwrite=True)
    ep.export_tflite(model, path, quantization, x, **settings)
    return path


def measure(name: str, data: Data, arguments: argparse.Namespace, results: Results) -> None:
    """The rows of one net."""
    keys = [dict(net=name, share=share, size_limit=arguments.size) for share in arguments.shares]
    missing = [key for key in keys if not results.get(**key)]
    if not missing:
        return
    model, x = trained(name, data), data.x_train[:SAMPLES]
    with tempfile.TemporaryDirectory() as folder:
        eight = exported(model, "int8", Path(folder) / "eight.tflite", x)
        for key in missing:
            limits = dict(max_latency=key["share"], max_size=key["size_limit"])
            results.add(**key, **planned_row(model, x, limits, eight, arguments.rounds))


def planned_row(model: Any, x: np.ndarray, limits: dict[str, Any], eight: Path, rounds: int) -> dict[str, Any]:
    """What a plan within limits says, and what its file takes; or why there is none."""
    try:
        plan = ep.plan_quantization(model, x, **limits)
    except ValueError as error:
        return {"refused": str(error)}
    assert plan.latency is not None and plan.latencies is not None
    measured = relative_times(eight, exported(model, plan.scheme, eight.with_name("plan.tflite"), x), rounds)
    low, median, high = (float(one) for one in np.quantile(measured, (0.25, 0.5, 0.75)))
    return {
        "milliseconds": plan.latencies[1],
        "all_four": plan.latencies[0] / plan.latencies[1],
        "predicted": plan.latency / plan.latencies[1],
        "measured": median,
        "quartiles": [low, high],
        "bits": {layer.name: layer.bits for layer in plan.layers},
        "error": plan.error,
        "size": plan.size,
    }


def table(results: Results) -> str:
    """A line for each plan."""
    rows = []
    for row in results.rows:
        limits = [row["net"], f"{row['share']:.2f}", "" if row["size_limit"] is None else f"{row['size_limit']:.2f}"]
        if "refused" in row:
            rows.append([*limits, *[""] * 6, "refused"])
            continue
        bits = list(row["bits"].values())
        narrow = f"{bits.count(4)} of {len(bits)}"
        met = "met" if row["measured"] <= TOLERANCE * row["share"] else "missed"
        low, high = row["quartiles"]
        figures = [f"{row['milliseconds']:.3f}", f"{row['all_four']:.2f}", f"{row['predicted']:.3f}"]
        measured = [f"{row['measured']:.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append([*limits, *figures, *measured, narrow, met])
    head = [
        "net",
        "time",
        "size",
        "ms, 8 bits",
        "all 4 bits",
        "predicted",
        "measured",
        "quartiles",
        "in 4 bits",
        "goal",
    ]
    return text_table(head, rows, left=(0, 9))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--shares", nargs="+", type=float, default=(0.75, 0.9, 1.0, 1.5))
    parser.add_argument("--size", type=float, help="of the file, relative to 8 bits")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    results = Results(OUT / "quantization_plans.json", arguments.again)
    data = load(full=False)
    for name in arguments.nets:
        measure(name, data, arguments, results)
    print(table(results))
    print(this_machine())


if __name__ == "__main__":
    main()
