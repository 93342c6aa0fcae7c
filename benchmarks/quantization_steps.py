"""What quantization-aware training costs: time of a step over that of plain `fit`: `quantization.py --step-time`.

The ratio of CPU time says more where other processes run; it is that of all threads of this process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from quantization_peers import Absent, tfmot_model

import edgeprune as ep
from edgeprune import flavor
from edgeprune.models import resnet8
from edgeprune.progress import track
from edgeprune.text_table import text_table

GOAL = 1.3


def mobilenet_v2(flavor_name: str) -> Any:
    keras = flavor.keras_module(flavor_name)
    return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)


MODELS: dict[str, tuple[Callable[[str], Any], int]] = {
    "ResNet-8": (lambda flavor_name: resnet8(flavor=flavor_name), 32),
    "MobileNetV2 0.35 at 96": (mobilenet_v2, 16),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda model: model,
    "int8": lambda model: ep.quantize_aware(model, "int8"),
    "int4": lambda model: ep.quantize_aware(model, "int4"),
    "TF-MOT": lambda model: tfmot_model(model),
}


class Timed:
    """One compiled model, and the seconds of a step in each round."""

    def __init__(self, model: Any, batch_size: int) -> None:
        self.model = model
        model.compile("adam", "sparse_categorical_crossentropy")
        rng = np.random.default_rng(0)
        x = rng.random((4 * batch_size, *model.input_shape[1:]), np.float32)
        data = tf.data.Dataset.from_tensor_slices((x, rng.integers(0, 10, len(x)))).batch(batch_size)
        options = tf.data.Options()
        options.autotune.enabled = False  # on a busy core `fit` waits for its thread, whose period doubles from 10 ms
        self.data = data.cache().repeat().prefetch(2).with_options(options)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def run(self, steps: int) -> None:
        start, cpu_start = time.perf_counter(), time.process_time()
        self.model.fit(self.data, steps_per_epoch=steps, verbose=0)
        self.seconds.append((time.perf_counter() - start) / steps)
        self.cpu_seconds.append((time.process_time() - cpu_start) / steps)


def step_times(title: str, rounds: int, steps: int) -> list[dict[str, Any]]:
    """A row for each Keras and way: ratios to plain `fit` of the same round, in an order that is shuffled again."""
    build, batch_size = MODELS[title]
    timed: dict[tuple[str, str], Timed] = {}
    for keras in (flavor.KERAS_3, flavor.TF_KERAS):
        for way, prepare in WAYS.items():
            if way == "TF-MOT" and keras == flavor.KERAS_3:
                continue
            try:
                timed[keras, way] = Timed(prepare(build(keras)), batch_size)
            except Absent as error:
                print(f"{title}, {way}: left out, {error}", flush=True)
    order = list(timed.values())
    for one in track(order, f"{title}: compiling"):
        one.run(3)
        one.seconds.clear()
        one.cpu_seconds.clear()
    for _ in track(range(rounds), f"{title}: {rounds} rounds"):
        random.shuffle(order)
        for one in order:
            one.run(steps)
    rows = []
    for (keras, way), one in timed.items():
        ratios = np.array(one.seconds) / np.array(timed[keras, "plain"].seconds)
        low, ratio, high = (float(number) for number in np.quantile(ratios, [0.25, 0.5, 0.75]))
        cpu = float(np.median(np.array(one.cpu_seconds) / np.array(timed[keras, "plain"].cpu_seconds)))
        figures = {"ms": float(np.median(one.seconds) * 1e3), "ratio": ratio, "low": low, "high": high, "cpu": cpu}
        rows.append({"keras": keras, "way": way, **figures})
    return rows


def step_table(title: str, rows: list[dict[str, Any]], rounds: int, steps: int) -> str:
    """The rows beside the goal."""
    lines = []
    for row in rows:
        ours = row["way"] in ("int8", "int4")
        goal = f"{GOAL} {'met' if row['ratio'] <= GOAL else 'missed'}" if ours else ""
        middle = f"{row['low']:.2f} to {row['high']:.2f}"
        lines.append(
            (row["keras"], row["way"], f"{row['ms']:.2f}", f"{row['ratio']:.2f}", middle, f"{row['cpu']:.2f}", goal)
        )
    heads = ("Keras", "training", "ms a step", "ratio", "middle half", "of CPU time", "goal")
    return f"{title}, {rounds} rounds of {steps} steps\n" + text_table(heads, lines, left=(0, 1))
