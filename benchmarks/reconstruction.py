"""What least squares on unlabelled images makes up for after a cut, without training, on Fashion-MNIST.

    python benchmarks/reconstruction.py [--nets resnet8 mobilenet] [--kept 0.75 0.5 0.25] [--images 600] [--seeds 3]

A dense net is trained once, on the sample inside the package (--full: on all of Fashion-MNIST). It is cut to a fraction
of its MACs (l2, global), and the accuracy on the test images is measured right after the cut, after its batch
normalizations are recalibrated, and after reconstruction, both on the same training images without their labels. Each
seed chooses other images and other places: the table has the median of the seeds and the range. Rows are added to
benchmarks/out/reconstruction/NET.json as they come, and those that are there are not made again (--again makes them).
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
from channel_accuracy import LEARNING_RATE, NETS, Data, load, train
from results import Results

import edgeprune as ep
from edgeprune import flavor
from edgeprune.text_table import text_table

OUT = Path(__file__).parent / "out" / "reconstruction"


def dense_model(name: str, data: Data, epochs: int, results: Results) -> Any:
    """The trained dense net: from its file, or trained now."""
    path = OUT / f"{name}.keras"
    if results.get(kind="dense", epochs=epochs, trained_on=len(data.x_train)) and path.exists():
        return flavor.load_model(path)
    flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(1)
    model = NETS[name]()
    accuracy = train(model, data, epochs, LEARNING_RATE, f"{name}, dense")
    model.save(path)
    results.remove()
    results.add(kind="dense", epochs=epochs, trained_on=len(data.x_train), accuracy=accuracy)
    return model


def measure(model: Any, data: Data, kept: float, images: int, seed: int, results: Results) -> None:
    """One cut, made up for on one choice of images."""
    key = dict(kind="cut", kept=kept, images=images, seed=seed)
    if results.get(**key):
        return
    x = data.x_train[np.random.default_rng(seed).choice(len(data.x_train), images, replace=False)]
    plan = ep.plan_channels(model, target_macs=kept)
    smaller = plan.apply()
    recalibrated = ep.recalibrate_batch_norm(smaller, x)
    start = time.perf_counter()
    found = plan.reconstruct(x, verify=False, seed=seed)
    seconds = time.perf_counter() - start
    scores = (ep.accuracy(one, data.x_test, data.y_test) for one in (smaller, recalibrated, found.model))
    names = ("after_cut", "recalibrated", "reconstructed")
    results.add(
        **key, **dict(zip(names, scores, strict=True)), seconds=seconds, error=found.after, error_of_cut=found.before
    )


def median(values: Sequence[float], form: str) -> str:
    """The median and the range."""
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(name: str, images: int, results: Results) -> str:
    rows = []
    for kept in sorted({row["kept"] for row in results.rows if row["kind"] == "cut"}, reverse=True):
        own = [row for row in results.rows if row["kind"] == "cut" and (row["kept"], row["images"]) == (kept, images)]
        scores = [
            median([100 * row[key] for row in own], ".1f") for key in ("after_cut", "recalibrated", "reconstructed")
        ]
        rows.append((f"{kept:.0%}", *scores, f"{len(own)}", median([row["seconds"] for row in own], ".1f")))
    header = ("MACs", "cut", "batch norm recalibrated", "reconstructed", "seeds", "seconds")
    dense = results.get(kind="dense")["accuracy"]
    return f"{name}: {dense:.1%} dense, {images} images\n{text_table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--kept", nargs="+", type=float, default=[0.75, 0.5, 0.25])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--full", action="store_true", help="all of Fashion-MNIST, which must be installed")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    data = load(arguments.full)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in arguments.nets:
        results = Results(OUT / f"{name}.json", arguments.again)
        model = dense_model(name, data, arguments.epochs, results)
        for kept in arguments.kept:
            for seed in range(arguments.seeds):
                measure(model, data, kept, arguments.images, seed, results)
        print(table(name, arguments.images, results), flush=True)


if __name__ == "__main__":
    main()
