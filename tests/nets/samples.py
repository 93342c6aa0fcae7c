"""Random samples and labels; the same whenever they are asked for, so that no test changes what another one gets."""

import numpy as np


def numbers(*shape, seed=0):
    """Normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def labelled(*shape, classes=3, seed=0):
    """As many samples as `shape` begins with, and a label for each; read-only, for tests share them."""
    x, y = numbers(*shape, seed=seed), np.random.default_rng(seed + 1).integers(0, classes, shape[0])
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y
