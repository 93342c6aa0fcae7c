"""From a float model to one that is trained for quantization, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.rules import is_composite
from edgeprune.channels.graph.trace import garbage_collection_off
from edgeprune.depth.bypass import graphs, walkable
from edgeprune.quantization.calibration import calibrate
from edgeprune.quantization.fake_quantize import (
    LEARNED,
    UpdateRanges,
    holder_of,
    is_fake_quantize,
    is_quantize_aware,
    layer_classes,
    quantized_layers,
)
from edgeprune.quantization.kinds import kernel_parts, splits_activation
from edgeprune.quantization.layer_bits import float_layers, weight_bits
from edgeprune.quantization.placement import Placement, place
from edgeprune.schemes import Scheme, scheme_of
from edgeprune.sparsity.mechanism import mechanism_of
from edgeprune.sparsity.prunable import chosen_layers
from edgeprune.types import DataLike, Layer, LayerChoice, Model, Variable

# Before the name of a layer whose own name passes to what rounds its values, or kernels.
_PREFIX = "quantized_"
_SUFFIX = "_range"
_TRAINED = ("int8", "int4", "int16x8")
_MOST_NAMED = 3  # layers in an error


def quantize_aware(
    model: Model,
    scheme: str | Scheme = "int8",
    *,
    calibration: DataLike | None = None,
    layers: LayerChoice | None = None,
    ignore: LayerChoice | None = None,
    num_samples: int = 256,
    update_ranges: UpdateRanges = True,
    keep_zeros: bool = True,
) -> Model:
    """Prepare a model for training that knows how its file will round.

    The model returned computes with weights and activations rounded to the steps of an integer file, and its
    gradients pass through the rounding. Compile it, `fit` it as any other, and export it:
    `ep.export_tflite(model, path, quantization="int8")` writes the ranges of the model into the file.

    A kernel is rounded around zero with one scale for each channel. Activations are rounded where a file's operators
    return integers: behind a convolution with the batch normalization and ReLU folded into it, not between them.

    Args:
        model: a built model of `keras` 3 or `tf_keras`: Functional, Sequential, or a subclassed one whose call can be
            made on symbolic inputs. Composite layers are replaced by the calls they make inside. It is not changed.
        scheme: `"int8"`; `"int4"` for weights of 4 bits and activations of 8; `"int16x8"`, where the weights alone are
            rounded; or a `Scheme` of these bits, which may leave single layers in floats.
        calibration: samples on which the ranges of activations are measured first, in any form that `model.fit`
            accepts. Left out, they begin with the first batch of the training.
        layers: the layers to round: by name or pattern, themselves, a list of these, or a function that returns true
            for them. All where left out.
        ignore: layers not to round, in the same forms.
        num_samples: how many samples of `calibration` to use at most.
        update_ranges: whether training moves the ranges: `True` with a moving average; `"learned"` as weights of the
            model, whose gradients are those of the values outside of them; `False` leaves them as calibrated.
        keep_zeros: whether weights that are zero, as after `strip_pruning`, are kept in training. A kernel that is
            all zero is trained in any case.

    Returns:
        A new model of the same Keras with the same inputs and names of outputs, compiled as the original is.
        `quantization_report(model)` lists what is rounded in it.

    Raises:
        TypeError: it is no Keras model, or an argument is of another type than stated.
        ValueError: the model is not built, is quantized already, is under pruning, or its call cannot be followed;
            there is no such scheme, or it is one that needs no training; no layer is left to round; the calibration
            data do not fit, or lead to values that are NaN or infinite.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    2018.

    Example:
        >>> import keras, numpy as np, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu")])
        >>> model = ep.quantize_aware(model, "int8", calibration=np.random.rand(64, 4))
        >>> model.compile("adam", "mse")
        >>> history = model.fit(np.random.rand(64, 4), np.random.rand(64, 3), verbose=0)
    """
    flavor.check_built_model(model)
    if not (isinstance(update_ranges, bool) or update_ranges == LEARNED):
        raise ValueError(f"update_ranges must be True, False or 'learned'; got {update_ranges!r}.")
    if calibration is None and update_ranges is not True:
        raise ValueError(
            f"update_ranges={update_ranges!r} begins with the ranges as calibrated: pass calibration=data."
        )
    built = rounding_model(
        model, scheme, layers=layers, ignore=ignore, update_ranges=update_ranges, keep_zeros=keep_zeros
    )
    if calibration is not None:
        calibrate(built, calibration, num_samples)
    return built


def rounding_model(
    model: Model,
    scheme: str | Scheme,
    *,
    layers: LayerChoice | None = None,
    ignore: LayerChoice | None = None,
    update_ranges: UpdateRanges = True,
    keep_zeros: bool = True,
    prefix: str | None = None,
) -> Any:
    """What `quantize_aware` returns, its ranges not measured; `prefix` stands before the names of quantized layers."""
    scheme = _trained_scheme(scheme)
    _check_float(model)
    with garbage_collection_off():
        floats = float_layers(model, scheme)
        chosen = _chosen(model, layers, ignore) - floats
        walked, renamed, whole, _ = flavor.unfold_layers(walkable(model), is_composite, keeps_losses=True)
        placement = place(
            walked,
            chosen,
            floats=floats,
            activations=scheme.activation_bits == 8,
            per_channel_dense=scheme.per_channel_dense,
        )
        if not placement.kernels:
            raise ValueError(
                f"Model {model.name!r} has no kernel to quantize among the chosen layers{_named(whole, model)}. "
                "Without training, export_tflite quantizes what these hold too."
            )
        built = _Making(walked, placement, scheme, update_ranges, keep_zeros, renamed, prefix or _PREFIX).model()
        flavor.copy_compile_state(model, built)
    return built


def remove_fake_quantizers(model: Model) -> Model:
    """A plain float model with the weights of a quantization-aware one."""
    wrappers = quantized_layers(model)
    for wrapper in wrappers:
        wrapper.set_zeros()
    unwrapped = {id(wrapper): wrapper.layer for wrapper in wrappers}
    instead, renamed = {}, {}
    for _, part in graphs(model):
        for node in flavor.graph_nodes(part)[1]:
            if is_fake_quantize(node.layer):
                instead[id(node.node)] = 0
                maker = flavor.producer_of(node.inputs[0])[0]
                if flavor.is_layer(maker) and maker.name == _PREFIX + node.layer.name:
                    renamed[id(maker)] = node.layer.name
    with garbage_collection_off():
        built = flavor.Rebuilder(instead=instead, renamed=renamed, unwrapped=unwrapped).build(model)
        flavor.copy_compile_state(model, built)
    return built


def _named(whole: dict[int, str], model: Model) -> str:
    """The layers that stay whole, with the reasons, as the end of a sentence."""
    names = flavor.layer_names(model)
    found = [f"{names.get(layer, 'a layer inside others')!r} ({reason})" for layer, reason in whole.items()]
    if not found:
        return ""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"; these stay whole: {', '.join(found[:_MOST_NAMED])}{more}"


def _trained_scheme(scheme: str | Scheme) -> Scheme:
    found = scheme_of(scheme)
    if found.name not in _TRAINED:
        raise ValueError(
            f"quantize_aware trains for {', '.join(map(repr, _TRAINED))}; got {found.name!r}, which needs no training: "
            "pass it to export_tflite."
        )
    return found


def _check_float(model: Model) -> None:
    """Refuse a model whose weights or masks would be lost, or are integers already."""
    if is_quantize_aware(model):
        raise ValueError(f"Model {model.name!r} is quantization-aware already: train it, or strip_quantization(model).")
    if mechanism_of(model).has_masks(model):
        raise ValueError(
            f"Model {model.name!r} is under pruning, and its masks would be lost: strip_pruning(model) first, whose "
            "zeros are kept; or call prune_low_magnitude on what quantize_aware returns, to do both in one fit."
        )
    flavor.check_kernels_can_be_rounded(model)


def _chosen(model: Model, layers: LayerChoice | None, ignore: LayerChoice | None) -> set[int]:
    chosen = {id(layer) for layer in chosen_layers(model, layers)}
    return chosen - (set() if ignore is None else {id(layer) for layer in chosen_layers(model, ignore, "ignore")})


class _Making:
    """The making of one quantization-aware model."""

    def __init__(
        self,
        model: Model,
        placement: Placement,
        scheme: Scheme,
        update_ranges: UpdateRanges,
        keep_zeros: bool,
        renamed: dict[int, str],
        prefix: str,
    ) -> None:
        self._model = model
        self._placement = placement
        self._scheme = scheme
        self._update_ranges = update_ranges
        self._keep_zeros = keep_zeros
        self._renamed = dict(renamed)
        self._prefix = prefix
        self._keep_names: set[int] = set()
        self._classes = layer_classes(model)
        self._bits = weight_bits(model, scheme, flavor.layer_names(model))

    def model(self) -> Any:
        """The model, its weights those of the float one."""
        behind = self._rounding_layers()
        wrappers = {id(layer): self._wrapper(layer) for layer in self._layers() if id(layer) in self._placement.kernels}
        rebuilder = flavor.Rebuilder(wrappers=wrappers, behind=behind, renamed=self._renamed)
        built = rebuilder.build(self._model)
        for layer in quantized_layers(built):
            layer.keep_zeros()
        return built

    def _layers(self) -> Iterable[Layer]:
        return flavor.layers_of(self._model)

    def _rounding_layers(self) -> dict[int, Any]:
        """`id` of a symbolic tensor to the layer that rounds its values, one for each range."""
        made: dict[int, Any] = {}
        taken: set[str] = {self._renamed.get(id(layer), layer.name) for layer in self._layers()}
        names = self._names_of_outputs()
        found = {}
        for key, one in self._placement.ranges.items():
            if id(one) not in made:
                name = names.get(id(one)) or _free_name(one.name + _SUFFIX, taken)
                made[id(one)] = self._classes.FakeQuantize(
                    fixed_range=one.fixed,
                    update_ranges=self._update_ranges,
                    in_file=one.in_file,
                    room_below=one.room_below,
                    name=name,
                )
            found[key] = made[id(one)]
        return found

    def _names_of_outputs(self) -> dict[int, str]:
        """What rounds the values that a model returns has the name of the layer before it, which is the output's name.

        Where nothing does, the layer keeps its name.
        """
        names: dict[int, str] = {}
        for _, part in graphs(self._model):
            _, nodes, outputs = flavor.graph_nodes(part)
            makers = {id(tensor): node.layer for node in nodes for tensor in node.outputs}
            for key in dict.fromkeys(map(id, flavor.flatten(outputs, part))):
                one, maker = self._placement.ranges.get(key), makers.get(key)
                if maker is None or flavor.function_name(maker) or (one is not None and id(one) in names):
                    continue
                if one is None:
                    self._keep_names.add(id(maker))
                    continue
                name = self._renamed.get(id(maker), maker.name)
                names[id(one)] = name
                if id(maker) not in self._placement.kernels:
                    self._renamed[id(maker)] = _PREFIX + name
        return names

    def _wrapper(self, old: Layer) -> Callable[[Layer], Any]:
        axes = self._placement.kernels[id(old)]
        zeros = [name for name in axes if _has_some_zeros(getattr(*holder_of(old, name)))] if self._keep_zeros else []
        splits = self._scheme.activation_bits == 8 and splits_activation(old)

        def wrap(layer: Layer) -> Any:
            return self._classes.QuantizedLayer(
                layer,
                kernel_axes=axes,
                num_bits=self._bits.get(id(old), 8),
                kept_zeros=zeros,
                activation_bits=8 if splits else None,
                update_ranges=self._update_ranges,
                parts=kernel_parts(old),
                name=layer.name if id(old) in self._keep_names else self._prefix + layer.name,
            )

        return wrap


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _has_some_zeros(weight: Variable) -> bool:
    """Whether a kernel has zeros that pruning may have put there: not one that is all zero, as some begin."""
    values = flavor.array_of(weight)
    return bool((values == 0).any() and np.any(values))
