"""The four nets of MLPerf Tiny, dense and with half of the MACs, through every target.

    python benchmarks/targets.py               all targets; what is there already is not measured again (--again does)
    python benchmarks/targets.py --latency     time the phones' files again, and nothing else
    python benchmarks/targets.py --quick       two nets, three targets, 30 samples: a look

The weights are random (they change neither memory nor time), the batch normalisations are settled on the samples, so
that every layer's values spread as in a trained net. Half of the MACs is cut with widths rounded as the target asks,
or half as coarsely where a net is too narrow for that.
A file is made once for all targets that want the same one, and proven on 300 samples. Figures go to
benchmarks/out/targets.json, files beside it. Goals: no value differs between the microcontroller's interpreter and
reference kernels in integers (LiteRT's own scale dense layers with a float: how many values differ from those is told
too), and every MAC runs on the NPU.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from results import Results

import edgeprune as ep
from edgeprune import flavor
from edgeprune.bundle.microcontroller import kernel_bytes, scratch_bytes, with_margin
from edgeprune.data.named_inputs import named_samples
from edgeprune.measure.tflm import align, compare_with_reference, measure_arena
from edgeprune.measure.vela import compile_for_npu
from edgeprune.models import autoencoder, ds_cnn, mobilenet_v1, resnet8
from edgeprune.output_capture import captured_output
from edgeprune.progress import track
from edgeprune.targets import TARGETS, Target
from edgeprune.tflite.runtime import Runtime

OUT = Path(__file__).parent / "out"
NETS: dict[str, Callable[[], Any]] = {
    "ResNet-8": lambda: resnet8((32, 32, 3)),
    "DS-CNN": ds_cnn,
    "MobileNetV1-0.25": mobilenet_v1,
    "autoencoder": autoencoder,
}
KEPT = (1.0, 0.5)
SAMPLES = 300
CALIBRATED_ON = 100
RUNS = 200
OVERVIEW = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256", "phone", "phone-gpu")
QUICK = {"nets": ["DS-CNN", "autoencoder"], "targets": ["phone", "cortex-m", "ethos-u55-128"], "samples": 30}


@dataclass(frozen=True)
class File:
    """One exported file: a net, what is left of its MACs, how it is quantized and what its widths are rounded to."""

    net: str
    kept: float
    quantization: str | None
    round_to: int | str | None

    @classmethod
    def wanted_by(cls, target: Target, net: str, kept: float) -> File:
        return cls(net, kept, target.quantizations[0], target.round_to if kept < 1 else None)

    @property
    def name(self) -> str:
        width = "dense" if self.kept == 1 else f"{self.kept:.0%}_of_macs_rounded_to_{self.round_to}"
        return f"{self.net}_{width}_{self.quantization or 'float32'}".replace("%", "")


def files_of(targets: Sequence[Target], nets: Sequence[str]) -> list[File]:
    """What these targets want, each file once."""
    return list(dict.fromkeys(File.wanted_by(target, net, kept) for net in nets for kept in KEPT for target in targets))


def samples_of(net: str, count: int) -> np.ndarray:
    """Inputs of float32 that differ in their brightness and in their grain."""
    shape = NETS[net]().input_shape[1:]
    rng = np.random.default_rng(0)
    brightness = rng.random((count, *(1 for _ in shape[:-1]), shape[-1]))
    return (brightness * rng.random((count, *shape))).astype(np.float32)


def with_random_weights(model: Any, seed: int = 0) -> Any:
    """Give the biases and the batch normalisations values too, which are all alike in a fresh net."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1:
            low, high = (0.5, 1.5) if "gamma" in weight.name else (-0.5, 0.5)
            weight.assign(rng.uniform(low, high, weight.shape))
    return model


def settled(model: Any, samples: np.ndarray) -> Any:
    """Have the batch normalisations normalise what they are given on these samples."""
    layers = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    momentums = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(samples, training=True)
    for layer, momentum in zip(layers, momentums, strict=True):
        layer.momentum = momentum
    return model


def planned(model: Any, kept: float, round_to: int | str) -> tuple[ep.ChannelPlan, int | str]:
    """A plan, and the rounding it has: half of what is asked for where a net is too narrow to get there with it."""
    try:
        return ep.plan_channels(model, target_macs=kept, round_to=round_to), round_to
    except ValueError:
        if isinstance(round_to, str) or round_to == 1:
            raise
        return planned(model, kept, round_to // 2)


@dataclass(frozen=True)
class Bench:
    """Where files and figures are kept. Each stage skips what is there."""

    results: Results
    folder: Path
    samples: int

    def path(self, file: File) -> Path:
        return self.folder / f"{file.name}.tflite"

    def export(self, files: Sequence[File]) -> None:
        """Write the files and compare them with their Keras models."""
        for file in track(self._missing(files, "file"), "Exporting"):
            flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(0)
            samples = samples_of(file.net, self.samples)
            dense = model = settled(with_random_weights(NETS[file.net]()), samples)
            round_to = file.round_to
            if file.kept < 1:
                plan, round_to = planned(dense, file.kept, file.round_to)
                model = settled(plan.apply(), samples)
            ep.export_tflite(
                model,
                self.path(file),
                file.quantization,
                samples[:CALIBRATED_ON],
                overwrite=True,
                verify=False,
                verbose=False,
            )
            with captured_output():  # TensorFlow's warnings
                checked = ep.verify_tflite(self.path(file), model, samples)
            (output,) = checked.outputs
            self.results.remove(kind="file", file=file.name)
            self.results.add(
                kind="file",
                file=file.name,
                macs=checked.macs.total,
                round_to=round_to,
                macs_kept=ep.count_macs(model).total / ep.count_macs(dense).total,
                samples=checked.samples,
                relative_error=output.relative_error,
                agreement=output.agreement,
                **checked.size.to_dict(),
            )

    def run_on_micro(self, files: Sequence[File]) -> None:
        """The arena of each file, its flash, and its values beside the reference kernels'."""
        for file in track(self._missing(files, "micro"), "Running on TensorFlow Lite for Microcontrollers"):
            aligned = self.path(file).with_suffix(".aligned.tflite")
            align(self.path(file), aligned)
            arena = measure_arena(aligned)
            samples = named_samples(Runtime(aligned), samples_of(file.net, self.samples))
            size = aligned.stat().st_size
            self.results.add(
                kind="micro",
                file=file.name,
                arena=arena.to_dict(),
                arena_with_margin=with_margin(arena.bytes, scratch_bytes(aligned)),
                model_bytes=size,
                flash_bytes_estimate=size + kernel_bytes(list(ep.read_tflite(aligned).operator_counts)),
                parity=compare_with_reference(aligned, samples).to_dict(),
            )

    def compile(self, files: Sequence[File], accelerator: str) -> None:
        """What Vela says of each file on an accelerator."""
        for file in track(self._missing(files, "npu", accelerator=accelerator), f"Compiling for {accelerator}"):
            compiled = self.folder / f"{file.name}.{accelerator}.tflite"
            report = compile_for_npu(self.path(file), accelerator, compiled)
            figures = report.to_dict() | {"path": compiled.name}
            self.results.add(kind="npu", file=file.name, bytes=compiled.stat().st_size, **figures)

    def time(self, files: Sequence[File], again: bool) -> None:
        """The files' times on this machine, all those of a net in turns."""
        for net in dict.fromkeys(file.net for file in files):
            group = [file for file in files if file.net == net]
            if not again and not self._missing(group, "latency"):
                continue
            measured = ep.benchmark([self.path(file) for file in group], num_runs=RUNS)
            for file, row in zip(group, measured.rows, strict=True):
                self.results.remove(kind="latency", file=file.name)
                self.results.add(
                    kind="latency",
                    file=file.name,
                    milliseconds=row.milliseconds,
                    spread=row.spread,
                    runs=measured.num_runs,
                )

    def _missing(self, files: Sequence[File], kind: str, **key: Any) -> list[File]:
        rows = [self.results.get(kind=kind, file=file.name, **key) for file in files]
        return [file for file, row in zip(files, rows, strict=True) if not row or not self.path(file).exists()]


def fits(board: Target, micro: dict[str, Any]) -> bool:
    """Whether the arena, its margin included, and the flash are there."""
    ram, flash = board.ram_bytes, board.flash_bytes
    return (ram is None or micro["arena_with_margin"] <= ram) and (
        flash is None or micro["flash_bytes_estimate"] <= flash
    )


def microcontrollers(results: Results, boards: Sequence[Target], nets: Sequence[str]) -> Iterator[dict[str, str]]:
    """A row for each file: boards that want the same one differ in their memories alone."""
    for net, kept in product(nets, KEPT):
        for name, group in by_file(boards, net, kept).items():
            micro = results.get(kind="micro", file=name)
            flash, parity = micro["flash_bytes_estimate"], micro["parity"]
            code = flash - micro["model_bytes"]
            yield {
                **about(results, net, name),
                "Flash kB": f"{flash / 1000:.0f}",
                "of it code (estimate)": f"{code / 1000:.0f}",
                "Arena kB": f"{micro['arena']['bytes'] / 1000:.1f}",
                "Values that differ": f"{parity['mismatches']:,} of {parity['values']:,}",
                "from LiteRT's": f"{parity['litert_mismatches']:,}",
                "Fits": f"{sum(fits(board, micro) for board in group)} of {len(group)}",
            }


def npus(results: Results, targets: Sequence[Target], nets: Sequence[str]) -> Iterator[dict[str, str]]:
    """A row for each file, with its milliseconds on every accelerator."""
    for net, kept in product(nets, KEPT):
        for name, group in by_file(targets, net, kept).items():
            rows = [results.get(kind="npu", file=name, accelerator=npu.accelerator) for npu in group]
            yield {
                **about(results, net, name),
                "On the NPU": f"{min(1 - row['cpu_share'] for row in rows):.0%}",
                **{f"{row['accelerator']} ms": f"{row['milliseconds']:.3g}" for row in rows},
            }


def phones(results: Results, targets: Sequence[Target], nets: Sequence[str]) -> Iterator[dict[str, str]]:
    """A row for each file, with its time on this machine's CPU."""
    for net, kept in product(nets, KEPT):
        for name, group in by_file(targets, net, kept).items():
            made, time = results.get(kind="file", file=name), results.get(kind="latency", file=name)
            yield {
                **about(results, net, name),
                "Target": ", ".join(phone.name for phone in group),
                "kB": f"{made['bytes'] / 1000:.0f}",
                "Gzip'd": f"{made['gzip_bytes'] / 1000:.0f}",
                "ms": f"{time['milliseconds']:.3g}",
                "IQR": f"{time['spread']:.2g}",
                "Error": f"{made['relative_error']:.1%}",
            }


def overview(results: Results, targets: Sequence[Target], nets: Sequence[str]) -> Iterator[dict[str, str]]:
    """A row for each net: the first microcontroller's figures, the time of some NPUs and of the phones' files."""
    board = next((target for target in targets if target.kind == "microcontroller"), None)
    for net, kept in product(nets, KEPT):
        row = {"Net": net, "MACs": f"{kept:.0%}"}
        if board:
            micro = results.get(kind="micro", file=File.wanted_by(board, net, kept).name)
            row["Flash kB"] = f"{micro['flash_bytes_estimate'] / 1000:.0f}"
            row["Arena kB"] = f"{micro['arena']['bytes'] / 1000:.1f}"
            row["Values that differ"] = f"{micro['parity']['mismatches']:,} of {micro['parity']['values']:,}"
        for target in targets:
            name = File.wanted_by(target, net, kept).name
            if target.name in OVERVIEW:
                key = (
                    {"kind": "npu", "accelerator": target.accelerator} if target.kind == "npu" else {"kind": "latency"}
                )
                row[f"{target.name} ms"] = f"{results.get(file=name, **key)['milliseconds']:.3g}"
        yield row


def about(results: Results, net: str, file: str) -> dict[str, str]:
    made = results.get(kind="file", file=file)
    return {"Net": net, "MACs": f"{made['macs_kept']:.0%}", "Rounded to": str(made["round_to"] or "")}


def print_table(rows: Sequence[dict[str, str]]) -> None:
    print(f"\n| {' | '.join(rows[0])} |\n| --- |{' ---: |' * (len(rows[0]) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row.values())} |")


def by_file(targets: Sequence[Target], net: str, kept: float) -> dict[str, list[Target]]:
    """The name of each file to the targets that want it."""
    groups: dict[str, list[Target]] = {}
    for target in targets:
        groups.setdefault(File.wanted_by(target, net, kept).name, []).append(target)
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--latency", action="store_true", help="time the files for phones again, and nothing else")
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--quick", action="store_true", help="two nets, three targets, 30 samples")
    arguments = parser.parse_args()
    nets, names, samples, folder = arguments.nets, arguments.targets, SAMPLES, OUT / "targets"
    if arguments.quick:
        nets, names, samples, folder = QUICK["nets"], QUICK["targets"], QUICK["samples"], OUT / "targets_quick"
    folder.mkdir(parents=True, exist_ok=True)
    targets = [TARGETS[name] for name in names]
    bench = Bench(Results(folder.with_suffix(".json"), arguments.again), folder, samples)

    def wanted(*kinds: str) -> list[File]:
        return files_of([target for target in targets if target.kind in kinds], nets)

    if not arguments.latency:
        bench.export(wanted("phone", "microcontroller", "npu"))
        bench.run_on_micro(wanted("microcontroller"))
        for target in targets:
            if target.kind == "npu":
                bench.compile(files_of([target], nets), target.accelerator)
    bench.time(wanted("phone"), again=arguments.latency)
    print_table(list(overview(bench.results, targets, nets)))
    for kind, rows in (("microcontroller", microcontrollers), ("npu", npus), ("phone", phones)):
        group = [target for target in targets if target.kind == kind]
        if group:
            print_table(list(rows(bench.results, group, nets)))


if __name__ == "__main__":
    main()
