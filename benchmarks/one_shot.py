"""What pruning in one shot costs, without training or labels, on Fashion-MNIST: magnitude alone and the rest solved.

    python benchmarks/one_shot.py [--nets resnet8 mobilenet] [--amounts 0.5 2:4] [--images 1000] [--seeds 3]

The dense nets are those of benchmarks/reconstruction.py, trained once on the sample inside the package (--full: on all
of Fashion-MNIST). Each is pruned to a sparsity, or to m zeros in every n weights, and the accuracy on the test images
is measured with the zeros alone (magnitude) and after the weights that stay were solved on training images without
their labels. Each seed chooses other images and other places: the table has the median of the seeds and the range.
Rows are added to benchmarks/out/one_shot/NET.json as they come, and those that are there are not made again (--again
makes them).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import reconstruction
from channel_accuracy import NETS, Data, load
from reconstruction import dense_model
from results import Results

import edgeprune as ep
from edgeprune.text_table import text_table

OUT = Path(__file__).parent / "out" / "one_shot"


def settings_of(amount: str) -> dict[str, Any]:
    """`0.5` as a sparsity, `2:4` as two zeros in every four."""
    if ":" in amount:
        zeros, group = map(int, amount.split(":"))
        return {"sparsity_m_by_n": (zeros, group)}
    return {"sparsity": float(amount)}


def measure(model: Any, data: Data, seed: int, results: Results, **key: Any) -> None:
    """One model pruned, made up for on one choice of images; `key` is what the table is of, with amount and images."""
    key = dict(key, seed=seed)
    if results.get(**key):
        return
    x = data.x_train[np.random.default_rng(seed).choice(len(data.x_train), key["images"], replace=False)]
    plan = ep.plan_weights(model, **settings_of(key["amount"]))
    magnitude = ep.accuracy(plan.apply(), data.x_test, data.y_test)
    start = time.process_time()
    found = plan.reconstruct(x, seed=seed)
    seconds = time.process_time() - start
    results.add(
        **key,
        magnitude=magnitude,
        solved=ep.accuracy(found.model, data.x_test, data.y_test),
        sparsity=ep.sparsity_report(found.model).sparsity,
        error=found.after,
        error_of_magnitude=found.before,
        seconds=seconds,
    )


def median(values: Sequence[float], form: str) -> str:
    """The median and the range."""
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(name: str, dense: float, amounts: list[str], results: Results, **key: Any) -> str:
    rows = []
    for amount in amounts:
        own = [row for row in results.rows if dict(key, amount=amount).items() <= row.items()]
        lost = median([100 * (dense - row["solved"]) for row in own], "+.2f")
        solved = median([100 * row["solved"] for row in own], ".2f")
        magnitude = f"{100 * own[0]['magnitude']:.2f}"
        seconds = median([row["seconds"] for row in own], ".0f")
        rows.append((amount, f"{own[0]['sparsity']:.1%}", magnitude, solved, lost, f"{len(own)}", seconds))
    header = ("amount", "zeros", "magnitude alone", "solved", "points lost", "seeds", "CPU seconds")
    return f"{name}: {dense:.2%} dense, {key['images']} images\n{text_table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["resnet8"])
    parser.add_argument("--amounts", nargs="+", default=["0.5", "2:4"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="all of Fashion-MNIST, which must be installed")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    data = load(arguments.full)
    for folder in (OUT, reconstruction.OUT):
        folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.nets:
        trained = Results(reconstruction.OUT / f"{name}.json")
        model = dense_model(name, data, arguments.epochs, trained)
        results = Results(OUT / f"{name}.json", arguments.again)
        key = dict(epochs=arguments.epochs, trained_on=len(data.x_train), images=arguments.images)
        for amount in arguments.amounts:
            for seed in range(arguments.seeds):
                measure(model, data, seed, results, **key, amount=amount)
        dense = trained.get(kind="dense")["accuracy"]
        print(table(name, dense, arguments.amounts, results, **key), flush=True)


if __name__ == "__main__":
    main()
