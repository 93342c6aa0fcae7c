"""TF-MOT's functions for quantization-aware training, on the engine of `edgeprune.quantize_aware`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from edgeprune import flavor
from edgeprune.quantization.annotated_layer import AnnotatedLayerLogic, is_annotated
from edgeprune.quantization.fake_quantize import layer_classes
from edgeprune.quantization.training import rounding_model
from edgeprune.tfmot.quantization.keras.default_8bit import Default8BitQuantizeScheme
from edgeprune.types import Layer, LayerChoice, Model


def quantize_model(to_quantize: Model, quantized_layer_name_prefix: str = "quant_") -> Any:
    """Prepare a whole model for training that knows how an int8 file will round, as TF-MOT's function does.

    `edgeprune.quantize_aware` does the same, and measures the ranges on data where these are passed.

    Args:
        to_quantize: a built model of either Keras. It is not changed.
        quantized_layer_name_prefix: before the names of the layers whose kernels are rounded.

    Returns:
        A new model with the weights of the old one, compiled as that is.

    Raises:
        ValueError: it is None, no model, not built, quantized already, or without a kernel to round.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> [layer.name for layer in quantize_model(model).layers][1:]
        ['quant_head', 'head']
    """
    _check_model(to_quantize, "to_quantize")
    return _rounding_model(to_quantize, Default8BitQuantizeScheme(), quantized_layer_name_prefix)


def quantize_annotate_layer(to_annotate: Layer, quantize_config: None = None) -> Any:
    """Mark a layer, so that `quantize_apply` quantizes it and not those that are not marked.

    Args:
        to_annotate: a layer of either Keras, new or part of a model.
        quantize_config: must be None: the engine knows the layers.

    Returns:
        A wrapper around the layer, which computes what the layer does.

    Raises:
        ValueError: it is no layer, or a model; or a `quantize_config` is passed.

    Example:
        >>> import keras
        >>> head = quantize_annotate_layer(keras.layers.Dense(2, name="head"))
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), head])
        >>> [layer.name for layer in quantize_apply(model).layers][1:]
        ['hidden', 'hidden_range', 'quant_head', 'head']
    """
    if to_annotate is None:
        raise ValueError("`to_annotate` cannot be None")
    if not flavor.is_layer(to_annotate) or flavor.is_model(to_annotate):
        raise ValueError(
            "`to_annotate` can only be a `keras.layers.Layer` instance. You passed an instance of type: "
            f"{type(to_annotate).__name__}."
        )
    if quantize_config is not None:
        raise ValueError(
            f"quantize_config={type(quantize_config).__name__}(...): edgeprune knows what of a layer is quantized. "
            "Leave it out, name the bits by the scheme of quantize_apply, and do not mark what should stay in floats."
        )
    return layer_classes(to_annotate).AnnotatedLayer(to_annotate)


def quantize_annotate_model(to_annotate: Model) -> Any:
    """Mark all layers of a model, so that `quantize_apply` quantizes them.

    Args:
        to_annotate: a built Functional or Sequential model of either Keras. It is not changed.

    Returns:
        A new model with the weights of the old one.

    Raises:
        ValueError: it is None, no model, not built, or subclassed.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> len(quantize_apply(quantize_annotate_model(model)).layers)
        3
    """
    _check_model(to_annotate, "to_annotate")
    if not flavor.is_graph_model(to_annotate):
        raise ValueError(
            "`to_annotate` can only either be a keras Sequential or Functional model: pass a subclassed one to "
            "quantize_model."
        )
    marked = _marked(to_annotate)
    around = layer_classes(to_annotate).AnnotatedLayer
    wrappers = {
        id(layer): around
        for layer in flavor.layers_of(to_annotate)
        if not flavor.is_model(layer) and not is_annotated(layer)
    }
    return flavor.Rebuilder(wrappers=wrappers, unwrapped={id(one): one.layer for one in marked}).build(to_annotate)


def quantize_apply(
    model: Model,
    scheme: Default8BitQuantizeScheme | None = None,
    quantized_layer_name_prefix: str = "quant_",
) -> Any:
    """Prepare a model for quantization-aware training in the layers that are marked.

    Args:
        model: a built model with layers from `quantize_annotate_layer`. It is not changed.
        scheme: `Default8BitQuantizeScheme()`, also where left out; `Default8BitPrunePreserveQuantizeScheme()`, which
            keeps zeros; or `DefaultNBitQuantizeScheme(...)`.
        quantized_layer_name_prefix: before the names of the layers whose kernels are rounded.

    Returns:
        A new model with the weights of the old one. The values that marked layers with kernels read are rounded too.

    Raises:
        TypeError: `scheme` is none of the above.
        ValueError: it is None, no model, not built, or no layer in it is marked.

    Example:
        >>> import keras
        >>> from edgeprune.tfmot.quantization.keras.collab_opts import Default8BitPrunePreserveQuantizeScheme
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> aware = quantize_apply(quantize_annotate_model(model), Default8BitPrunePreserveQuantizeScheme())
        >>> aware.get_layer("quant_head").num_bits
        8
    """
    _check_model(model, "model")
    scheme = Default8BitQuantizeScheme() if scheme is None else scheme
    if not isinstance(scheme, Default8BitQuantizeScheme):
        raise TypeError(
            "scheme must be Default8BitQuantizeScheme(), Default8BitPrunePreserveQuantizeScheme() or "
            f"DefaultNBitQuantizeScheme(...); got {scheme!r}."
        )
    marked = _marked(model)
    if not marked:
        raise ValueError(
            "`model` must contain at least one layer which have been annotated with `quantize_annotate*`. There are no "
            "layers to quantize."
        )
    rebuilder = flavor.Rebuilder(unwrapped={id(one): one.layer for one in marked})
    plain = rebuilder.build(model)
    new = rebuilder.counterparts()
    chosen = [new[id(one.layer)] for one in marked if id(one.layer) in new]
    return _rounding_model(plain, scheme, quantized_layer_name_prefix, chosen)


@contextlib.contextmanager
def quantize_scope(*args: Mapping[str, Any]) -> Iterator[None]:
    """The scope in which `load_model` knows the layers of a model that is quantization-aware or marked.

    Args:
        *args: dicts of name to class, for your own layers.

    Returns:
        A context manager.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> quantize_model(model).save("aware.keras")
        >>> with quantize_scope():
        ...     keras.models.load_model("aware.keras").get_layer("quant_head").num_bits
        8
    """
    with contextlib.ExitStack() as stack:
        own = {name: kind for group in args for name, kind in group.items()}
        for keras in map(flavor.keras_module, (flavor.KERAS_3, flavor.TF_KERAS)):
            layer_classes(keras.layers.Layer())  # these register themselves with Keras
            stack.enter_context(keras.utils.custom_object_scope(own))
        yield


def _check_model(model: object, name: str) -> None:
    if model is None:
        raise ValueError(f"`{name}` cannot be None")
    if not flavor.is_model(model):
        raise ValueError(
            f"`{name}` can only be a `keras.Model` instance. You passed an instance of type: {type(model).__name__}."
        )
    flavor.check_built_model(model)


def _marked(model: Model) -> list[AnnotatedLayerLogic]:
    return [layer for layer in flavor.layers_of(model) if is_annotated(layer)]


def _rounding_model(
    model: Model, scheme: Default8BitQuantizeScheme, prefix: str | None, layers: LayerChoice | None = None
) -> Any:
    return rounding_model(model, scheme.scheme, layers=layers, keep_zeros=scheme.keeps_zeros, prefix=prefix)
