"""What least squares on unlabelled images makes up for after a cut, without training, on Fashion-MNIST.

    python benchmarks/reconstruction.py [--nets resnet8] [--importances l2] [--kept 0.5] [--images 1000] [--seeds 3]
    python benchmarks/reconstruction.py --fine-tune  after 1 and 3 epochs too, from the cut and the reconstructed net,
                                                     and after 1 with the dense net as a teacher beside the labels

A dense net is trained once, on the sample inside the package (--full: on all of Fashion-MNIST, --full-test: tested on
all of it). It is cut to a fraction of its MACs by each importance (global scope), and the accuracy on the test images
is measured right after the cut, after its batch normalizations are recalibrated, and after reconstruction, both on the
same training images without their labels; the importances that need data get the same images, and Taylor's the labels.
Each seed chooses other images and other places: the table has the median of the seeds. Rows are added to
benchmarks/out/reconstruction/NET.json as they come, and those that are there are not made again (--again makes them).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from functools import partial
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
TUNED = (1, 3)  # epochs
TUNING_RATE = 2e-3
TAUGHT = "reconstructed_1_taught"
COLUMNS = (
    "after_cut",
    "recalibrated",
    "reconstructed",
    *(f"{start}_{n}" for start in ("cut", "reconstructed") for n in TUNED),
    TAUGHT,
)
# Points that may be lost without training, by the fraction of the MACs that is left.
GOALS = {
    "resnet8": {0.7: 0.5, 0.5: 1.5, 0.25: 6.0},
    **dict.fromkeys(("mobilenet", "ds_cnn"), {0.7: 1.5, 0.5: 4.0, 0.25: 12.0}),
}


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


def measure(model: Any, data: Data, arguments: argparse.Namespace, results: Results) -> None:
    """All cuts of a net, each made up for on all choices of images."""
    for kept in arguments.kept:
        for importance in arguments.importances:
            for seed in range(arguments.seeds):
                row = measure_cut(model, data, importance, kept, arguments.images, seed, results)
            if arguments.fine_tune:
                tune(model, data, row, results)


def planned(model: Any, data: Data, key: dict[str, Any]) -> tuple[ep.ChannelPlan, np.ndarray]:
    """The plan of a row, and its images."""
    chosen = np.random.default_rng(key["seed"]).choice(len(data.x_train), key["images"], replace=False)
    x, y = data.x_train[chosen], data.y_train[chosen]
    plan = ep.plan_channels(
        model,
        target_macs=key["kept"],
        importance=key["importance"],
        data=(x, y) if key["importance"] == "taylor" else x,
        loss="sparse_categorical_crossentropy",
        seed=key["seed"],
    )
    return plan, x


def measure_cut(
    model: Any, data: Data, importance: str, kept: float, images: int, seed: int, results: Results
) -> dict[str, Any]:
    """One cut, made up for on one choice of images."""
    key = dict(kind="cut", importance=importance, kept=kept, images=images, seed=seed)
    if (row := results.get(**key)) is not None:
        return row
    plan, x = planned(model, data, key)
    smaller = plan.apply()
    recalibrated = ep.recalibrate_batch_norm(smaller, x)
    start = time.perf_counter()
    found = plan.reconstruct(x, verify=False, seed=seed)
    seconds = time.perf_counter() - start
    scores = (ep.accuracy(one, data.x_test, data.y_test) for one in (smaller, recalibrated, found.model))
    names = ("after_cut", "recalibrated", "reconstructed")
    return results.add(
        **key, **dict(zip(names, scores, strict=True)), seconds=seconds, error=found.after, error_of_cut=found.before
    )


def tune(model: Any, data: Data, row: dict[str, Any], results: Results) -> None:
    """The accuracy after some epochs, from the cut weights and from the reconstructed ones."""
    plan, x = planned(model, data, row)
    starts = {"cut": plan.apply, "reconstructed": lambda: plan.reconstruct(x, verify=False, seed=row["seed"]).model}
    for start, make in starts.items():
        for epochs in TUNED:
            name = f"{start}_{epochs}"
            if name not in row:
                title = f"{row['kept']:.0%} {row['importance']}, {start}"
                results.update(row, **{name: train(make(), data, epochs, TUNING_RATE, title)})
    if TAUGHT not in row:
        smaller = starts["reconstructed"]()
        results.update(row, **{TAUGHT: train(smaller, data, 1, TUNING_RATE, f"{row['kept']:.0%}, taught", model)})


def table(name: str, images: int, results: Results) -> str:
    dense = results.get(kind="dense")["accuracy"]
    rows = []
    cuts = [row for row in results.rows if row["kind"] == "cut" and row["images"] == images]
    for kept in sorted({row["kept"] for row in cuts}, reverse=True):
        for importance in dict.fromkeys(row["importance"] for row in cuts):
            own = [row for row in cuts if (row["kept"], row["importance"]) == (kept, importance)]
            if own:
                goal = GOALS.get(name, {}).get(kept)
                lost = 100 * (dense - float(np.median([row["reconstructed"] for row in own])))
                met = "" if goal is None else f" (goal {goal})"
                rows.append((f"{kept:.0%}", importance, *map(partial(cell, own), COLUMNS), f"{lost:.1f}{met}"))
    header = ("MACs", "importance", *(column.replace("_", " ") for column in COLUMNS), "lost without training")
    return f"{name}: {dense:.1%} dense, {images} images\n{text_table(header, rows)}"


def cell(rows: Sequence[dict[str, Any]], column: str) -> str:
    """The median of the seeds, in percent."""
    scores = [100 * row[column] for row in rows if column in row]
    return f"{np.median(scores):.1f}" if scores else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--importances", nargs="+", default=["l2", "taylor", "reconstruction"])
    parser.add_argument("--kept", nargs="+", type=float, default=[0.7, 0.5, 0.25])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12, help="of dense training")
    parser.add_argument("--fine-tune", action="store_true", help="train the smaller nets too")
    parser.add_argument("--full", action="store_true", help="all of Fashion-MNIST, which must be installed")
    parser.add_argument("--full-test", action="store_true", help="the 10,000 test images of the full set")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    arguments = parser.parse_args()
    data = load(arguments.full)
    if arguments.full_test:
        everything = load(True)
        data = dataclasses.replace(data, x_test=everything.x_test, y_test=everything.y_test)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in arguments.nets:
        results = Results(OUT / f"{name}.json", arguments.again)
        model = dense_model(name, data, arguments.epochs, results)
        measure(model, data, arguments, results)
        print(table(name, arguments.images, results), flush=True)


if __name__ == "__main__":
    main()
