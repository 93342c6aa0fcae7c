"""A bundle takes each step once: what is expensive is not done again for another of its parts."""

from collections import Counter

import keras
import numpy as np
import pytest

import edgeprune as ep
from edgeprune.channels import callback
from edgeprune.export import convert, representative
from edgeprune.tflite import runtime


@pytest.fixture
def steps(monkeypatch):
    """How often each step was taken."""
    taken = Counter()

    def counted(module, name):
        original = getattr(module, name)

        def step(*args, **kwargs):
            taken[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, step)

    for module, name in [
        (callback, "strip_channels"),
        (convert, "run_converter"),
        (convert, "verify_tflite"),
        (representative, "samples"),
        (runtime.Runtime, "__init__"),
    ]:
        counted(module, name)
    return taken


# Interpreters: one verifies; the golden vectors, timings and parity with other kernels need settings of their own.
@pytest.mark.parametrize("target, interpreters", [("phone", 4), ("cortex-m", 6)])
def test_each_step_is_taken_once(steps, tmp_path, target, interpreters):
    if target == "cortex-m":
        pytest.importorskip("tflite_micro")
    rng = np.random.default_rng(0)
    x, y = rng.random((16, 4), np.float32), rng.integers(0, 3, 16)
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    pruning = ep.ChannelPruning(ep.ConstantSparsity(0.5, 0, -1, 1), pruning_ratio=0.5)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[pruning])

    bundle = ep.export_bundle(model, tmp_path / "bundle", target, x, validation_data=(x, y), quantization="int8")

    assert bundle.verification.parameters.total < model.count_params()  # masked channels are gone
    assert bundle.verification.samples == len(x)
    interpreters_opened = steps.pop("__init__")
    assert steps == dict.fromkeys(("strip_channels", "run_converter", "verify_tflite", "samples"), 1)
    assert interpreters_opened <= interpreters
