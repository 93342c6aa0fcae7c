"""Models and data that commands are tried on."""

from __future__ import annotations

import numpy as np
import pytest
from cli.invoked import run_ok, tiny_model

from edgeprune import flavor


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Data, a trained compiled model and an uncompiled one, in every format, of both Kerases."""
    folder = tmp_path_factory.mktemp("cli")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(240, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "split.npz", x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    np.savez(folder / "targets.npz", x=x, y=x[:, :3])
    np.savez(folder / "unlabelled.npz", x=x)
    np.savez(folder / "wide.npz", x=np.zeros((8, 7), np.float32), y=np.zeros(8, np.int64))
    for name in (flavor.KERAS_3, flavor.TF_KERAS):
        keras = flavor.keras_module(name)
        model = tiny_model(keras)
        model.save(folder / f"{name}_uncompiled.keras")
        model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
        model.fit(x[:160], y[:160], epochs=10, verbose=0)
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
    model.save(folder / "saved_model")
    several = [keras.Input((2,), name="left"), keras.Input((2,), name="right")]
    keras.Model(several, keras.layers.Add()(several), name="pair").save(folder / "pair.h5")
    (folder / "damaged.keras").write_bytes(b"not a model")
    (folder / "damaged.npz").write_bytes(b"not an archive")
    return folder


@pytest.fixture(scope="session")
def tflite(folder):
    """The Keras 3 model as a float32 file."""
    run_ok("convert", folder / "keras.keras", "-o", folder / "float.tflite")
    return folder / "float.tflite"
