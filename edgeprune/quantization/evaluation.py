"""A quantization-aware model as its file computes it: in whole numbers, rounded as a set of kernels rounds.

A fake quantizer rounds what floats add up to. A file adds whole numbers, its bias among them, and the kernels that
run it differ in how they round the sum; so about one class in a hundred is another. Here each operator of the file is
computed as the kernels do it. What has no rule, or is in floats in the file, is computed in floats, and rounded to
the steps of its output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.trace import garbage_collection_off
from edgeprune.quantization.fake_quantize import (
    FakeQuantizeLogic,
    check_ranges_known,
    fake_quantizers,
    is_fake_quantize,
    is_quantized_layer,
)
from edgeprune.quantization.integer_arithmetic import Steps
from edgeprune.quantization.integer_operators import IntegerOperator, operator_of, whole_numbers
from edgeprune.quantization.kinds import CallKind, kernel_axes, kind_of
from edgeprune.quantization.placement import holds_real_numbers
from edgeprune.types import AnyTensor, Model, TfTensor

_KernelSet = Literal["xnnpack", "reference"]


def quantized_evaluation(model: Model, kernels: _KernelSet = "xnnpack") -> Model:
    """Make the model that returns what the int8 file of a quantization-aware model returns.

    It computes in whole numbers, in float64: bias on the steps of the products, sums rounded as the kernels do it,
    activations as limits of integers, averages and sums of tensors in integers. `predict` and `evaluate` say what the
    file will, on any batch size, before there is one.

    Args:
        model: what `quantize_aware` returned, with activations of 8 bits, trained or calibrated. It is not changed.
        kernels: `"xnnpack"`, which phones and computers run; `"reference"`, as microcontrollers (TFLM, CMSIS-NN) round.

    Returns:
        A new model with the same inputs and names of outputs, compiled as the one passed is, of the weights as they
        are now. It is for inference: it cannot be trained or saved.

    Raises:
        TypeError: not a Keras model.
        ValueError: the model is not built, or does not round activations to 8 bits; a range has never seen data; there
            are no such kernels.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    2018.

    Example:
        >>> import keras, numpy as np, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu")])
        >>> aware = ep.quantize_aware(model, "int8", calibration=np.random.rand(64, 4))
        >>> quantized_evaluation(aware, kernels="reference").predict(np.random.rand(2, 4), verbose=0).shape
        (2, 3)
    """
    flavor.check_built_model(model)
    if kernels not in get_args(_KernelSet):
        raise ValueError(f"kernels must be one of {', '.join(map(repr, get_args(_KernelSet)))}; got {kernels!r}.")
    if not fake_quantizers(model):
        raise ValueError(
            f"Model {model.name!r} does not round its activations: pass what quantize_aware(model, 'int8' or 'int4') "
            "returned."
        )
    check_ranges_known(model)
    with garbage_collection_off():
        built = _Making(model, kernels).model()
        flavor.copy_compile_state(model, built)
    built.trainable = False
    return built


class _Making:
    """The making of one model that computes in whole numbers."""

    def __init__(self, model: Model, kernels: _KernelSet) -> None:
        self._model = model
        self._kernels = kernels
        self._rebuilder = flavor.Rebuilder()
        self._tensors: dict[int, Any] = {}  # `id` of a symbolic tensor to that in its place
        self._steps: dict[int, Steps] = {}
        self._operators: dict[int, IntegerOperator] = {}  # what makes a tensor that is not rounded yet
        self._outputs = {id(tensor) for tensor in flavor.flatten(flavor.graph_nodes(model)[2], model)}
        self._rounded_by: Counter[str] = Counter()

    def model(self) -> Any:
        """The model."""
        built = flavor.rebuild_graph(self._model, self._call, behind=self._put)
        self._rebuilder.fill()
        return built

    def _put(self, old: AnyTensor, new: TfTensor) -> Any:
        self._tensors[id(old)] = new
        return new

    def _call(self, node: flavor.GraphNode, args: tuple, kwargs: dict[str, Any]) -> Any:
        if flavor.is_nested(node.layer):
            return self._inlined(node, node.layer)
        if is_fake_quantize(node.layer):
            return self._rounded(node, node.layer)
        made = self._rebuilder.call(node, *self._arguments(node, args, kwargs))
        self._note(node)
        return made

    def _arguments(self, node: flavor.GraphNode, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The arguments of a call, of the types that they have in the model: rounded values are float64 here.

        Keras 3 converts them itself. Functions of `tf_keras` take constants of the model's type only, and the cast of
        its layers loses masks.
        """
        import tensorflow as tf

        if flavor.is_keras_3(node.layer):
            return args, kwargs
        types = {id(self._tensors[id(old)]): old.dtype for old in node.inputs}

        def converted(value: Any) -> Any:
            dtype = types.get(id(value))
            if dtype is None or value.dtype == dtype:
                return value
            return whole_numbers(self._model, lambda tensor: tf.cast(tensor, dtype), None)(value)

        return flavor.map_structure(converted, (args, kwargs), node.layer)

    def _inlined(self, node: flavor.GraphNode, inner: Model) -> Any:
        """The calls of a nested model in the place of its own."""
        inputs, nodes, outputs = flavor.graph_nodes(inner)
        for outside, inside in zip(flavor.first_argument(node, node.inputs), inputs, strict=True):
            self._same(outside, inside)
        for one in nodes:
            made = self._call(one, *one.filled(self._tensors))
            for old, new in zip(one.outputs, flavor.flatten(made, inner), strict=True):
                self._put(old, new)
        for inside, outside in zip(flavor.flatten(outputs, inner), node.outputs, strict=True):
            self._same(inside, outside)
        return flavor.map_structure(lambda old: self._tensors[id(old)], outputs, inner)

    def _same(self, known: AnyTensor, tensor: AnyTensor) -> None:
        """Note that a tensor has the values of another one."""
        every: list[dict[int, Any]] = [self._tensors, self._steps, self._operators]
        for facts in every:
            facts.pop(id(tensor), None)
            if id(known) in facts:
                facts[id(tensor)] = facts[id(known)]

    def _note(self, node: flavor.GraphNode) -> None:
        """Note the steps of what a call returns, or the operator of the file that makes it."""
        output, read = node.outputs[0], list(filter(holds_real_numbers, node.inputs))
        steps = [self._steps.get(id(tensor)) for tensor in read]
        own = is_quantized_layer(node.layer) and kernel_axes(node.layer.layer)  # not of a layer inside
        kind = CallKind.WEIGHTED if own else kind_of(node)
        before = self._operators.get(id(node.inputs[0])) if node.inputs else None
        for old in node.outputs:
            self._steps.pop(id(old), None)
            self._operators.pop(id(old), None)
        if kind is CallKind.NOTHING and before is not None:
            self._operators[id(output)] = before
        elif kind in (CallKind.NORMALIZATION, CallKind.RELU) and before is not None:
            if (fused := before.followed_by(node)) is not None:
                self._operators[id(output)] = fused
        elif kind in (CallKind.NOTHING, CallKind.MOVEMENT, CallKind.JOIN):
            if steps and steps[0] is not None and all(one == steps[0] for one in steps):
                self._steps.update({id(old): steps[0] for old in node.outputs})
        elif all(one is not None for one in steps):
            inputs = [self._tensors[id(tensor)] for tensor in read]
            made = operator_of(node, kind, inputs, steps, self._kernels)
            if made is not None:
                self._operators[id(output)] = made

    def _rounded(self, node: flavor.GraphNode, layer: FakeQuantizeLogic) -> Any:
        """What a fake quantizer rounds, computed as the file does it."""
        old, output = node.inputs[0], node.outputs[0]
        steps = Steps.of_range(*layer.limits)
        self._steps[id(output)] = steps
        values = self._tensors[id(old)]
        operator = self._operators.get(id(old)) if layer.in_file else None  # behind a layer in floats there is none
        if operator is not None:
            return operator.build(steps, self._name(layer, output))
        if self._steps.get(id(old)) == steps:
            return values
        return whole_numbers(layer, _on_steps(steps), self._name(layer, output))(values)

    def _name(self, layer: FakeQuantizeLogic, output: AnyTensor) -> str:
        """The fake quantizer's name for an output of the model; several tensors may be rounded by one."""
        if id(output) in self._outputs:
            return layer.name
        self._rounded_by[layer.name] += 1
        return f"{layer.name}_{self._rounded_by[layer.name]}_rounded"


def _on_steps(steps: Steps) -> Callable[[Any], Any]:
    """Real values rounded to steps, as an application encodes its inputs."""

    def rounded(values: TfTensor) -> Any:
        import tensorflow as tf

        numbers = tf.round(tf.cast(values, tf.float32) / np.float32(steps.scale))
        return tf.clip_by_value(tf.cast(numbers, tf.float64), *steps.limits) * steps.scale

    return rounded
