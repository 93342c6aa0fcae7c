"""Files as old versions of Keras wrote them, and their layers in NumPy."""

import json

import h5py
import numpy as np

import edgeprune as ep


def arrays():
    """What draws one array after the other."""
    random = np.random.default_rng(3)
    return lambda *shape: random.normal(0, 0.5, shape).astype("float32")


def write(path, config, weights, version, training=None, backend=None):
    """An .h5 file: attributes with the configuration, and a group of arrays for each layer."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        if version is not None:
            file.attrs["keras_version"] = version.encode()
        if backend is not None:
            file.attrs["backend"] = backend.encode()
        if training is not None:
            file.attrs["training_config"] = json.dumps(training).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        if version is not None and not version.startswith("1"):  # Keras 1 wrote it on the file alone
            group.attrs["keras_version"] = version.encode()
        for name, arrays in weights.items():
            layer = group.create_group(name)
            names = [f"{name}_{number}" for number in range(len(arrays))]
            layer.attrs["weight_names"] = [one.encode() for one in names]
            for one, values in zip(names, arrays, strict=True):
                layer.create_dataset(one, data=values)
    return path


def layer(kind, name, **config):
    trainable = {} if kind == "InputLayer" else {"trainable": True}
    return {"class_name": kind, "config": {"name": name, **trainable, **config}}


def sequential(*layers, version):
    listed = list(layers)
    return {"class_name": "Sequential", "config": listed if version < "2.2" else {"name": "net", "layers": listed}}


DENSE_1 = {
    "init": "glorot_uniform",
    "activation": "linear",
    "W_regularizer": None,
    "b_regularizer": None,
    "activity_regularizer": None,
    "W_constraint": None,
    "b_constraint": None,
    "bias": True,
    "input_dim": None,
}


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def valid_correlation(x, kernel):
    """A convolution of `(height, width, channels)` by `(rows, columns, channels, filters)` without padding."""
    rows, columns = kernel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), axis=(0, 1))
    return np.einsum("hwcij,ijcf->hwf", windows, kernel)


def predicted(path, x):
    with np.errstate(all="raise"):
        return ep.load_model(path)(x).numpy()


def lstm_in_numpy(x, kernels, recurrents, biases):
    """An LSTM whose gates are given by name, with the hard sigmoid that Keras had."""
    state = memory = np.zeros((len(x), recurrents["i"].shape[0]), "float32")
    for step in range(x.shape[1]):
        gate = {name: x[:, step] @ kernels[name] + state @ recurrents[name] + biases[name] for name in "ifco"}
        memory = hard_sigmoid(gate["f"]) * memory + hard_sigmoid(gate["i"]) * np.tanh(gate["c"])
        state = hard_sigmoid(gate["o"]) * np.tanh(memory)
    return state
