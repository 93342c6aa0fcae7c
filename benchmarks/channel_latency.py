"""What half of the MACs is worth: latency of channel-pruned files against the dense file, by rounding of the widths.

    python benchmarks/channel_latency.py [--only MobileNetV2] [--runs 30] [--quick]

Each network (random weights: they do not change the time) is planned at 50 % of the MACs with widths rounded to 1, 8,
16 and to the runtime's tiles, exported to float32 and int8, and the files are timed interleaved in one process on one
thread. Results go to benchmarks/out/channel_latency.json too. Goal: at most 0.55 of the dense time in float32, 0.60 in
int8.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import edgeprune as ep
from edgeprune import flavor
from edgeprune.progress import track

OUT = Path(__file__).parent / "out" / "channel_latency"
MODELS = ("MobileNet", "MobileNetV2", "EfficientNetB0", "ResNet50")
# Format to the roundings tried in it, each with the name in the table.
ROUNDINGS = {None: (1, 8, 16, "tile"), "int8": (1, 8, 16, "tile-int8")}
GOALS = {None: 0.55, "int8": 0.60}
SAMPLES = 4  # that set the ranges of the int8 files; accuracy is not measured here


def files_of(name: str, size: int) -> dict[str | None, list[tuple[str, float, Path]]]:
    """Write a network's files: for each format (rounding, MACs kept, file), the dense one first."""
    model = getattr(flavor.keras_module(flavor.KERAS_3).applications, name)(weights=None, input_shape=(size, size, 3))
    samples = np.random.default_rng(0).random((SAMPLES, size, size, 3), np.float32)
    written: dict[str | None, list[tuple[str, float, Path]]] = {}
    for quantization, roundings in ROUNDINGS.items():
        written[quantization] = [("dense", 1.0, export(model, f"{name}_dense", quantization, samples))]
        for rounding in track(roundings, f"{name} {quantization or 'float32'}"):
            plan = ep.plan_channels(model, macs=0.5, round_to=rounding)
            path = export(plan.apply(verify=False), f"{name}_{rounding}", quantization, samples)
            written[quantization].append((str(rounding), plan.macs.kept, path))
    return written


def export(model: Any, name: str, quantization: str | None, samples: np.ndarray) -> Path:
    path = OUT / f"{name}_{quantization or 'float32'}.tflite"
    ep.export_tflite(model, path, quantization, samples if quantization else None, overwrite=True)
    return path


def measure(name: str, size: int, runs: int) -> list[dict[str, Any]]:
    rows = []
    for quantization, files in files_of(name, size).items():
        times = ep.benchmark([path for _, _, path in files], runs=runs)
        for (rounding, macs, _), time in zip(files, times.rows, strict=True):
            rows.append(
                {
                    "model": name,
                    "format": quantization or "float32",
                    "round_to": rounding,
                    "macs_kept": macs,
                    "milliseconds": time.milliseconds,
                    "ratio": time.ratio,
                    "ratio_spread": time.ratio_spread,
                    "goal": GOALS[quantization],
                }
            )
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| Model | Format | Widths rounded to | MACs kept | ms | Ratio | IQR | Goal |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for row in rows:
        dense = row["round_to"] == "dense"
        met = "" if dense else f"{row['goal']} {'met' if row['ratio'] <= row['goal'] else 'missed'}"
        print(
            f"| {row['model']} | {row['format']} | {row['round_to']} | {row['macs_kept']:.1%} "
            f"| {row['milliseconds']:.2f} | {row['ratio']:.3f} | {row['ratio_spread']:.3f} | {met} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODELS, help="one network alone")
    parser.add_argument("--runs", type=int, default=30, help="how often each file is timed")
    parser.add_argument("--quick", action="store_true", help="images of 96x96 and 10 runs: a look, no measurement")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    size, runs = (96, 10) if arguments.quick else (224, arguments.runs)
    rows = [row for name in MODELS if arguments.only in (None, name) for row in measure(name, size, runs)]
    (OUT.parent / "channel_latency.json").write_text(json.dumps({"size": size, "runs": runs, "rows": rows}, indent=1))
    print_table(rows)


if __name__ == "__main__":
    main()
