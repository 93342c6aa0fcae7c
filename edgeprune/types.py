"""The types in edgeprune's signatures: models and layers of either Keras, arrays, data, paths and choices.

Editors and type checkers see unions of the real classes of `keras` 3, `tf_keras` and TensorFlow. When the program runs,
what belongs to one of those packages is `Any`, so that importing this module imports none of them.

Example:
    >>> import edgeprune as ep
    >>> def kernel_of(model: ep.types.Model, name: str) -> ep.types.Variable:
    ...     return model.get_layer(name).kernel
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
    import tf_keras
    from numpy.typing import ArrayLike

    Model: TypeAlias = keras.Model | tf_keras.Model
    Layer: TypeAlias = keras.layers.Layer | tf_keras.layers.Layer
    Variable: TypeAlias = keras.Variable | tf.Variable
    TfTensor: TypeAlias = tf.Tensor
    AnyTensor: TypeAlias = tf.Tensor | keras.KerasTensor
    Callback: TypeAlias = keras.callbacks.Callback | tf_keras.callbacks.Callback
    Optimizer: TypeAlias = keras.optimizers.Optimizer | tf_keras.optimizers.Optimizer
    Schedule: TypeAlias = (
        keras.optimizers.schedules.LearningRateSchedule | tf_keras.optimizers.schedules.LearningRateSchedule
    )
    KerasLoss: TypeAlias = keras.losses.Loss | tf_keras.losses.Loss
    KerasMetric: TypeAlias = keras.metrics.Metric | tf_keras.metrics.Metric
    Dataset: TypeAlias = tf.data.Dataset | keras.utils.PyDataset | tf_keras.utils.Sequence

    class CallbackOfBoth(keras.callbacks.Callback, tf_keras.callbacks.Callback):
        """What `edgeprune.flavor.callback_class` makes."""

    class TensorBoardOfBoth(keras.callbacks.TensorBoard, tf_keras.callbacks.TensorBoard):
        """The same for `TensorBoard`."""

else:
    ArrayLike = Model = Layer = Variable = TfTensor = AnyTensor = Any
    Callback = Optimizer = Schedule = KerasLoss = KerasMetric = Dataset = Any

SameModel = TypeVar("SameModel", bound="Model")
"""A model that is returned as what was passed: of the same Keras and, to an editor, of the same class."""

SameLayer = TypeVar("SameLayer", bound="Layer")
"""The same for a layer or a model."""

Prunable = TypeVar("Prunable", bound="Layer | list[Layer]")
"""A model, a layer or a list of layers; what is returned is what was passed, under pruning or stripped of it."""

LayerChoice: TypeAlias = str | Layer | Iterable[str | Layer] | Callable[[Layer], bool]
"""Layers of a model: by name or pattern, themselves, several of these, or those that a function is true for."""

PathLike: TypeAlias = str | os.PathLike[str]
"""The path of a file or folder."""

Shape: TypeAlias = Sequence[int | None]
"""The sizes of a tensor's axes; None for one that is open, such as the batch."""

Array: TypeAlias = ArrayLike | AnyTensor
"""What NumPy makes an array of: arrays, nested lists of numbers, tensors."""

Arrays: TypeAlias = Array | Sequence[Array] | Mapping[str, Array]
"""The array of the only input (or output), or those of several: in their order, or by name."""

DataLike: TypeAlias = Arrays | Dataset | Iterable[Any] | Callable[[], Any]
"""Samples in any form `model.fit` accepts: arrays, a `tf.data.Dataset`, a `PyDataset`, an iterable of batches; or a
function that returns one of these."""

Loss: TypeAlias = str | KerasLoss | Callable[..., Any] | Sequence[Any] | Mapping[str, Any]
"""A loss as `model.compile` accepts it: of the only output, or of several in their order or by name."""

LearningRate: TypeAlias = float | Schedule
"""A learning rate, or a Keras schedule of it."""

Quantization: TypeAlias = Literal["dynamic", "float16", "int8", "int16x8", "int4"]
"""How `export_tflite` quantizes a model; None leaves it in float32."""

Calibration: TypeAlias = Literal["min-max", "percentile", "mse", "auto"]
"""How the ranges of an int8 file's activations are chosen."""

Importance: TypeAlias = Literal[
    "l2", "l1", "bn_scale", "lamp", "fpgm", "taylor", "fisher", "activation", "reconstruction", "random"
]
"""How `plan_channels` scores a channel; the names are explained there."""

Reduction: TypeAlias = Literal["sum", "mean", "max", "l2"]
"""How the scores of a channel's coupled weights become one."""

Attention: TypeAlias = Literal["heads", "dims", "both"]
"""What attention layers lose: whole heads, channels inside the heads, or both."""

Scope: TypeAlias = Literal["global", "local", "isomorphic"]
"""What channels compete with each other: those of the whole model, of one group, of groups of the same structure."""

Flavor: TypeAlias = Literal["keras", "tf_keras"]
"""The package of a Keras."""

__all__ = [
    "AnyTensor",
    "Array",
    "ArrayLike",
    "Arrays",
    "Attention",
    "Callback",
    "DataLike",
    "Dataset",
    "Flavor",
    "Importance",
    "KerasLoss",
    "KerasMetric",
    "Layer",
    "LayerChoice",
    "LearningRate",
    "Loss",
    "Model",
    "Optimizer",
    "PathLike",
    "Prunable",
    "Quantization",
    "Reduction",
    "SameLayer",
    "SameModel",
    "Scope",
    "Shape",
    "TfTensor",
    "Variable",
]
