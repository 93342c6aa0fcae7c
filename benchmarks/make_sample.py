"""Make the sample of Fashion-MNIST inside the package from the full set.

python benchmarks/make_sample.py [FOLDER]

Every class gives equally many images, chosen with a fixed seed; the result is the same file every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgeprune.atomic import atomic_path
from edgeprune.datasets import CLASS_NAMES, load_fashion_mnist

SEED = 2017
TRAIN_IMAGES, TEST_IMAGES = 5_000, 1_000
TARGET = Path(__file__).parents[1] / "edgeprune" / "data" / "fashion_mnist_sample.npz"


def balanced(y: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `count` images, the same number of each class, in random order."""
    each = count // len(CLASS_NAMES)
    chosen = [rng.choice(np.flatnonzero(y == label), each, replace=False) for label in range(len(CLASS_NAMES))]
    return rng.permutation(np.concatenate(chosen))


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    (x_train, y_train), (x_test, y_test) = load_fashion_mnist(full=True, directory=folder)
    rng = np.random.default_rng(SEED)
    train = balanced(y_train, TRAIN_IMAGES, rng)
    test = balanced(y_test, TEST_IMAGES, rng)
    with atomic_path(TARGET) as path:
        np.savez_compressed(
            path, x_train=x_train[train], y_train=y_train[train], x_test=x_test[test], y_test=y_test[test]
        )
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
