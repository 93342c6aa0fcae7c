"""What post-training quantization loses, and what calibration and equalization bring back, on Fashion-MNIST.

    python benchmarks/post_training.py [--nets inverted resnet8 ds_cnn] [--quantization int8 | int4]
                                       [--epochs 8] [--images 100] [--seeds 3] [--full]

Each net is trained once, on the sample inside the package (--full: on all of Fashion-MNIST). Its twins compute the
same, but the channels between their layers are multiplied by 2^U(-3, 3) and divided by it again where they are read, as
happens to nets in the wild: one twin for each seed. All are converted in each way, to int8 or int4, and the accuracy
is measured on the file, on all test images. Rows are added to benchmarks/out/post_training/NET.json as they come, and
those that are there are not made again (--again makes them). Goal: "auto" on the twins within 0.3 points of the float
net.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from channel_accuracy import LEARNING_RATE, Data, load, train
from results import Results

import edgeprune as ep
from edgeprune import flavor
from edgeprune.channels.graph.trace import trace
from edgeprune.models import BATCH_NORM_MOMENTUM, ds_cnn, resnet8
from edgeprune.quantization.channel_scales import ChannelScales
from edgeprune.quantization.scaled_weights import scaled_weights
from edgeprune.text_table import text_table

OUT = Path(__file__).parent / "out" / "post_training"
GOAL = 0.3  # points
WAYS = {
    "int8": ("min-max", "percentile", "mse", "equalize", "auto"),
    # Each weight at its nearest step; solved for on the images; what measures best, with layers that may keep 8 bits.
    "int4": ("nearest", "solved", "auto"),
}


def inverted_residuals(flavor_name: str = flavor.KERAS_3) -> Any:
    """MobileNetV2's inverted residual blocks, small, with ReLU; 34,074 parameters."""
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers

    def normalised(x: Any, relu: bool = True) -> Any:
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)
        return layers.ReLU()(x) if relu else x

    inputs = layers.Input((28, 28, 1), name="image")
    x = normalised(layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(inputs))
    for filters, strides in ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1)):
        y = normalised(layers.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x))
        y = normalised(layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(y))
        y = normalised(layers.Conv2D(filters, 1, use_bias=False)(y), relu=False)
        x = layers.Add()([x, y]) if x.shape == y.shape else y
    x = layers.GlobalAveragePooling2D()(normalised(layers.Conv2D(64, 1, use_bias=False)(x)))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="inverted")


NETS: dict[str, Callable[[], Any]] = {
    "inverted": inverted_residuals,
    "resnet8": resnet8,
    "ds_cnn": partial(ds_cnn, (28, 28, 1), 10),
}


def trained(name: str, data: Data, epochs: int) -> Any:
    """The trained net: from its file, or trained now."""
    path = OUT / f"{name}.keras"
    if path.exists():
        return flavor.load_model(path)
    flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(1)
    model = NETS[name]()
    train(model, data, epochs, LEARNING_RATE, name)
    model.save(path)
    return model


def unbalanced_twin(model: Any, seed: int) -> Any:
    """A net that computes the same, and whose channels differ in size."""
    scales = ChannelScales(trace(model))
    random = np.random.default_rng(seed)
    of_root = 2 ** random.uniform(-3, 3, len(scales.roots))
    free = np.array([reason is None for reason in scales.frozen])
    factors = np.where(free, of_root[scales.roots], 1.0)
    twin = flavor.keras_of(model).models.clone_model(model)
    new = {id(weight): values for call in scales.calls for weight, values in scaled_weights(call, factors)}
    for old, weight in zip(model.weights, twin.weights, strict=True):
        weight.assign(new.get(id(old), flavor.array_of(old)))
    return twin


def measure(model: Any, data: Data, images: int, quantization: str, results: Results, **key: Any) -> None:
    """The accuracy of a model's files, one for each way."""
    x = data.x_train[:images]
    for way in WAYS[quantization]:
        if results.get(**key, way=way):
            continue
        start = time.process_time()
        prepared = model
        if way == "equalize":
            prepared = ep.equalize(model, x).model
        elif way == "nearest":
            prepared = ep.quantize_aware(model, "int4", calibration=x)
        with tempfile.TemporaryDirectory() as folder:
            calibration = way if way in ("percentile", "mse", "auto") else "min-max"
            path = Path(folder) / "model.tflite"
            made = ep.export_tflite(
                prepared, path, quantization, x, calibration=calibration, verify=False, verbose=False
            )
            seconds = time.process_time() - start
            accuracy = ep.accuracy(path, data.x_test, data.y_test)
        row = {"accuracy": accuracy, "seconds": seconds, "gzip_bytes": made.gzip_bytes, "notes": list(made.notes)}
        results.add(**key, way=way, **row)


def table(net: str, quantization: str, results: Results) -> str:
    """Accuracy of each way: of the net, and of its twins the worst."""
    dense = results.get(kind="float")
    assert dense is not None
    rows = [("float", f"{100 * dense['accuracy']:.1f}", "", "", "", "")]
    for way in WAYS[quantization]:
        own = [row for row in results.rows if row.get("way") == way]
        plain = [100 * row["accuracy"] for row in own if row["kind"] == "net"]
        twins = [100 * row["accuracy"] for row in own if row["kind"] == "twin"]
        lost = 100 * dense["accuracy"] - min(twins)
        verdict = ("met" if lost <= GOAL + 1e-9 else "missed") if way == "auto" else ""
        seconds = np.median([row["seconds"] for row in own])
        size = f"{own[0]['gzip_bytes'] / 1000:.1f}"
        between = f"{min(twins):.1f} to {max(twins):.1f}"
        rows.append((way, f"{plain[0]:.1f}", between, size, f"{seconds:.1f}", verdict))
    header = (quantization, "accuracy", "twins", "kB gzip'd", "CPU seconds", f"goal {GOAL}")
    return f"{net}\n" + text_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--quantization", choices=WAYS, default="int8")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    data = load(args.full)
    for net in args.nets:
        suffix = "" if args.quantization == "int8" else f"_{args.quantization}"
        results = Results(OUT / f"{net}{suffix}.json", args.again)
        model = trained(net, data, args.epochs)
        if results.get(kind="float") is None:
            results.add(kind="float", accuracy=ep.accuracy(model, data.x_test, data.y_test))
        measure(model, data, args.images, args.quantization, results, kind="net")
        for seed in range(args.seeds):
            twin = unbalanced_twin(model, seed)
            measure(twin, data, args.images, args.quantization, results, kind="twin", seed=seed)
        print(table(net, args.quantization, results), flush=True)


if __name__ == "__main__":
    main()
