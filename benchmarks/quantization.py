"""What quantization loses, and what training brings back: accuracy and size of files, on the full test sets.

    python benchmarks/quantization.py [--nets resnet8 ds_cnn inverted conv1d] [--rows float qat_int8] [--seeds 3]
                                      [--epochs 8] [--tune 3] [--train 60000] [--test 10000]
    python benchmarks/quantization.py --table          the tables of what was measured so far
    python benchmarks/quantization.py --agreement      quantized_evaluation beside the files of the trained nets
    python benchmarks/quantization.py --step-time      time of a step over plain fit, [--rounds 9] [--only 'ResNet*']
    python benchmarks/quantization.py --coverage       every model of keras.applications [--only 'MobileNet*'], with
                                                       --hub small configurations of KerasHub's

Each net is trained once for each seed, and all rows begin with it. `control` is the float net trained on for --tune
epochs; the rows with training have as many. Accuracy is measured on the file, in percent of the test images.

float, control      the net in floats                     tf_int8             TensorFlow's converter alone, min-max
ptq_int8            calibration="auto"                    qat_int8            quantize_aware(model, "int8"), trained
ptq_int4            "int4", reconstructed                 qat_int4            "int4", trained
pruned, pruned_ptq  80 % zeros, in floats and int8        pqat_int8, _int4    the zeros kept in training
halved, halved_qat  half of the MACs, reconstructed       twin_*              channels multiplied by 2^U(-3, 3)
tfmot_int8          TF-MOT's training, on tf_keras        litert_int8         litert-quantizer, calibrated

Rows are added to benchmarks/out/quantization/NET.json as they come, and those that are there are not made again
(--again makes them). Without seglearn, litert-quantizer or where TF-MOT refuses a net, the row is left out with a line.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from post_training import unbalanced_twin
from quantization_nets import NETS, Data, train
from quantization_peers import Absent, litert_quantizer, tensorflow_int8, tfmot_int8
from results import Results

import edgeprune as ep
from edgeprune import flavor
from edgeprune.export.weight_zeros import zeros_of_weights
from edgeprune.measure import file_size, read_tflite
from edgeprune.text_table import text_table
from edgeprune.tfmot.quantization.keras import quantize_scope

OUT = Path(__file__).parent / "out" / "quantization"
LEARNING_RATE, TUNING_RATE = 4e-3, 1e-3
CALIBRATED_ON = 256
SPARSITY = 0.8


class Bench:
    """One net from one seed: the models that rows need, each made once and kept in a file."""

    def __init__(self, name: str, seed: int, data: Data, arguments: argparse.Namespace) -> None:
        self.net, self.name, self.seed, self.data = NETS[name], name, seed, data
        self.epochs, self.tune, self.out = arguments.epochs, arguments.tune, arguments.out
        self.samples = data.x_train[:CALIBRATED_ON]

    def path(self, kind: str, suffix: str) -> Path:
        return self.out / f"{self.name}-{self.seed}-{kind}.{suffix}"

    def model(self, kind: str) -> Any:
        """The model of this kind: from its file, or made now."""
        path = self.path(kind, "keras")
        if path.exists():
            with quantize_scope():
                return flavor.load_model(path)
        model = MODELS[kind](self)
        model.save(path)
        return model

    def tuned(self, model: Any, what: str, callbacks: tuple[Any, ...] = ()) -> Any:
        train(model, self.data, self.tune, TUNING_RATE, self.seed, f"{self.name} {self.seed} {what}", callbacks)
        return model

    def trained(self) -> Any:
        flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(self.seed)
        model = self.net.build(flavor.KERAS_3)
        train(model, self.data, self.epochs, LEARNING_RATE, self.seed, f"{self.name} {self.seed} float")
        return model

    def pruned(self) -> Any:
        steps = self.tune * -(-len(self.data.x_train) // 128)
        schedule = ep.PolynomialDecay(0.3, SPARSITY, 0, steps // 2, frequency=max(1, steps // 100))
        model = ep.prune_low_magnitude(self.model("float"), schedule)
        return ep.strip_pruning(self.tuned(model, "pruned", (ep.UpdatePruningStep(),)))

    def aware(self, kind: str, scheme: str) -> Any:
        """A quantization-aware model, trained."""
        aware = ep.quantize_aware(self.model(kind), scheme, calibration=self.samples)
        return self.tuned(aware, f"{kind} {scheme}")

    def halved(self) -> Any:
        return ep.prune_channels(self.model("float"), target_macs=0.5, reconstruct=self.data.x_train[:1000])

    def in_floats(self, kind: str) -> dict[str, Any]:
        """The row of a model in floats."""
        model = self.model(kind)
        path = self.path(kind, "tflite")
        ep.export_tflite(model, path, verify=False, verbose=False, overwrite=True)
        return self.row(path, model)

    def file(self, kind: str, model: Any, scheme: str, **options: Any) -> dict[str, Any]:
        """The row of a file in integers."""
        path = self.path(kind, "tflite")
        options = {"representative_data": self.samples, "num_samples": len(self.samples), **options}
        made = ep.export_tflite(model, path, scheme, verify=False, verbose=False, overwrite=True, **options)
        return {**self.row(path, model), "notes": list(made.notes)}

    def by_peer(self, kind: str, write: Callable[[Path], None]) -> dict[str, Any]:
        """The row of a file that something else writes."""
        path = self.path(kind, "tflite")
        write(path)
        return self.row(path, None)

    def row(self, path: Path, model: Any) -> dict[str, Any]:
        """What is measured on a file; of the zeros of the model's kernels, how many are zero in it at their places."""
        size = file_size(path)
        zeros: dict[str, int] = {}
        if model is not None:
            found = zeros_of_weights(ep.strip_quantization(model), read_tflite(path))
            zeros = {
                "zeros": sum(one.keras_zeros for one in found),
                "zeros_kept": sum(one.kept or 0 for one in found),
            }
        accuracy = ep.accuracy(path, self.data.x_test, self.data.y_test)
        return {"accuracy": accuracy, "bytes": size.bytes, "gzip_bytes": size.gzip_bytes, **zeros}


MODELS: dict[str, Callable[[Bench], Any]] = {
    "float": Bench.trained,
    "control": lambda bench: bench.tuned(bench.model("float"), "control"),
    "qat_int8": lambda bench: bench.aware("float", "int8"),
    "qat_int4": lambda bench: bench.aware("float", "int4"),
    "pruned": Bench.pruned,
    "pqat_int8": lambda bench: bench.aware("pruned", "int8"),
    "pqat_int4": lambda bench: bench.aware("pruned", "int4"),
    "halved": Bench.halved,
    "halved_qat": lambda bench: bench.aware("halved", "int8"),
    "twin": lambda bench: unbalanced_twin(bench.model("float"), bench.seed),
}

ROWS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "float": lambda bench: bench.in_floats("float"),
    "tf_int8": lambda bench: bench.by_peer(
        "tf_int8", lambda path: tensorflow_int8(bench.model("float"), bench.samples, path)
    ),
    "ptq_int8": lambda bench: bench.file("ptq_int8", bench.model("float"), "int8", calibration="auto"),
    "ptq_int4": lambda bench: bench.file("ptq_int4", bench.model("float"), "int4", calibration="min-max"),
    "twin_tf": lambda bench: bench.by_peer(
        "twin_tf", lambda path: tensorflow_int8(bench.model("twin"), bench.samples, path)
    ),
    "twin_auto": lambda bench: bench.file("twin_auto", bench.model("twin"), "int8", calibration="auto"),
    "qat_int8": lambda bench: bench.file("qat_int8", bench.model("qat_int8"), "int8"),
    "control": lambda bench: bench.in_floats("control"),
    "qat_int4": lambda bench: bench.file("qat_int4", bench.model("qat_int4"), "int4"),
    "pruned": lambda bench: bench.in_floats("pruned"),
    "pruned_ptq": lambda bench: bench.file("pruned_ptq", bench.model("pruned"), "int8", calibration="auto"),
    "pqat_int8": lambda bench: bench.file("pqat_int8", bench.model("pqat_int8"), "int8"),
    "pqat_int4": lambda bench: bench.file("pqat_int4", bench.model("pqat_int4"), "int4"),
    "halved": lambda bench: bench.in_floats("halved"),
    "halved_qat": lambda bench: bench.file("halved_qat", bench.model("halved_qat"), "int8"),
    "tfmot_int8": lambda bench: bench.by_peer(
        "tfmot_int8",
        lambda path: tfmot_int8(bench.model("float"), bench.net, bench.data, bench.tune, TUNING_RATE, bench.seed, path),
    ),
    "litert_int8": lambda bench: bench.by_peer(
        "litert_int8", lambda path: litert_quantizer(bench.model("float"), bench.samples, path)
    ),
}

# What a row is held against: the other row, and the points that may be lost.
GOALS = {
    "qat_int8": ("control", 0.1),
    "qat_int4": ("float", 0.5),
    "twin_auto": ("float", 0.3),
    "pqat_int8": ("pruned", 0.3),
}


def measure(name: str, arguments: argparse.Namespace, results: Results) -> None:
    """All rows of a net, printed as they are made."""
    data = NETS[name].data().first(arguments.train, arguments.test)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        bench = Bench(name, seed, data, arguments)
        for row in arguments.rows:
            key = {"seed": seed, "row": row}
            if results.get(**key):
                continue
            start = time.perf_counter()
            try:
                made = ROWS[row](bench)
            except Absent as error:
                print(f"{name} {seed} {row}: left out, {error}", flush=True)
                continue
            setting = {"epochs": arguments.epochs, "tune": arguments.tune, "train": len(data.x_train)}
            made |= {"test": len(data.x_test), "seconds": time.perf_counter() - start}
            results.add(**key, **setting, **made)
            print(
                f"{name} {seed} {row}: {made['accuracy']:.2%}, {made['bytes']:,} bytes, {made['gzip_bytes']:,} gzip'd,"
                f" zeros kept {made.get('zeros_kept', '')} of {made.get('zeros', '')} ({made['seconds']:.0f} s)",
                flush=True,
            )


def table(name: str, results: Results) -> str:
    """The rows of a net, means over its seeds, beside the goals."""
    lines = []
    for row in ROWS:
        found = [one for one in results.rows if one["row"] == row]
        if not found:
            continue
        accuracy = [100 * one["accuracy"] for one in found]
        spread = f" ({min(accuracy):.2f} to {max(accuracy):.2f})" if len(found) > 1 else ""
        zeros = sum(one.get("zeros", 0) for one in found)
        kept = sum(one.get("zeros_kept", 0) for one in found)
        lines.append(
            (
                row,
                f"{np.mean(accuracy):.2f}{spread}",
                f"{np.mean([one['bytes'] for one in found]):,.0f}",
                f"{np.mean([one['gzip_bytes'] for one in found]):,.0f}",
                f"{kept:,} of {zeros:,}" if zeros else "",
                verdict(row, results),
            )
        )
    seeds = {one["seed"] for one in results.rows}
    first = results.rows[0]
    title = (
        f"{name}: {len(seeds)} seed{'s' * (len(seeds) > 1)}, {first['epochs']} epochs and {first['tune']} more, "
        f"{first['train']:,} training and {first['test']:,} test samples"
    )
    return f"{title}\n" + text_table(("row", "accuracy", "bytes", "gzip'd", "zeros kept", "goal"), lines)


def verdict(row: str, results: Results) -> str:
    """The points that a row lost against another on the same seeds, and whether that meets the goal."""
    said = []
    if row in GOALS:
        said.append(_lost(row, *GOALS[row], results))
    if row == "qat_int8":
        said.append(_lost(row, "ptq_int8", 0.0, results))
    if row == "qat_int4":
        share = _mean(results, "qat_int4", "gzip_bytes") / _mean(results, "qat_int8", "gzip_bytes")
        said.append(f"{share:.2f} of int8 gzip'd (0.70: {'met' if share <= 0.7 else 'missed'})")
    return ", ".join(filter(None, said))


def _lost(row: str, other: str, goal: float, results: Results) -> str:
    pairs = [
        (one["accuracy"], against["accuracy"])
        for one in results.rows
        if one["row"] == row and (against := results.get(row=other, seed=one["seed"]))
    ]
    if not pairs:
        return ""
    lost = float(np.mean([100 * (reference - own) for own, reference in pairs]))
    return f"{lost:+.2f} lost against {other} ({goal}: {'met' if round(lost, 2) <= goal else 'missed'})"


def _mean(results: Results, row: str, key: str) -> float:
    return float(np.mean([one[key] for one in results.rows if one["row"] == row] or [np.nan]))


def measure_agreement(arguments: argparse.Namespace) -> None:
    """The agreement of the trained nets with their files; nets that are not trained yet are trained first."""
    from quantization_agreement import agreement, agreement_table

    results = Results(arguments.out / "agreement.json", arguments.again)
    for name in arguments.nets:
        data = NETS[name].data().first(arguments.train, arguments.test)
        bench = Bench(name, arguments.first_seed, data, arguments)
        for kind in (row for row in arguments.rows if row in ("qat_int8", "qat_int4", "pqat_int8")):
            if results.get(net=name, model=kind) is None:
                scheme = kind.rpartition("_")[2]
                for row in agreement(bench.model(kind), scheme, data.x_test, arguments.tflm_samples):
                    made = results.add(net=name, model=kind, **row)
                    print({key: value for key, value in made.items() if key != "operators"}, flush=True)
    print(agreement_table(results.rows))


def measure_step_time(arguments: argparse.Namespace) -> None:
    from quantization_steps import MODELS, step_table, step_times

    for title in (title for title in MODELS if fnmatch.fnmatchcase(title, arguments.only)):
        rows = step_times(title, arguments.rounds, arguments.steps)
        print(step_table(title, rows, arguments.rounds, arguments.steps), flush=True)


def measure_coverage(arguments: argparse.Namespace) -> None:
    from quantization_coverage import coverage_table, in_a_process_of_its_own, names

    results = Results(arguments.out / f"{'hub_' * arguments.hub}coverage.json", arguments.again)
    for name in names(arguments.hub):
        if fnmatch.fnmatchcase(name, arguments.only) and results.get(model=name) is None:
            row = results.add(**in_a_process_of_its_own(name, arguments.hub))
            print(name, row.get("error") or f"{row['float_operators']} in floats, {row['seconds']:.0f} s", flush=True)
    print(coverage_table(results.rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8, help="of the float net")
    parser.add_argument("--tune", type=int, default=3, help="epochs of all further training")
    parser.add_argument("--train", type=int, help="training samples at most")
    parser.add_argument("--test", type=int, help="test samples at most")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the rows and models")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    parser.add_argument("--table", action="store_true", help="print what was measured so far")
    parser.add_argument("--agreement", action="store_true")
    parser.add_argument("--tflm-samples", type=int, default=10_000, help="of the agreement on TFLM")
    parser.add_argument("--step-time", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--hub", action="store_true", help="of the coverage: KerasHub's architectures")
    parser.add_argument("--only", default="*", help="a pattern of models")
    parser.add_argument("--cover-one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.cover_one:
        from quantization_coverage import covered

        print(json.dumps(covered(arguments.cover_one, arguments.hub)))
    elif arguments.agreement:
        measure_agreement(arguments)
    elif arguments.step_time:
        measure_step_time(arguments)
    elif arguments.coverage:
        measure_coverage(arguments)
    else:
        measure_accuracy(arguments)


def measure_accuracy(arguments: argparse.Namespace) -> None:
    for name in arguments.nets:
        results = Results(arguments.out / f"{name}.json", arguments.again)
        if not arguments.table:
            try:
                measure(name, arguments, results)
            except FileNotFoundError as error:
                print(f"{name}: left out, {error}", flush=True)
        if results.rows:
            print(table(name, results), flush=True)


if __name__ == "__main__":
    main()
