"""Which models can be trained for quantization: `quantization.py --coverage`, those of `keras.applications`, and with
`--hub` small configurations of KerasHub's architectures (hub_nets.py).

Each model has a process of its own, at a small input: prepared with `quantize_aware`, trained for a step, exported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coverage import builders
from quantization_peers import Absent, tfmot_model

import edgeprune as ep
from edgeprune import flavor
from edgeprune.flavor.deep_graphs import followed_by_recursion
from edgeprune.measure import read_tflite
from edgeprune.text_table import text_table

SIDES = {"Inception": 75, "Xception": 71}  # by the beginning of the name; 32 for all others
SAMPLES = 8  # to calibrate and to train on
# In training, all values of untrained nets are out of the ranges that they have by the first statistics of their batch
# normalizations. In these, gradients overflow then, and the statistics are those of the data.
STEEP = ("ResNet101", "ResNet152", "EfficientNetB6", "EfficientNetB7")
LENGTH = 16  # of texts
TIME_LIMIT = 1800  # seconds for one model


@dataclass(frozen=True, eq=False)
class Covered:
    """A model with random inputs.

    Attributes:
        model: of Keras 3.
        x: an array, or input name to array.
        twin: builds the same for `tf_keras`; None where there is none.
    """

    model: Any
    x: Any
    twin: Callable[[], Any] | None = None


def names(hub: bool) -> list[str]:
    """The models to cover."""
    if not hub:
        return list(builders(flavor.KERAS_3))
    from hub_nets import NETS

    return list(NETS)


def covered(name: str, hub: bool) -> dict[str, Any]:
    """Prepare, train and export one model; the figures of it."""
    start = time.perf_counter()
    net = _of_hub(name) if hub else _of_applications(name)
    model = net.model
    aware = ep.quantize_aware(model, "int8", calibration=net.x)
    # Nets without trained weights have steep gradients, which a step of another optimizer follows out of every range.
    keras = flavor.keras_of(aware)
    targets = _zeros_like_outputs(aware, net.x)
    with followed_by_recursion():
        trained = keras.Model(aware.input, aware.output)  # a model that was compiled keeps its metrics
    losses = keras.tree.map_structure(lambda _: "mse", targets)
    trained.compile(keras.optimizers.Adam(1e-4), losses, jit_compile=False)  # for one step, compiling is most of it
    loss = float(np.sum(trained.train_on_batch(net.x, targets)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        made = ep.export_tflite(aware, path, "int8", net.x, verbose=False)
        operators = read_tflite(path).operators
    return {
        "model": name,
        "parameters": model.count_params(),
        "loss": loss,
        "operators": len(operators),
        "float_operators": Counter(
            one.name for one in operators if "float32" in one.output_dtypes and one.name != "DEQUANTIZE"
        ),
        "left": dict(ep.quantization_report(aware).left),
        "notes": list(made.notes),
        "passed": made.verification is not None and made.verification.passed,
        "tfmot": _by_tfmot(net),
        "seconds": time.perf_counter() - start,
    }


def _of_applications(name: str) -> Covered:
    side = next((side for start, side in SIDES.items() if name.startswith(start)), 32)

    def built(keras: str) -> Any:
        return builders(keras)[name](input_shape=(side, side, 3), weights=None, classes=10)

    x = np.random.default_rng(0).random((SAMPLES, side, side, 3), np.float32)
    model = built(flavor.KERAS_3)
    if name in STEEP:
        model = ep.recalibrate_batch_norm(model, x)
    return Covered(model, x, lambda: built(flavor.TF_KERAS))


def _of_hub(name: str) -> Covered:
    from hub_coverage import inputs_for
    from hub_nets import NETS, of_fixed_length

    model = of_fixed_length(NETS[name].build(), LENGTH, NETS[name].shapes)
    x = inputs_for(name, model, SAMPLES)
    return Covered(model, x if len(x) > 1 else next(iter(x.values())))


def _zeros_like_outputs(model: Any, x: Any) -> Any:
    """Targets of a step of training: zeros, in the outputs' structure."""
    keras = flavor.keras_of(model)
    return keras.tree.map_structure(lambda output: np.zeros(output.shape, np.float32), model(x, training=False))


def _by_tfmot(net: Covered) -> str:
    """What TF-MOT makes of the model: "quantized", or why not."""
    if net.twin is None:
        return "has no Keras 3"
    try:
        tfmot_model(net.twin())
    except Absent as error:
        return str(error)
    return "quantized"


def in_a_process_of_its_own(name: str, hub: bool) -> dict[str, Any]:
    """The row of one model; that of a process which fails or takes too long has an error."""
    script = Path(__file__).with_name("quantization.py")
    command = [sys.executable, script, "--cover-one", name, *(["--hub"] if hub else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"model": name, "error": f"not done after {TIME_LIMIT} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {"model": name, "error": f"exit code {done.returncode}: {last}"[:300]}
    return json.loads(done.stdout.splitlines()[-1])


def coverage_table(rows: list[dict[str, Any]]) -> str:
    """All rows, and how many are covered."""
    lines = []
    for row in sorted(rows, key=lambda row: row["model"]):
        if "error" in row:
            lines.append((row["model"], "", "", "", "", row["error"][:80]))
            continue
        named = ", ".join(f"{count} {name}" for name, count in row["float_operators"].items()) or "0"
        agrees = "yes" if row["passed"] else "no"
        peer = "yes" if row["tfmot"] == "quantized" else "no"
        lines.append((row["model"], f"{row['parameters']:,}", str(row["operators"]), named, agrees, peer))
    whole = [row for row in rows if "error" not in row and np.isfinite(row["loss"]) and not row["float_operators"]]
    heads = ("model", "parameters", "operators", "in floats", "agrees", "TF-MOT")
    return text_table(heads, lines, left=(0, 3)) + f"\n{len(whole)} of {len(rows)} in integers throughout"
