"""What a quantization-aware model rounds, in which ranges, and why the other layers are left in floats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.rules import is_composite
from edgeprune.channels.graph.trace import garbage_collection_off
from edgeprune.depth.bypass import graphs
from edgeprune.quantization.fake_quantize import (
    FakeQuantizeLogic,
    QuantizedLayerLogic,
    fake_quantizers,
    is_fake_quantize,
    is_quantize_aware,
    quantized_layers,
)
from edgeprune.quantization.kinds import float_operator, inner_kernel_axes, kernel_axes
from edgeprune.text_table import text_table
from edgeprune.types import Layer, Model

# Folded into the kernel before them, or looked into.
_WITHOUT_KERNELS = ("BatchNormalization", "TimeDistributed", "Bidirectional", "RNN")
_OF_SEVERAL = ("LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization")
_WHEN_WRITTEN = "quantized when the file is written, with ranges of the representative data"
_NO_RULE = f"no rule for its kernels: {_WHEN_WRITTEN}"
_SEVERAL = f"computed by several operators: {_WHEN_WRITTEN}"
_IN_FLOATS = "computed in floats in the file too: its operator {} has no version in integers"
_ACTIVATION_IN_FLOATS = (
    "the activation is computed in floats in the file too: its operator {} has no version in integers"
)
_OWN_WEIGHT = f"a weight that its layer uses itself: {_WHEN_WRITTEN}"
_INSIDE = f"inside a layer that is whole: {_WHEN_WRITTEN}"
_LEFT_OUT = "left out by the scheme, `layers` or `ignore`"


@dataclass(frozen=True)
class RoundedKernel:
    """A kernel that is rounded while the model trains.

    Attributes:
        layer: path name of its layer.
        weight: its name.
        shape: its shape.
        num_bits: of its integers.
        num_scales: how many scales it has: one for each channel, or one.
        kept_zeros: how many of its weights are held at zero.
    """

    layer: str
    weight: str
    shape: tuple[int, ...]
    num_bits: int
    num_scales: int
    kept_zeros: int


@dataclass(frozen=True)
class RoundedActivation:
    """Activations that are rounded while the model trains.

    Attributes:
        name: path name of the layer that rounds them.
        num_bits: of their integers.
        range: the smallest and the largest value; None where no data has been seen yet.
        fixed: whether the range follows from the function that makes the values.
    """

    name: str
    num_bits: int
    range: tuple[float, float] | None
    fixed: bool


@dataclass(frozen=True)
class QuantizationReport:
    """What a model rounds. Prints as tables.

    Attributes:
        model: the model's name.
        kernels: in the order of the layers.
        activations: in the order of the layers.
        left: path name of each layer left in floats while the model trains, and of each layer and function that the
            file computes in floats too, to the reason.
    """

    model: str
    kernels: tuple[RoundedKernel, ...]
    activations: tuple[RoundedActivation, ...]
    left: Mapping[str, str]

    def __str__(self) -> str:
        kernels = [
            (one.layer, one.weight, str(one.shape), str(one.num_bits), f"{one.num_scales:,}", f"{one.kept_zeros:,}")
            for one in self.kernels
        ]
        activations = [(one.name, str(one.num_bits), *_limits(one)) for one in self.activations]
        lines = [f"Quantization of {self.model!r}"]
        lines.append(text_table(("layer", "weight", "shape", "bits", "scales", "zeros kept"), kernels, left=(0, 1, 2)))
        if activations:
            lines.append(text_table(("activations", "bits", "from", "to"), activations))
        lines += [f"not rounded: {name} ({reason})" for name, reason in self.left.items()]
        return "\n".join(lines)


def _limits(one: RoundedActivation) -> tuple[str, str]:
    return ("no data yet", "") if one.range is None else (f"{one.range[0]:.4g}", f"{one.range[1]:.4g}")


def quantization_report(model: Model) -> QuantizationReport:
    """List what a quantization-aware model rounds, and the layers left in floats with the reason.

    Args:
        model: what `quantize_aware` returned, trained or not.

    Returns:
        A report that prints as tables.

    Raises:
        TypeError: not a Keras model.
        ValueError: the model is not built, or not quantization-aware.

    Example:
        >>> import keras, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> [(one.layer, one.shape, one.num_scales) for one in quantization_report(ep.quantize_aware(model)).kernels]
        [('head', (4, 3), 3)]
    """
    flavor.check_built_model(model)
    if not is_quantize_aware(model):
        raise ValueError(f"Model {model.name!r} is not quantization-aware: pass what quantize_aware returned.")
    wrappers = quantized_layers(model)
    names = flavor.layer_names(model)
    inside = {id(part) for wrapper in wrappers for part in flavor.layers_of(wrapper) if part is not wrapper}
    inside |= set(_rounded_holders(model))
    plain = {id(wrapper): names[id(wrapper)].removesuffix(wrapper.name) + wrapper.layer.name for wrapper in wrappers}
    kernels = [_kernel(plain[id(one)], one, name) for one in wrappers for name in one.kernel_axes]
    called = {id(layer) for layer in _called_layers(model)}
    whole = _why_whole(model, names)
    left = {
        names[id(layer)]: whole.get(id(layer), reason)
        for layer in flavor.layers_of(model)
        if layer not in wrappers and id(layer) not in inside and (reason := _why_left(layer, id(layer) in called))
    }
    activations = {plain[id(one)]: float_operator(one.layer) for one in wrappers}
    left.update({name: _ACTIVATION_IN_FLOATS.format(operator) for name, operator in activations.items() if operator})
    left.update(_functions_in_floats(model))
    return QuantizationReport(
        model.name, tuple(kernels), tuple(_activation(names[id(one)], one) for one in fake_quantizers(model)), left
    )


def _kernel(layer: str, wrapper: QuantizedLayerLogic, name: str) -> RoundedKernel:
    shape = tuple(wrapper.kernel(name).shape)
    split = (*shape[:-1], wrapper.parts, shape[-1] // wrapper.parts) if wrapper.parts > 1 else shape
    scales = int(np.prod([split[axis] for axis in wrapper.kernel_axes[name]], dtype=int))
    mask = flavor.array_of(wrapper.mask(name)) if name in wrapper.kept_zeros else np.ones(1)
    return RoundedKernel(layer, name, shape, wrapper.num_bits, scales, int(np.sum(mask == 0)))


def _activation(name: str, layer: FakeQuantizeLogic) -> RoundedActivation:
    low, high = (float(np.asarray(limit)) for limit in layer.range)
    return RoundedActivation(
        name, layer.num_bits, (low, high) if layer.is_known else None, layer.fixed_range is not None
    )


def _why_whole(model: Model, names: Mapping[int, str]) -> dict[int, str]:
    """`id` of the composite layers whose calls could not be followed, and of the layers in them, to the reason.

    They are looked into once more: a model that was loaded from a file knows no reasons.
    """
    with garbage_collection_off():
        _, _, reasons, _ = flavor.unfold_layers(
            model, lambda one: is_composite(one) and not flavor.rounds_values(one), keeps_losses=True
        )
    found: dict[int, str] = {}
    for layer in flavor.layers_of(model):
        if (why := reasons.get(id(layer))) is not None:
            inside = f"inside {names[id(layer)]!r}, whose call cannot be followed ({why}): {_WHEN_WRITTEN}"
            found.update({id(part): inside for part in flavor.layers_of(layer)})
            found[id(layer)] = f"its call cannot be followed ({why}): {_WHEN_WRITTEN}"
    return found


def _rounded_holders(model: Model) -> Iterator[int]:
    """`id` of the layers that hold a weight of a composite layer, where it is rounded in a range of its own."""
    for _, part in graphs(model):
        for node in flavor.graph_nodes(part)[1]:
            if is_fake_quantize(node.layer):
                reshaped, behind = flavor.producer_of(node.inputs[0])
                holder = flavor.producer_of(behind[0])[0] if flavor.function_name(reshaped) == "reshape" else reshaped
                if flavor.is_layer(holder) and flavor.holds_own_weight(holder):
                    yield id(holder)


def _functions_in_floats(model: Model) -> dict[str, str]:
    """The path names of the functions in the graphs of Keras 3 that a file computes in floats, to the reason."""
    return {
        prefix + node.layer.name: _IN_FLOATS.format(operator)
        for prefix, part in graphs(model)
        for node in flavor.graph_nodes(part)[1]
        if not flavor.is_layer(node.layer) and (operator := float_operator(node.layer))
    }


def _called_layers(model: Model) -> Iterator[Layer]:
    """The layers that the model calls itself: not those inside a layer that is whole."""
    for _, part in graphs(model):
        for node in flavor.graph_nodes(part)[1]:
            layer: Any = node.layer
            while flavor.is_time_distributed(layer):
                layer = layer.layer
            yield layer


def _why_left(layer: Layer, is_called: bool) -> str | None:
    """Why a layer is left in floats while the model trains, or for good; None where nothing of it is."""
    if flavor.is_model(layer) or is_fake_quantize(layer) or type(layer).__name__ in _WITHOUT_KERNELS:
        return None
    if is_called and (operator := float_operator(layer)):
        return _IN_FLOATS.format(operator)
    parts = {id(weight) for part in flavor.layers_of(layer) if part is not layer for weight in flavor.weights_of(part)}
    own = [weight for weight in flavor.weights_of(layer) if id(weight) not in parts and "float" in str(weight.dtype)]
    if not own:
        return None
    if not is_called:
        return _INSIDE
    if flavor.holds_own_weight(layer):
        return _OWN_WEIGHT
    if flavor.built_in_kind(layer) in _OF_SEVERAL:
        return _SEVERAL
    return _LEFT_OUT if kernel_axes(layer) or inner_kernel_axes(layer) else _NO_RULE
