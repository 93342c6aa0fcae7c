"""Which models of `keras.applications` can be trained for quantization: `quantization.py --coverage`.

Each model has a process of its own, at a small input: prepared with `quantize_aware`, trained for a step, exported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from coverage import builders
from quantization_peers import Absent, tfmot_model

import edgeprune as ep
from edgeprune import flavor
from edgeprune.measure import read_tflite
from edgeprune.text_table import text_table

SIDES = {"Inception": 75, "Xception": 71}  # by the beginning of the name; 32 for all others
TIME_LIMIT = 1800  # seconds for one model


def covered(name: str) -> dict[str, Any]:
    """Prepare, train and export one model; the figures of it."""
    start = time.perf_counter()
    model = built(flavor.KERAS_3, name)
    x = np.random.default_rng(0).random((8, *model.input_shape[1:]), np.float32)
    aware = ep.quantize_aware(model, "int8", calibration=x)
    # Nets without trained weights have steep gradients, which a step of another optimizer follows out of every range.
    aware.compile(flavor.keras_of(aware).optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
    loss = float(aware.train_on_batch(x[:2], np.zeros(2)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        made = ep.export_tflite(aware, path, "int8", x, verbose=False)
        operators = read_tflite(path).operators
    try:
        tfmot_model(built(flavor.TF_KERAS, name))
        peer = "quantized"
    except Absent as error:
        peer = str(error)
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
        "tfmot": peer,
        "seconds": time.perf_counter() - start,
    }


def built(keras: str, name: str) -> Any:
    side = next((side for start, side in SIDES.items() if name.startswith(start)), 32)
    return builders(keras)[name](input_shape=(side, side, 3), weights=None, classes=10)


def in_a_process_of_its_own(name: str) -> dict[str, Any]:
    """The row of one model; that of a process which fails or takes too long has an error."""
    script = Path(__file__).with_name("quantization.py")
    try:
        done = subprocess.run(
            [sys.executable, script, "--cover-one", name], capture_output=True, text=True, timeout=TIME_LIMIT
        )
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
