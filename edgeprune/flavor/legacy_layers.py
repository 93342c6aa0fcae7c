"""Layers of Keras 1 that later versions do not have, built of layers that they do: small models in their place.

Source: `MaxoutDense` and `Highway` of Keras 1.2.2, in `keras/layers/core.py` and `keras/legacy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py


def replaced_layers(layers: list[Any], weights: h5py.Group) -> list[Any]:
    """The layers' descriptions with small models for those that can be built of others.

    Args:
        layers: those of a model, not of one nested in it.
        weights: the group of an `.h5` file with its weights, which are put in the order of the new models.
    """
    new = [_replaced(layer, weights) for layer in layers]
    first = layers[0].get("config", {}) if layers else {}
    if new[:1] != layers[:1] and "inbound_nodes" not in layers[0] and "batch_input_shape" in first:
        # A Sequential model does not have the shape of a model that it begins with.
        given = _layer("InputLayer", f"{first['name']}_given", batch_input_shape=first["batch_input_shape"])
        return [given, *new]
    return new


def _replaced(layer: dict[str, Any], weights: h5py.Group) -> dict[str, Any]:
    build = _BUILT.get(layer.get("class_name"))
    name = layer.get("config", {}).get("name", layer.get("name"))
    if build is None or name not in weights:
        return layer
    group = weights[name]
    keys = [key.decode() if isinstance(key, bytes) else key for key in group.attrs["weight_names"]]
    model, arrays = build(layer["config"], name, [group[key][()] for key in keys])
    for key in keys:
        del group[key]
    names = [f"{name}_{number}" for number in range(len(arrays))]
    for one, values in zip(names, arrays, strict=True):
        group.create_dataset(one, data=values)
    group.attrs["weight_names"] = [one.encode() for one in names]
    return {**layer, **model}


def _maxout(config: Mapping[str, Any], name: str, stored: list[np.ndarray]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The largest of several dense layers, unit by unit: one wide layer and a maximum."""
    kernel, *bias = stored  # (features, inputs, units), and (features, units)
    features, inputs, units = kernel.shape
    layers = [
        _layer("InputLayer", f"{name}_input", batch_input_shape=[None, inputs]),
        _dense(f"{name}_dense", features * units, config, use_bias=bool(bias)),
        _layer("Reshape", f"{name}_features", target_shape=[features, units]),
        _layer("GlobalMaxPooling1D", f"{name}_largest"),
    ]
    arrays = [kernel.transpose(1, 0, 2).reshape(inputs, -1), *(one.reshape(-1) for one in bias)]
    return {"class_name": "Sequential", "config": {"name": name, "layers": layers}}, arrays


def _highway(config: Mapping[str, Any], name: str, stored: list[np.ndarray]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """A dense layer whose output a gate mixes with its input."""
    kernel, gate_kernel, *biases = stored
    units = len(kernel)
    given, dense, gate, rest, new, old, both = (
        f"{name}_{part}" for part in ("input", "dense", "gate", "rest", "new", "old", "both")
    )
    calls = {
        given: (_layer("InputLayer", given, batch_input_shape=[None, units]), []),
        gate: (_dense(gate, units, config, activation="sigmoid", use_bias=bool(biases)), [given]),
        dense: (_dense(dense, units, config, activation=config["activation"], use_bias=bool(biases)), [given]),
        rest: (_layer("Rescaling", rest, scale=-1.0, offset=1.0), [gate]),
        new: (_layer("Multiply", new), [dense, gate]),
        old: (_layer("Multiply", old), [given, rest]),
        both: (_layer("Add", both), [new, old]),
    }
    layers = [
        {**layer, "name": one, "inbound_nodes": [[[feed, 0, 0, {}] for feed in feeds]] if feeds else []}
        for one, (layer, feeds) in calls.items()
    ]
    model = {"name": name, "layers": layers, "input_layers": [[given, 0, 0]], "output_layers": [[both, 0, 0]]}
    return {"class_name": "Functional", "config": model}, [gate_kernel, *biases[1:], kernel, *biases[:1]]


def _dense(name: str, units: int, old: Mapping[str, Any], **config: object) -> dict[str, Any]:
    regularizers = {key: old[key] for key in ("W_regularizer", "b_regularizer") if old.get(key)}
    return _layer("Dense", name, units=units, **regularizers, **config)


def _layer(kind: str, name: str, **config: object) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


_BUILT: dict[Any, Callable[..., tuple[dict[str, Any], list[np.ndarray]]]] = {
    "Highway": _highway,
    "MaxoutDense": _maxout,
}
