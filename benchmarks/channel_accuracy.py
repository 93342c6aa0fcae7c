"""What channel removal costs in accuracy, by importance and scope, on Fashion-MNIST.

    python benchmarks/channel_accuracy.py [--nets resnet8] [--importances l2 taylor] [--scopes global] [--kept 0.5]
    python benchmarks/channel_accuracy.py --no-fine-tune the accuracy right after each cut alone, minutes
    python benchmarks/channel_accuracy.py --quick        the sample inside the package, two importances, minutes

A dense net is trained once. For each importance and scope it is cut to 50 % and to 25 % of its MACs; accuracy on the
test images is measured right after the cut and after a short fine-tune, whose targets are the mean of the labels and
of what the dense net says of the training images (distillation: Hinton et al., 2015). At each size the shape of the
first plan is also trained from scratch, on the labels, for as many epochs as dense training and fine-tuning took
together. Rows are added to benchmarks/out/channel_accuracy/NET.json as they come, and those that are there are not
made again (--again makes them): nets can be run side by side, and a run that was stopped goes on. Goals: at most 0.3
points lost at 50 % of the MACs, 1.0 at 25 %, and never behind from scratch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from results import Results

import edgeprune as ep
from edgeprune import flavor
from edgeprune.fit import fit
from edgeprune.models import BATCH_NORM_MOMENTUM, ds_cnn, resnet8

OUT = Path(__file__).parent / "out"
IMPORTANCES = ("l2", "l1", "bn_scale", "lamp", "fpgm", "taylor", "activation", "fisher", "random")
SCOPES = ("global", "local", "isomorphic")
GOALS = {0.5: 0.3, 0.25: 1.0}
SCORED_ON = 2048  # images, for importances that need data
CLASSES = 10
BATCH_SIZE = 128
LEARNING_RATE = 4e-3
# Little time is left to recover, so the rate begins high.
FINE_TUNING_RATE = 8e-3


def mobilenet() -> Any:
    """A net of depthwise separable convolutions, MobileNetV1's shape at a quarter of its width."""
    keras = flavor.keras_module(flavor.KERAS_3)
    layers = keras.layers

    def normalised(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x))

    inputs = keras.Input((28, 28, 1), name="image")
    x = normalised(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs))
    for filters, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1)):
        x = normalised(layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x))
        x = normalised(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="mobilenet")


NETS: dict[str, Callable[[], Any]] = {
    "resnet8": resnet8,
    "mobilenet": mobilenet,
    "ds_cnn": lambda: ds_cnn((28, 28, 1), 10),
}


@dataclass(frozen=True)
class Data:
    """Images (n, 28, 28, 1) of float32 from 0 to 1, and labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(full: bool) -> Data:
    (x_train, y_train), (x_test, y_test) = ep.load_fashion_mnist(full=full)
    x_train, x_test = (images[..., None].astype(np.float32) / 255 for images in (x_train, x_test))
    return Data(x_train, y_train, x_test, y_test)


def train(model: Any, data: Data, epochs: int, learning_rate: float, description: str, teacher: Any = None) -> float:
    """Train with a learning rate that falls to zero on a cosine; returns the accuracy on the test images.

    With a teacher, the targets are the mean of the labels and of what the teacher says.
    """
    keras = flavor.keras_of(model)
    steps = epochs * -(-len(data.x_train) // BATCH_SIZE)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))
    targets = np.eye(CLASSES, dtype=np.float32)[data.y_train]
    if teacher is not None:
        targets = (targets + teacher.predict(data.x_train, batch_size=500, verbose=0)) / 2
    model.compile(optimizer, "categorical_crossentropy")
    keras.utils.set_random_seed(1)
    fit(model, data.x_train, targets, epochs=epochs, batch_size=BATCH_SIZE, description=description)
    return ep.accuracy(model, data.x_test, data.y_test)


def dense_model(name: str, data: Data, epochs: int, results: Results, folder: Path) -> Any:
    """The trained dense net: from its file, or trained now."""
    path = folder / f"{name}.keras"
    if results.get(net=name, kind="dense") and path.exists():
        return flavor.load_model(path)
    flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(1)
    model = NETS[name]()
    accuracy = train(model, data, epochs, LEARNING_RATE, f"{name}, dense")
    model.save(path)
    results.add(net=name, kind="dense", accuracy=accuracy, macs=ep.count_macs(model).total)
    return model


def cut(model: Any, data: Data, importance: str, scope: str, kept: float) -> Any:
    """A smaller net, planned on the first training images where the importance needs any."""
    images = (data.x_train[:SCORED_ON], data.y_train[:SCORED_ON])
    plan = ep.plan_channels(
        model, target_macs=kept, importance=importance, scope=scope, data=images, loss="sparse_categorical_crossentropy"
    )
    return plan.apply()


def measure(name: str, data: Data, arguments: argparse.Namespace, results: Results, folder: Path) -> None:
    dense_epochs = arguments.epochs
    model = dense_model(name, data, dense_epochs, results, folder)
    for kept in arguments.kept:
        for scope in arguments.scopes:
            for importance in arguments.importances:
                measure_cut(name, model, data, kept, scope, importance, arguments.fine_tune, results)
        if arguments.fine_tune:
            from_scratch(name, model, data, kept, dense_epochs + arguments.fine_tune, results)


def measure_cut(
    name: str, model: Any, data: Data, kept: float, scope: str, importance: str, epochs: int, results: Results
) -> None:
    """One row of the table; one that is there without its fine-tuning gets it where epochs are asked for."""
    key = dict(net=name, kind="cut", kept=kept, scope=scope, importance=importance)
    row = results.get(**key)
    if row and ("accuracy" in row or not epochs):
        return
    smaller = cut(model, data, importance, scope, kept)
    if row is None:
        accuracy = ep.accuracy(smaller, data.x_test, data.y_test)
        row = results.add(**key, macs=ep.count_macs(smaller).total, after_cut=accuracy)
    if epochs:
        title = f"{name} {kept:.0%} {scope} {importance}"
        tuned = train(smaller, data, epochs, FINE_TUNING_RATE, title, teacher=model)
        results.update(row, accuracy=tuned)


def from_scratch(name: str, model: Any, data: Data, kept: float, epochs: int, results: Results) -> None:
    """Train the shape of the first plan again, for as many epochs as dense training and fine-tuning took together."""
    if results.get(net=name, kind="from scratch", kept=kept):
        return
    first = results.get(net=name, kind="cut", kept=kept)
    shape = dict(scope=first["scope"], importance=first["importance"])
    small = cut(model, data, shape["importance"], shape["scope"], kept)
    flavor.keras_of(small).utils.set_random_seed(2)
    fresh = type(small).from_config(small.get_config())
    accuracy = train(fresh, data, epochs, LEARNING_RATE, f"{name} {kept:.0%} from scratch")
    macs = ep.count_macs(fresh).total
    results.add(net=name, kind="from scratch", kept=kept, **shape, macs=macs, accuracy=accuracy)


def print_table(results: Results) -> None:
    """A line for each plan, and for each size how many plans meet the goals."""
    dense = next(row for row in results.rows if row["kind"] == "dense")
    others = [row for row in results.rows if row["kind"] != "dense"]
    sizes = sorted({row["kept"] for row in others}, reverse=True)
    print(f"{dense['net']}, {dense['accuracy']:.2%} with all of its MACs\n")
    print("| Scope | Importance |" + "".join(f" {kept:.0%}: after the cut | fine-tuned | lost |" for kept in sizes))
    print("| --- | --- |" + " ---: | ---: | ---: |" * len(sizes))
    for kind, scope, importance in dict.fromkeys((row["kind"], row["scope"], row["importance"]) for row in others):
        line = dict(kind=kind, scope=scope, importance=importance)
        figures = [cell for kept in sizes for cell in cells(results.get(**line, kept=kept), dense)]
        named = importance if kind == "cut" else f"{importance}, from scratch"
        print("| " + " | ".join([scope, named, *figures]) + " |")
    print()
    for kept in sizes:
        print_verdict(kept, [row for row in others if row["kept"] == kept and "accuracy" in row], dense)


def cells(row: dict[str, Any] | None, dense: dict[str, Any]) -> list[str]:
    """What the table says of a plan at one size."""
    if row is None:
        return ["", "", ""]
    after = f"{row['after_cut']:.2%}" if "after_cut" in row else ""
    return [after, *((f"{row['accuracy']:.2%}", f"{lost(row, dense):+.2f}") if "accuracy" in row else ("", ""))]


def lost(row: dict[str, Any], dense: dict[str, Any]) -> float:
    """Points of accuracy below the dense net."""
    return round(100 * (dense["accuracy"] - row["accuracy"]), 2)


def print_verdict(kept: float, rows: list[dict[str, Any]], dense: dict[str, Any]) -> None:
    cuts = [lost(row, dense) for row in rows if row["kind"] == "cut"]
    scratch = [lost(row, dense) for row in rows if row["kind"] == "from scratch"]
    if not cuts:
        return
    goal = GOALS.get(kept)
    met = "" if goal is None else f" (goal {goal}: {sum(one <= goal for one in cuts)} of {len(cuts)} plans meet it)"
    behind = f"; from scratch {scratch[0]:+.2f}, behind it {sum(one > scratch[0] for one in cuts)}" if scratch else ""
    print(f"{kept:.0%} of the MACs: points lost {min(cuts):+.2f} to {max(cuts):+.2f}{met}{behind}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--importances", nargs="+", choices=IMPORTANCES, default=list(IMPORTANCES))
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=list(SCOPES))
    parser.add_argument("--kept", nargs="+", type=float, default=list(GOALS), help="fractions of the MACs to keep")
    parser.add_argument("--epochs", type=int, default=10, help="of dense training")
    parser.add_argument("--fine-tune", type=int, default=6, help="epochs after each cut")
    parser.add_argument("--no-fine-tune", dest="fine_tune", action="store_const", const=0, help="the cuts alone")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    parser.add_argument("--quick", action="store_true", help="the sample, l2 and random, globally, 50 %%")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.importances, arguments.scopes, arguments.kept = ["l2", "random"], ["global"], [0.5]
    name = "channel_accuracy_quick" if arguments.quick else "channel_accuracy"
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    data = load(full=not arguments.quick)
    for net in arguments.nets:
        results = Results(folder / f"{net}.json", arguments.again)
        measure(net, data, arguments, results, folder)
        print_table(results)


if __name__ == "__main__":
    main()
