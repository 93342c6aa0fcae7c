"""`.h5` files of Keras 1 and 2, in the words that `tf_keras` reads.

`tf_keras` converts the weights of such files itself (kernels of Keras 1, gates of recurrent layers, cuDNN layouts), but
not the names that Keras 1 had for layers and arguments. Those are translated here, in a copy in memory.
Source: the layers of Keras 1.2.2, and the renamings in `keras/legacy/interfaces.py` of Keras 2.0 to 2.2.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.flavor.legacy_layers import replaced_layers

if TYPE_CHECKING:
    import h5py


class UntranslatableError(ValueError):
    """A file holds a layer of an old Keras that no layer of today computes the same as."""


_LAYERS = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}
_GONE = {
    "GraphModel",
    "Graph",
    "Highway",
    "MaxoutDense",
    "ParametricSoftplus",
    "SReLU",
    "Siamese",
    "WordContextProduct",
}
_RECURRENT = {"SimpleRNN", "GRU", "LSTM", "ConvLSTM2D"}
_MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}

# Arguments that only changed their name. Those of single layers go first.
_OF_LAYER = {
    "Dropout": {"p": "rate"},
    "Embedding": {"W_regularizer": "embeddings_regularizer", "W_constraint": "embeddings_constraint"},
    "GaussianDropout": {"p": "rate"},
    "GaussianNoise": {"sigma": "stddev"},
    "SpatialDropout1D": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "SpatialDropout3D": {"p": "rate"},
    "UpSampling1D": {"length": "size"},
}
_EVERYWHERE = {
    "W_constraint": "kernel_constraint",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "atrous_rate": "dilation_rate",
    "b_constraint": "bias_constraint",
    "b_regularizer": "bias_regularizer",
    "bias": "use_bias",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "dropout_U": "recurrent_dropout",
    "dropout_W": "dropout",
    "filter_length": "kernel_size",
    "inner_activation": "recurrent_activation",
    "input_dtype": "dtype",
    "nb_filter": "filters",
    "output_dim": "units",
    "pool_length": "pool_size",
    "stride": "strides",
    "subsample": "strides",
    "subsample_length": "strides",
}
_KERNEL_SIDES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
# Initial values, which the file's weights replace, and what layers now find out by themselves.
_DROPPED = {"beta_init", "consume_less", "forget_bias_init", "gamma_init", "init", "inner_init", "input_length"}
_DROPPED |= {"output_shape", "mode", "input_dim", "create_input_layer", "weights"}
_KEPT = {"Embedding": {"input_dim", "input_length"}}
_DATA_FORMATS = {"th": "channels_first", "tf": "channels_last", "default": "channels_last"}
_CONSTRAINTS = {"maxnorm": "MaxNorm", "nonneg": "NonNeg", "unitnorm": "UnitNorm"}


def written_by(path: Path) -> str | None:
    """The major version of the Keras that wrote a `.keras` or `.h5` file, such as `"2"`; `None` if it is unknown."""
    import h5py

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("metadata.json"))["keras_version"].partition(".")[0]
        with h5py.File(path, "r") as file:
            return _version(file)
    except Exception:  # a damaged file, which the readers report
        return None


@contextlib.contextmanager
def translated(path: Path) -> Iterator[Any]:
    """A copy in memory of an `.h5` file of Keras 1 or 2, which `tf_keras` can load; `None` for other files.

    Raises:
        UntranslatableError: a layer has no counterpart; the message names it.
    """
    if zipfile.is_zipfile(path) or path.is_dir() or written_by(path) not in ("1", "2"):
        yield None
        return
    import h5py

    with h5py.File(io.BytesIO(path.read_bytes()), "r+") as file:
        version = _version(file)
        configuration = json.loads(file.attrs["model_config"])
        _replace_layers(configuration, file)
        file.attrs["model_config"] = json.dumps(_translate(configuration, version == "1"))
        _translate_training(file, version == "1")
        if version == "2" and _text(file, "backend") == "theano":
            _flip_kernels(file["model_weights"], configuration)
        yield file


def _replace_layers(configuration: dict[str, Any], file: h5py.File) -> None:
    """Put small models in the place of the model's own layers that Keras no longer has."""
    config = configuration["config"]
    layers = config if isinstance(config, list) else config["layers"]  # a Sequential model once was a list
    layers[:] = replaced_layers(layers, file["model_weights"])


def _version(file: h5py.File) -> str | None:
    if "model_config" not in file.attrs:
        return None
    return (_text(file, "keras_version") or "1").partition(".")[0]  # Keras 1.0 wrote none


def _text(file: h5py.File, name: str) -> str:
    value = file.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _translate(part: object, keras_1: bool) -> Any:
    """A configuration with every layer in it, at any depth, translated."""
    if isinstance(part, list):
        return [_translate(entry, keras_1) for entry in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "function" and isinstance(part.get("config"), str):
        return part["config"]  # `tf_keras` writes a custom function into .h5 files like this, and reads names alone
    part = {key: _translate(value, keras_1) for key, value in part.items()}
    if isinstance(part.get("class_name"), str) and isinstance(part.get("config"), dict):
        part = _translate_layer(part, keras_1)
    return part


def _translate_layer(layer: dict[str, Any], keras_1: bool) -> dict[str, Any]:
    kind, config = layer["class_name"], dict(layer["config"])
    name = config.get("name", layer.get("name"))
    if kind in _GONE:
        raise UntranslatableError(f"layer {name!r} is a {kind}, a layer of Keras 1 that later versions do not have.")
    if kind == "Merge":
        return {**layer, **_merge(config, name)}
    if kind in ("CuDNNGRU", "CuDNNLSTM"):
        config = {**config, "recurrent_activation": "sigmoid", "reset_after": True}
        if kind == "CuDNNLSTM":
            del config["reset_after"]
    elif kind == "GRU":
        config.setdefault("reset_after", False)  # as GRU layers were before they had the argument
    kind = _LAYERS.get(kind, kind)
    return {**layer, "class_name": kind, "config": _arguments(kind, config, name) if keras_1 else config}


def _arguments(kind: str, old: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The arguments of a layer of Keras 1 under the names they have now."""
    if kind == "BatchNormalization" and old.get("mode", 0) != 0:
        raise UntranslatableError(
            f"layer {name!r} is a BatchNormalization with mode={old['mode']}, which later versions do not have; "
            "only mode=0 has a counterpart."
        )
    names = {**_EVERYWHERE, **_OF_LAYER.get(kind, {})}
    if kind == "Embedding":
        names.pop("output_dim")
        old = {key: value for key, value in old.items() if key != "dropout"}  # of training only
    if kind in ("UpSampling1D", "Embedding"):
        names.pop("bias")
    dropped = _DROPPED - _KEPT.get(kind, set())
    if kind != "InputLayer":
        dropped = {*dropped, "input_dtype"}  # that of the indices, with an Embedding
    new = {names.get(key, key): value for key, value in old.items() if key not in dropped}
    for sides in _KERNEL_SIDES:
        if sides[0] in new:
            new["kernel_size"] = [new.pop(side) for side in sides]
    if "forget_bias_init" in old:
        new["unit_forget_bias"] = old["forget_bias_init"] in ("one", "ones")
    if "data_format" in new:
        new["data_format"] = _DATA_FORMATS.get(new["data_format"], new["data_format"])
    for key, value in new.items():
        if key.endswith("_regularizer") and isinstance(value, dict):
            new[key] = _regularizer(value, name)
        elif key.endswith("_constraint") and isinstance(value, dict):
            new[key] = _constraint(value, name)
    return new


def _merge(config: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """The layer that a Merge has become."""
    mode = config.get("mode")
    if config.get("layers"):
        raise UntranslatableError(
            f"layer {name!r} is a Merge of whole models at the start of a Sequential model. Write the model as a "
            "functional one, and load the weights into it."
        )
    if mode in _MERGES:
        more = {"axis": config.get("concat_axis", -1)} if mode == "concat" else {}
        return {"class_name": _MERGES[mode], "config": {"name": name, **more}}
    if mode in ("dot", "cos"):
        axes = config.get("dot_axes", -1)
        return {"class_name": "Dot", "config": {"name": name, "axes": axes, "normalize": mode == "cos"}}
    raise UntranslatableError(f"layer {name!r} is a Merge with mode={mode!r}, which has no counterpart.")


def _regularizer(old: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    if "class_name" in old:
        return dict(old)
    if "l1" in old or "l2" in old:
        return {"class_name": "L1L2", "config": {"l1": old.get("l1", 0.0), "l2": old.get("l2", 0.0)}}
    raise UntranslatableError(f"layer {name!r} has the regularizer {old.get('name')!r}, which has no counterpart.")


def _constraint(old: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    if "class_name" in old:
        return dict(old)
    kind = _CONSTRAINTS.get(str(old.get("name", "")).lower())
    if kind is None:
        raise UntranslatableError(f"layer {name!r} has the constraint {old.get('name')!r}, which has no counterpart.")
    renamed = {"m": "max_value"}
    return {"class_name": kind, "config": {renamed.get(key, key): old[key] for key in old if key != "name"}}


def _translate_training(file: h5py.File, keras_1: bool) -> None:
    """The loss, the metrics and the optimizer's arguments; its state in Keras 1 is of another layout and is dropped."""
    training = _translate(json.loads(_text(file, "training_config") or "null"), keras_1=False)
    config = (training or {}).get("optimizer_config", {}).get("config")
    if keras_1:
        file.pop("optimizer_weights", None)
    if isinstance(config, dict) and "lr" in config:
        config["learning_rate"] = config.pop("lr")
    for key in ("clipnorm", "clipvalue", "decay"):
        if isinstance(config, dict) and not config.get(key):
            config.pop(key, None)
    if training:
        file.attrs["training_config"] = json.dumps(training)


def _flip_kernels(weights: h5py.Group, configuration: object) -> None:
    """Turn the kernels of convolutions around: Theano convolved, TensorFlow correlates."""
    for name in _convolutions(configuration):
        for key in weights[name].attrs["weight_names"] if name in weights else ():
            stored = weights[name][key.decode() if isinstance(key, bytes) else key]
            if stored.ndim > 2:  # a bias has no sides to turn around
                stored[()] = stored[()][(slice(None, None, -1),) * (stored.ndim - 2)]


def _convolutions(part: object) -> Iterator[str]:
    if isinstance(part, list):
        for entry in part:
            yield from _convolutions(entry)
    elif isinstance(part, dict):
        kind, config = part.get("class_name"), part.get("config")
        if isinstance(kind, str) and "Conv" in kind and isinstance(config, dict) and "name" in config:
            yield config["name"]
        for value in part.values():
            yield from _convolutions(value)
