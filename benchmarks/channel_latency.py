"""What half of the MACs is worth: latency of channel-pruned files against the dense file, by rounding of the widths.

    python benchmarks/channel_latency.py [--only MobileNetV2] [--num-runs 30] [--quick] [--again]
    python benchmarks/channel_latency.py --write         write the files alone, to be timed when the machine is quiet

Each network (random weights: they do not change the time) is planned at 50 % of the MACs with widths rounded to 1, 8,
16, to the runtime's tiles and, in int8, to 64, exported to float32 and int8, and the files are timed interleaved in one
process on one thread. Files that are there are not written again without --again. Results go to
benchmarks/out/channel_latency.json too. Goal: at most 0.55 of the dense time in float32, 0.60 in int8.
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
# Format to the roundings tried in it. Tiles are a phone's; a server CPU with AMX computes int8 in tiles of 64.
ROUNDINGS = {None: (1, 8, 16, "tile"), "int8": (1, 8, 16, "tile-int8", 64)}
GOALS = {None: 0.55, "int8": 0.60}
SAMPLES = 4  # that set the ranges of the int8 files; accuracy is not measured here


class Files:
    """The files that are written, each with the fraction of the MACs that it keeps."""

    def __init__(self, size: int, again: bool) -> None:
        self.size = size
        self.folder = OUT / str(size)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.index = self.folder / "kept.json"
        self.kept: dict[str, float] = {} if again or not self.index.exists() else json.loads(self.index.read_text())

    def of(self, name: str) -> dict[str | None, list[tuple[str, float, Path]]]:
        """A network's files: for each format (rounding, MACs kept, file), the dense one first."""
        wanted = [(format, str(rounding)) for format, some in ROUNDINGS.items() for rounding in ("dense", *some)]
        missing = [one for one in wanted if self.path(name, *one).name not in self.kept]
        if missing:
            shape = (self.size, self.size, 3)
            model = getattr(flavor.keras_module(flavor.KERAS_3).applications, name)(weights=None, input_shape=shape)
            for quantization, rounding in track(missing, name):
                self.write(model, self.path(name, quantization, rounding), quantization, rounding)
        written: dict[str | None, list[tuple[str, float, Path]]] = {format: [] for format in ROUNDINGS}
        for quantization, rounding in wanted:
            path = self.path(name, quantization, rounding)
            written[quantization].append((rounding, self.kept[path.name], path))
        return written

    def path(self, name: str, quantization: str | None, rounding: str) -> Path:
        return self.folder / f"{name}_{rounding}_{quantization or 'float32'}.tflite"

    def write(self, model: Any, path: Path, quantization: str | None, rounding: str) -> None:
        kept, written = 1.0, model
        if rounding != "dense":
            round_to = int(rounding) if rounding.isdigit() else rounding
            plan = ep.plan_channels(model, target_macs=0.5, round_to=round_to)
            kept, written = plan.macs.kept, plan.apply(verify=False)
        samples = np.random.default_rng(0).random((SAMPLES, self.size, self.size, 3), np.float32)
        samples = samples if quantization else None
        ep.export_tflite(written, path, quantization, samples, calibration="min-max", overwrite=True)
        self.kept[path.name] = kept
        self.index.write_text(json.dumps(self.kept, indent=1))


def measure(name: str, written: Files, runs: int) -> list[dict[str, Any]]:
    rows = []
    for quantization, files in written.of(name).items():
        times = ep.benchmark([path for _, _, path in files], num_runs=runs)
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
    parser.add_argument("--num-runs", type=int, default=30, help="how often each file is timed")
    parser.add_argument("--quick", action="store_true", help="images of 96x96 and 10 runs: a look, no measurement")
    parser.add_argument("--write", action="store_true", help="write the files and time nothing")
    parser.add_argument("--again", action="store_true", help="write files again that are there")
    arguments = parser.parse_args()
    size, runs = (96, 10) if arguments.quick else (224, arguments.runs)
    files = Files(size, arguments.again)
    names = [name for name in MODELS if arguments.only in (None, name)]
    if arguments.write:
        for name in names:
            files.of(name)
        return
    rows = [row for name in names for row in measure(name, files, runs)]
    (OUT.parent / "channel_latency.json").write_text(json.dumps({"size": size, "runs": runs, "rows": rows}, indent=1))
    print_table(rows)


if __name__ == "__main__":
    main()
