"""Which weights of which layers can be pruned, and which layers a user's choice names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeGuard

from edgeprune import flavor
from edgeprune.layer_patterns import layers_fitting, similar
from edgeprune.types import Layer, LayerChoice, Model, Variable

if TYPE_CHECKING:
    from edgeprune.sparsity.settings import PruningRun

# The kernels that TF-MOT prunes, by the class of Keras that makes them; the same in both Kerases. Layers made
# of layers (attention, Bidirectional, TimeDistributed, nested models) are reached through their parts.
_KERNELS = {
    "Dense": ("kernel",),
    "EinsumDense": ("kernel",),
    "Conv1D": ("kernel",),
    "Conv2D": ("kernel",),
    "Conv3D": ("kernel",),
    "Conv1DTranspose": ("kernel",),
    "Conv2DTranspose": ("kernel",),
    "Conv3DTranspose": ("kernel",),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
    "Embedding": ("embeddings",),
    "LocallyConnected1D": ("kernel",),
    "LocallyConnected2D": ("kernel",),
    "SimpleRNNCell": ("kernel", "recurrent_kernel"),
    "GRUCell": ("kernel", "recurrent_kernel"),
    "LSTMCell": ("kernel", "recurrent_kernel"),
}
# Layers of Keras with weights that are left alone on purpose.
LEFT_ALONE = {
    "DepthwiseConv1D": "depthwise kernels are too small to prune",
    "DepthwiseConv2D": "depthwise kernels are too small to prune",
    "BatchNormalization": "normalisation has no kernel",
    "LayerNormalization": "normalisation has no kernel",
    "GroupNormalization": "normalisation has no kernel",
    "RMSNormalization": "normalisation has no kernel",
    "Normalization": "normalisation has no kernel",
    "PReLU": "activations have no kernel",
}
# Layers of Keras with kernels that TF-MOT has no rule for.
_WITHOUT_RULE = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")

# What TF-MOT puts before the name of a layer that it wraps.
_WRAPPED = "prune_low_magnitude_"

_WHAT_CAN_BE_PRUNED = (
    "`prune_low_magnitude` can only prune an object of the following types: keras.models.Sequential, keras functional "
    "model, keras.layers.Layer, list of keras.layers.Layer. You passed an object of type: "
)


def prunable_weights(layer: Layer) -> dict[str, Variable]:
    """The weights of one layer that can be pruned, without those of layers inside it.

    A custom layer defines a method `get_prunable_weights()` that returns a list of variables,
    as with TF-MOT; it may also be set on one layer, of any class.

    Args:
        layer: a built layer of either Keras.

    Returns:
        Variables by name, for example `{"kernel": <variable of shape (3, 3, 8, 16)>}`; empty where there
        is nothing to prune.

    Raises:
        ValueError: `get_prunable_weights()` returns something else.

    Example:
        >>> import keras
        >>> layer = keras.layers.Dense(4); layer.build((None, 8))
        >>> list(prunable_weights(layer))
        ['kernel']
    """
    if getattr(layer, "lora_enabled", False):
        return {}
    if _defines_prunable_weights(layer):
        variables = layer.get_prunable_weights()
        if not isinstance(variables, list | tuple) or not all(hasattr(one, "assign") for one in variables):
            raise ValueError(
                f"get_prunable_weights() of layer {layer.name!r} must return a list of its variables, got {variables!r}"
            )
        return {f"weight_{index}": variable for index, variable in enumerate(variables)}
    kind = _keras_class(layer, _KERNELS)
    names = _KERNELS[kind] if kind else ()
    found = {name: getattr(layer, name, None) for name in names}
    return {
        name: variable
        for name, variable in found.items()
        if variable is not None and "float" in str(variable.dtype) and 0 not in tuple(variable.shape)
    }


def why_no_weights(layer: Layer) -> str | None:
    """Why a built layer of a kind that can be pruned has nothing to prune; None where it has."""
    if getattr(layer, "lora_enabled", False):
        return "with LoRA the kernel is a sum that is never sparse: merge it first, then prune"
    if prunable_weights(layer):
        return None
    if _defines_prunable_weights(layer):
        return "its get_prunable_weights() returns none"
    return "its weights are not floating point (a quantized layer?)"


def why_not_settings(layer: Layer, run: PruningRun) -> str | None:
    """Why a layer of a kind that can be pruned does not fit a `PruningRun`; None where it does, or is not built."""
    if not layer.built:
        return None
    shapes = [tuple(weight.shape) for weight in prunable_weights(layer).values()]
    return why_no_weights(layer) or next(filter(None, map(run.why_not_shape, shapes)), None)


def can_be_pruned(layer: Layer) -> bool:
    """Whether a layer is of a kind with prunable weights, built or not."""
    return _defines_prunable_weights(layer) or _keras_class(layer, _KERNELS) is not None


def why_not_prunable(layer: Layer) -> str | None:
    """Why a layer with weights of its own is not pruned; None for layers without any, and for those that only round."""
    if flavor.rounds_values(layer):
        return None
    if can_be_pruned(layer):
        return why_no_weights(layer) if layer.built else None
    if not _has_own_weights(layer):
        return None
    return why_excluded(layer) or _no_rule(layer)


def why_excluded(layer: Layer) -> str | None:
    """Why a layer of Keras is left alone on purpose, built or not; None for all others."""
    known = _keras_class(layer, LEFT_ALONE)
    return None if known is None else LEFT_ALONE[known]


def why_not_single_layer(layer: Layer) -> str | None:
    """Why a layer that was passed by itself cannot be pruned, nor anything in it; None where that is unknown yet.

    A layer without weights is no error, as with TF-MOT. What a layer of Keras makes is known when it is built; one of
    the user's own is refused before that, as by TF-MOT.
    """
    if why_excluded(layer) or any(map(can_be_pruned, flavor.layers_of(layer))):
        return None
    if layer.built:
        return _no_rule(layer) if flavor.weights_of(layer) else None
    of_keras = type(layer).__module__.partition(".")[0] in (flavor.KERAS_3, flavor.TF_KERAS)
    return None if of_keras and _keras_class(layer, _WITHOUT_RULE) is None else _no_rule(layer)


def names_of(model: Model) -> dict[int, str]:
    """The names of all layers by `id`, as `flavor.layer_names`, without those of TF-MOT's wrappers around them."""
    return {key: _without_wrappers(name) for key, name in flavor.layer_names(model).items()}


def _without_wrappers(name: str) -> str:
    *around, last = name.split("/")
    return "/".join([part for part in around if not part.startswith(_WRAPPED)] + [last.removeprefix(_WRAPPED)])


def _no_rule(layer: Layer) -> str:
    return f"no rule for {type(layer).__name__}; define get_prunable_weights() on it to prune it"


def chosen_layers(model: Model, layers: LayerChoice | None, argument: str = "layers") -> list[Layer]:
    """The layers of a model that a choice names, each with everything inside it.

    Args:
        model: a model of either Keras.
        layers: None for all; a name or pattern as `edgeprune.layer_patterns` reads it, a layer, a function of a layer
            that returns true or false, or a list of them.
        argument: what the choice was passed as, for the message of an error.

    Returns:
        Layers at any depth, in the model's order.

    Raises:
        ValueError: a name or pattern matches nothing, or a layer is not in the model.
        TypeError: a choice is none of the above.
    """
    inside = list(flavor.layers_of(model))
    if layers is None:
        return inside
    names = names_of(model)
    chosen: set[int] = set()
    for choice in _as_list(layers, argument):
        matches = _matches(model, inside, names, choice, argument)
        if not matches and not _is_function(choice):
            near = similar(choice, names.values()) if isinstance(choice, str) else ""
            raise ValueError(
                f"{argument}={choice!r} matches no layer of model {model.name!r}.{near} "
                f"Its layers are: {', '.join(layer.name for layer in inside[:40])}"
                + (", ..." if len(inside) > 40 else "")
            )
        chosen |= matches
    return [layer for layer in inside if id(layer) in chosen]


def _is_function(choice: object) -> TypeGuard[Callable[[Layer], bool]]:
    """Whether a choice is a function of a layer; a layer is callable too and is not one."""
    return callable(choice) and not flavor.is_layer(choice)


def _as_list(layers: LayerChoice, argument: str) -> list[str | Layer | Callable[[Layer], bool]]:
    if isinstance(layers, str) or callable(layers) or flavor.is_layer(layers):
        return [layers]
    try:
        return list(layers)
    except TypeError:
        raise TypeError(f"{argument}= must be names, patterns, layers or a function; got {layers!r}") from None


def _matches(
    model: Model,
    inside: list[Layer],
    names: dict[int, str],
    choice: str | Layer | Callable[[Layer], bool],
    argument: str,
) -> set[int]:
    """The `id`s of the layers that one choice names, with everything inside them."""
    if isinstance(choice, str):
        return layers_fitting(model, choice, names)
    if not (_is_function(choice) or flavor.is_layer(choice)):
        raise TypeError(f"{argument}= must be names, patterns, layers or a function; got {choice!r}")
    chosen = [layer for layer in inside if (choice(layer) if _is_function(choice) else layer is choice)]
    return {id(part) for layer in chosen for part in (layer, *flavor.layers_of(layer))}


def _defines_prunable_weights(layer: Layer) -> bool:
    own = vars(layer).get("get_prunable_weights")
    if own is None:
        return hasattr(type(layer), "get_prunable_weights")
    # TF-MOT hangs a function of that name on the layers of Keras that it wraps.
    return not getattr(own, "__qualname__", "").startswith("PruneRegistry.")


def _keras_class(layer: Layer, names: Iterable[str]) -> str | None:
    """The first class of Keras itself, in the order of inheritance, that stands in `names`."""
    for cls in type(layer).__mro__:
        if cls.__module__.partition(".")[0] in (flavor.KERAS_3, flavor.TF_KERAS) and cls.__name__ in names:
            return cls.__name__
    return None


def _has_own_weights(layer: Layer) -> bool:
    inside = {id(v) for part in flavor.layers_of(layer) if part is not layer for v in flavor.weights_of(part)}
    # Seeds of random layers are no weights.
    return any(id(variable) not in inside for variable in flavor.weights_of(layer))


def wrong_type(thing: object, note: str) -> ValueError:
    """The error for a thing that cannot be pruned at all: TF-MOT's own message, and the remedy in a note."""
    error = ValueError(f"{_WHAT_CAN_BE_PRUNED}{type(thing).__name__}.")
    error.add_note(note)
    return error
