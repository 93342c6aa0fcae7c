"""Whether plans weighed by sensitivity curves keep more than plans by l2 alone, on Fashion-MNIST, without training.

    python benchmarks/sensitivity.py [--nets resnet8 mobilenet] [--kept 0.7 0.5 0.25] [--images 512] [--epochs 15]

A dense net is trained once, on the sample inside the package (--full: on all of Fashion-MNIST). Its curves are measured
on training images: the accuracy, and without labels the distance of the outputs, each right after the cut and after the
layers that read the group were solved again. Each plan keeps the same MACs; the accuracy on the test images is measured
right after the cut and after reconstruction on the same training images. The seconds of each measurement of curves are
printed too. Rows are added to benchmarks/out/sensitivity/NET.json as they come, and those that are there are not made
again (--again makes them). Goal: more than l2 alone at half of the MACs of ResNet-8.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from channel_accuracy import NETS, Data, load
from reconstruction import OUT as DENSE
from reconstruction import dense_model
from results import Results

import edgeprune as ep
from edgeprune.text_table import text_table

OUT = Path(__file__).parent / "out" / "sensitivity"
LEVELS = (0.125, 0.25, 0.5, 0.75, 0.9)
ACCURACY = ep.Metric(lambda y_true, y_pred: y_pred.argmax(-1) == y_true, "accuracy", higher_is_better=True)
CURVES: dict[str, dict[str, Any]] = {
    "accuracy": {"metric": ACCURACY},
    "distance": {"metric": "distance"},
    "accuracy, solved again": {"metric": ACCURACY, "reconstruct": True},
    "distance, solved again": {"metric": "distance", "reconstruct": True},
}


def measured(name: str, model: Any, x: np.ndarray, y: np.ndarray, seconds: dict[str, float]) -> ep.Sensitivity:
    """The curves of one kind."""
    settings = dict(CURVES[name])
    if settings.pop("reconstruct", False):
        settings["reconstruct"] = x
    start = time.perf_counter()
    curves = ep.sensitivity(model, (x, y), levels=LEVELS, batch_size=128, **settings)
    seconds[name] = time.perf_counter() - start
    return curves


def measure(model: Any, data: Data, images: int, kept: list[float], results: Results) -> dict[str, float]:
    """Every plan at every size; returns the seconds that the curves took."""
    chosen = np.random.default_rng(0).choice(len(data.x_train), images, replace=False)
    x, y, seconds = data.x_train[chosen], data.y_train[chosen], dict[str, float]()
    scopes = {"l2, global": "global", "l2, local": "local"} | {name: None for name in CURVES}
    for name, scope in scopes.items():
        missing = [one for one in kept if not results.get(kind="plan", scope=name, kept=one, images=images)]
        if missing and scope is None:
            scope = measured(name, model, x, y, seconds)
        for one in missing:
            plan = ep.plan_channels(model, target_macs=one, scope=scope)
            found = plan.reconstruct(x, verify=False)
            cut, solved = (
                ep.accuracy(smaller, data.x_test, data.y_test) for smaller in (plan.apply(verify=False), found.model)
            )
            key = dict(kind="plan", scope=name, kept=one, images=images)
            results.add(**key, cut=cut, reconstructed=solved, error=found.after)
    return seconds


def table(name: str, images: int, kept: list[float], results: Results) -> str:
    rows = []
    for scope in ("l2, global", "l2, local", *CURVES):
        found = [results.get(kind="plan", scope=scope, kept=one, images=images) for one in kept]
        rows.append((scope, *(f"{row['cut']:.1%} / {row['reconstructed']:.1%}" for row in found)))
    header = ("groups weighed by", *(f"{one:.0%} of the MACs" for one in kept))
    dense = results.get(kind="dense")["accuracy"]
    return f"{name}, {dense:.1%} dense: accuracy after the cut / after reconstruction\n{text_table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--kept", nargs="+", type=float, default=[0.7, 0.5, 0.25])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--full", action="store_true", help="all of Fashion-MNIST, which must be installed")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    data = load(arguments.full)
    for folder in (OUT, DENSE):
        folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.nets:
        results = Results(OUT / f"{name}.json", arguments.again)
        model = dense_model(name, data, arguments.epochs, results)
        seconds = measure(model, data, arguments.images, arguments.kept, results)
        print(table(name, arguments.images, arguments.kept, results))
        print("seconds for the curves:", ", ".join(f"{key} {value:.0f}" for key, value in seconds.items()), flush=True)


if __name__ == "__main__":
    main()
