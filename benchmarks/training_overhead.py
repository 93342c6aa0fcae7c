"""What pruning costs while training: time per step of a pruned `fit` over a plain one, on both Kerases.

    python benchmarks/training_overhead.py [--rounds 9] [--quick]

Each configuration keeps its own compiled model. A round runs one `fit` of every configuration, in an order that
is shuffled again; a ratio is taken within its round, so that a slow moment of the machine hits both sides. The
table shows the median over the rounds and the middle half of them. On `tf_keras` the masks are TF-MOT's own.
Results go to benchmarks/out/training_overhead.json too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import edgeprune as ep
from edgeprune import flavor
from edgeprune.progress import track

FREQUENCIES = (1, 10, 100)
GOALS = {1: 1.15, 10: 1.02, 100: 1.02}
OUT = Path(__file__).parent / "out" / "training_overhead.json"


def small_cnn(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def mobilenet_v2(keras):
    return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)


MODELS = {"small CNN": (small_cnn, 64), "MobileNetV2 0.35 at 96": (mobilenet_v2, 16)}


class Configuration:
    """One model under `fit`, plain or pruned, and the seconds a step took in each round."""

    def __init__(self, build, flavor_name, batch_size, steps, frequency, rounds):
        keras = flavor.keras_module(flavor_name)
        keras.utils.set_random_seed(0)
        self.model = build(keras)
        self.callbacks = []
        if frequency:
            # Sparsity grows over all rounds, so that every update changes the masks.
            schedule = ep.PolynomialDecay(0.0, 0.8, 0, steps * (rounds + 1), frequency=frequency)
            self.model = ep.prune_low_magnitude(self.model, schedule)
            self.callbacks = [ep.UpdatePruningStep()]
        self.model.compile("adam", "sparse_categorical_crossentropy")
        rng = np.random.default_rng(0)
        x = rng.random((4 * batch_size, *self.model.input_shape[1:]), np.float32)
        data = tf.data.Dataset.from_tensor_slices((x, rng.integers(0, 10, len(x)))).batch(batch_size)
        self.data = data.cache().repeat().prefetch(2)
        self.steps = steps
        self.seconds = []

    def run(self, steps=None):
        steps = steps or self.steps
        start = time.perf_counter()
        self.model.fit(self.data, steps_per_epoch=steps, verbose=0, callbacks=self.callbacks)
        return (time.perf_counter() - start) / steps


def measure(title, build, batch_size, steps, rounds):
    configurations = {
        (name, frequency): Configuration(build, name, batch_size, steps, frequency, rounds)
        for name in (flavor.KERAS_3, flavor.TF_KERAS)
        for frequency in (None, *FREQUENCIES)
    }
    order = list(configurations.values())
    for configuration in track(order, f"{title}: compiling"):
        configuration.run(3)
    for _ in track(range(rounds), f"{title}: {rounds} rounds"):
        random.shuffle(order)
        for configuration in order:
            configuration.seconds.append(configuration.run())
    return configurations


def summarize(configurations):
    rows = []
    for (name, frequency), configuration in configurations.items():
        plain = np.array(configurations[name, None].seconds)
        ratios = np.array(configuration.seconds) / plain
        low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rows.append(
            {
                "keras": name,
                "frequency": frequency,
                "milliseconds": float(np.median(configuration.seconds) * 1e3),
                "ratio": float(median),
                "ratio_low": float(low),
                "ratio_high": float(high),
            }
        )
    return rows


def print_table(title, rows):
    table = Table(title=title)
    for column in ("Keras", "masks", "every", "ms a step", "ratio to plain fit", "middle half", "goal"):
        table.add_column(column, justify="left" if column in ("Keras", "masks") else "right")
    for row in rows:
        pruned, keras_3 = row["frequency"] is not None, row["keras"] == flavor.KERAS_3
        goal = GOALS[row["frequency"]] if pruned and keras_3 else None
        met = "" if goal is None else f"{goal:.2f} {'met' if row['ratio'] <= goal else 'missed'}"
        table.add_row(
            row["keras"],
            ("edgeprune" if keras_3 else "TF-MOT") if pruned else "none",
            f"{row['frequency']} steps" if pruned else "",
            f"{row['milliseconds']:.2f}",
            f"{row['ratio']:.3f}",
            f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}",
            met,
        )
    Console(width=100).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 20 steps: a look, not a measurement")
    arguments = parser.parse_args()
    rounds, steps = (3, 20) if arguments.quick else (arguments.rounds, 100)
    results = {}
    warnings.simplefilter(
        "ignore"
    )  # each short fit ends before its schedule's next update, and Keras speaks of shuffling
    for title, (build, batch_size) in MODELS.items():
        results[title] = summarize(measure(title, build, batch_size, steps, rounds))
        print_table(f"{title}, batch {batch_size}, {rounds} rounds of {steps} steps", results[title])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"rounds": rounds, "steps": steps, "models": results}, indent=1))


if __name__ == "__main__":
    main()
