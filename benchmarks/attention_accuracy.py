"""What heads, channels inside heads and both cost in accuracy at equal MACs, and the reductions of a score.

    python benchmarks/attention_accuracy.py [--seeds 2] [--epochs 10] [--fine-tune 2] [--again]

A small vision transformer (16 patches of 7 x 7, two blocks) is trained on the Fashion-MNIST sample inside the package,
once for each seed. It is cut in three ways: only the attention layers lose channels, by what `attention=` says; every
layer does; and, with whole heads, by each `reduction=` ("mean" chooses as "sum" does, see `plan_channels`). What is
compared has the same MACs, as near as whole heads come. Accuracy on the 1,000 test images is measured right after the
cut and after a short fine-tune on the labels. Rows are added to benchmarks/out/attention_accuracy.json as they come;
the table gives the mean and the range over the seeds. Of 1,000 images one is 0.1 points.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from results import Results

import edgeprune as ep
from edgeprune import flavor
from edgeprune.channels.plan.selection import ATTENTION
from edgeprune.fit import fit

OUT = Path(__file__).parent / "out" / "attention_accuracy.json"
WIDTH, BLOCKS, HEADS, DEPTH = 48, 2, 4, 16
BATCH_SIZE = 128
SCORED_ON = 1024  # images, for "taylor"
# What is cut besides `target_macs=`: by a name for the table.
CUTS: dict[str, dict[str, Any]] = {
    **{f"attention layers, {mode}": dict(target_macs=0.8, attention=mode, only_attention=True) for mode in ATTENTION},
    **{f"all layers, {mode}": dict(target_macs=0.5, attention=mode) for mode in ATTENTION},
    **{
        f"{importance}, {reduction}": dict(target_macs=0.5, importance=importance, reduction=reduction)
        for importance in ("l2", "taylor")
        for reduction in ("sum", "max", "l2")
    },
}


def transformer() -> Any:
    """A net on patches (16, 49) without places of their own: two blocks of attention and a perceptron."""
    keras = flavor.keras_module(flavor.KERAS_3)
    layers = keras.layers
    inputs = keras.Input((16, 49), name="patches")
    x = layers.Dense(WIDTH, name="embedding")(inputs)
    for number in range(BLOCKS):
        y = layers.LayerNormalization(name=f"norm{number}a")(x)
        x = layers.Add()([x, layers.MultiHeadAttention(HEADS, DEPTH, name=f"attention{number}")(y, y)])
        y = layers.LayerNormalization(name=f"norm{number}b")(x)
        y = layers.Dense(2 * WIDTH, activation="gelu", name=f"wide{number}")(y)
        x = layers.Add()([x, layers.Dense(WIDTH, name=f"narrow{number}")(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(x), name="transformer")


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The sample as patches (n, 16, 49) of float32 from 0 to 1, and labels."""
    return tuple((patches(images), labels) for images, labels in ep.load_fashion_mnist())


def patches(images: np.ndarray) -> np.ndarray:
    cut = images.reshape(-1, 4, 7, 4, 7).transpose(0, 1, 3, 2, 4)
    return cut.reshape(len(images), 16, 49).astype(np.float32) / 255


def train(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, rate: float, seed: int, title: str) -> None:
    """Train with a learning rate that falls to zero on a cosine."""
    keras = flavor.keras_of(model)
    steps = epochs * -(-len(x) // BATCH_SIZE)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    keras.utils.set_random_seed(seed)
    fit(model, x, y, epochs=epochs, batch_size=BATCH_SIZE, description=title)


def cut(model: Any, data: Any, only_attention: bool = False, **settings: Any) -> Any:
    """A smaller net, planned on the first training images where the importance needs any."""
    others = ("embedding", "wide*") if only_attention else ()
    images = tuple(array[:SCORED_ON] for array in data)
    return ep.plan_channels(model, ignore=others, data=images, **settings).apply()


def measure(seed: int, arguments: argparse.Namespace, results: Results) -> None:
    """Train the net and cut it in every way."""
    (x, y), test = load()
    flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(seed)
    model = transformer()
    train(model, x, y, arguments.epochs, 3e-3, seed, f"dense, seed {seed}")
    macs = ep.count_macs(model).total
    results.add(seed=seed, cut="dense", macs=macs, after_cut=ep.accuracy(model, *test), tuned=ep.accuracy(model, *test))
    for name, settings in CUTS.items():
        smaller = cut(model, (x, y), **settings)
        row = results.add(seed=seed, cut=name, macs=ep.count_macs(smaller).total, after_cut=ep.accuracy(smaller, *test))
        train(smaller, x, y, arguments.fine_tune, 1.5e-3, seed, f"{name}, seed {seed}")
        results.update(row, tuned=ep.accuracy(smaller, *test))


def print_table(results: Results) -> None:
    """A line for each cut: the mean over the seeds, with the lowest and the highest."""
    print("| Cut | MACs | right after the cut | fine-tuned |\n| --- | ---: | ---: | ---: |")
    for name in dict.fromkeys(row["cut"] for row in results.rows):
        rows = [row for row in results.rows if row["cut"] == name and "tuned" in row]
        figures = [spread([row[when] for row in rows]) for when in ("after_cut", "tuned")]
        print(f"| {name} | {np.mean([row['macs'] for row in rows]):,.0f} | {figures[0]} | {figures[1]} |")


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="how many nets are trained and cut")
    parser.add_argument("--epochs", type=int, default=10, help="of dense training")
    parser.add_argument("--fine-tune", type=int, default=2, help="epochs after each cut")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    arguments = parser.parse_args()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    results = Results(OUT, arguments.again)
    for seed in range(arguments.seeds):
        done = [row for row in results.rows if row["seed"] == seed and "tuned" in row]
        if len(done) <= len(CUTS):  # a seed that was stopped begins again
            results.remove(seed=seed)
            measure(seed, arguments, results)
    print_table(results)


if __name__ == "__main__":
    main()
