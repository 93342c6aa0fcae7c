"""Plans for half of the time, and what is left of the importance beside plans by MACs that take as long.

    python benchmarks/latency_plans.py [--nets MobileNetV2] [--quantizations float int8] [--share 0.5] [--size 224]
    python benchmarks/latency_plans.py --npu       cycles of ethos-u55-128 instead
    python benchmarks/latency_plans.py --accuracy  of nets trained on Fashion-MNIST, after the same fine-tuning

The nets of the first two have random weights: time and cycles do not depend on them. Each plan is applied, converted,
and timed in turns with the original in one process; plans by MACs with each rounding are bisected until their files
take the same time. With --accuracy plans for the time, of groups weighed by l2 and by sensitivity curves, and the plans
by MACs are trained alike, after a dense net of --epochs. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from channel_accuracy import LEARNING_RATE, Data, load, train
from channel_accuracy import NETS as TRAINED_NETS

import edgeprune as ep
from edgeprune.channels.plan.importance import class_scores, relative
from edgeprune.conversion.plain import converted
from edgeprune.latency.timing import Stopwatch
from edgeprune.measure.machine import this_machine
from edgeprune.measure.vela import compile_for_npu
from edgeprune.text_table import text_table

NETS = ("MobileNet", "MobileNetV2", "EfficientNetB0", "ResNet50")
ROUNDINGS = (1, 8, 16, "tile")
BISECTIONS = 5
TUNED, TUNING_RATE = 2, 2e-3  # epochs after the cut, and their learning rate
CURVES_ON = 1000  # samples


def share_of_importance(plan: ep.ChannelPlan) -> float:
    """The sum of the scores that are kept, of all that may go."""
    scores = relative(plan.graph, class_scores(plan.graph, "l2", None, 0))
    free = np.concatenate([group.classes for group in plan.groups if group.frozen is None])
    return float(scores[free][plan.kept_mask[free]].sum() / scores[free].sum())


def ratio(before: bytes, after: bytes, rounds: int) -> float:
    """The time of a file relative to another's, the median of rounds in turns."""
    with Stopwatch() as stopwatch:
        times = stopwatch.rounds([before, after], rounds)
    return float(np.median(times[1] / times[0]))


def by_macs(
    model: keras.Model, before: bytes, quantization: str | None, share: float, round_to: int | str, rounds: int
) -> tuple[float, ep.ChannelPlan]:
    """The plan by MACs whose file comes nearest to the share of the time, and the share that it takes."""
    low, high = 0.1, 1.0
    tried: list[tuple[float, ep.ChannelPlan]] = []
    for _ in range(BISECTIONS):
        macs = (low + high) / 2
        try:
            plan = ep.plan_channels(model, target_macs=macs, round_to=round_to)
        except ValueError:  # fewer than this rounding leaves
            low = macs
            continue
        took = ratio(before, converted(plan.apply(verify=False), quantization), rounds)
        tried.append((took, plan))
        low, high = (macs, high) if took < share else (low, macs)
    return min(tried, key=lambda one: abs(one[0] - share))


def on_this_machine(model: keras.Model, quantization: str | None, share: float, rounds: int, alone: bool) -> list[str]:
    """One row: what was requested, predicted and measured, and the importance beside that of plans by MACs."""
    plan = ep.plan_channels(model, target_latency=share, quantization=quantization)
    before = converted(model, quantization)
    measured = ratio(before, converted(plan.apply(), quantization), rounds)
    row = [model.name, quantization or "float", f"{plan.latency.before:.2f}", f"{plan.latency.sum_of_operators:.2f}"]
    row += [
        f"{plan.latency.predicted / plan.latency.before:.3f}",
        f"{measured:.3f}",
        f"{share_of_importance(plan):.3f}",
    ]
    for round_to in () if alone else ROUNDINGS:
        took, other = by_macs(model, before, quantization, share, round_to, rounds)
        row.append(f"{share_of_importance(other):.3f} ({took:.2f})")
    return row


def on_npu(model: keras.Model, share: float) -> list[str]:
    """One row: the cycles requested and those of the plan's file."""
    target = "ethos-u55-128"
    plan = ep.plan_channels(model, target_latency=share, quantization="int8", target=target)
    cycles = []
    with tempfile.TemporaryDirectory() as folder:
        for made in (model, plan.apply()):
            path = Path(folder) / "model.tflite"
            path.write_bytes(converted(made, "int8"))
            cycles.append(compile_for_npu(path, target, Path(folder) / "compiled.tflite").cycles)
    return [model.name, "int8", f"{cycles[0]:,}", f"{cycles[1] / cycles[0]:.3f}", f"{share_of_importance(plan):.3f}"]


def accuracies(model: keras.Model, data: Data, quantization: str | None, share: float, rounds: int) -> list[str]:
    """The accuracy after the same training, of a plan for the time and of plans by MACs that take as long."""
    before = converted(model, quantization)
    x, y = data.x_train[:CURVES_ON], data.y_train[:CURVES_ON]
    curves = ep.sensitivity(model, (x, y), metric="accuracy", reconstruct=x, verbose=False)
    plans = {}
    for title, scope in (("for the time", "global"), ("by curves", curves)):
        plan = ep.plan_channels(model, target_latency=share, quantization=quantization, scope=scope)
        took = ratio(before, converted(plan.apply(verify=False), quantization), rounds)
        plans[title] = took, plan
    for round_to in ROUNDINGS:
        # As long as the plan for the time took, not as long as was asked.
        plans[str(round_to)] = by_macs(model, before, quantization, took, round_to, rounds)
    row = []
    for title, (time, chosen) in plans.items():
        tuned = train(chosen.apply(verify=False), data, TUNED, TUNING_RATE, title)
        row.append(f"{tuned:.2%} ({time:.2f})")
        print(row, flush=True)
    return row


def compare_accuracies(arguments: argparse.Namespace) -> None:
    """Print the table of accuracies."""
    data, rows = load(True), []
    for name in arguments.nets or TRAINED_NETS:
        keras.utils.set_random_seed(1)
        model = TRAINED_NETS[name]()
        dense = train(model, data, arguments.epochs, LEARNING_RATE, f"{name}, dense")
        for kind in arguments.quantizations:
            scheme = None if kind == "float" else kind
            own = accuracies(model, data, scheme, arguments.share, arguments.rounds)
            rows.append([name, kind, f"{dense:.2%}", *own])
    head = [
        "net",
        "type",
        "dense",
        "for the time (time)",
        "weighed by curves (time)",
        *(f"by MACs, {round_to} (time)" for round_to in ROUNDINGS),
    ]
    print(text_table(head, rows, left=(0, 1)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=(*NETS, *TRAINED_NETS))
    parser.add_argument("--quantizations", nargs="+", choices=("float", "int8"), default=("float", "int8"))
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--npu", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without plans by MACs")
    parser.add_argument("--accuracy", action="store_true", help="of trained nets, instead of the importance kept")
    parser.add_argument("--epochs", type=int, default=5, help="of the dense nets with --accuracy")
    arguments = parser.parse_args()
    if arguments.accuracy:
        compare_accuracies(arguments)
        return
    rows = []
    for name in arguments.nets or NETS:
        keras.utils.set_random_seed(0)
        model = getattr(keras.applications, name)(weights=None, input_shape=(arguments.size, arguments.size, 3))
        for quantization in ("int8",) if arguments.npu else arguments.quantizations:
            scheme = None if quantization == "float" else quantization
            if arguments.npu:
                rows.append(on_npu(model, arguments.share))
            else:
                rows.append(on_this_machine(model, scheme, arguments.share, arguments.rounds, arguments.alone))
            print(rows[-1], flush=True)
    head = ["net", "type", "before", "kept", "importance"]
    if not arguments.npu:
        head = ["net", "type", "ms", "operators / file", "predicted", "measured", "importance"]
        head += [] if arguments.alone else [f"by MACs, {round_to} (time)" for round_to in ROUNDINGS]
    print(text_table(head, rows, left=(0, 1)))
    print(this_machine())


if __name__ == "__main__":
    main()
