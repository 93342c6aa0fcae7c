"""What kind of task a Keras loss is for: real numbers, one class of several, or yes and no."""

from __future__ import annotations

from typing import Any

# Names without underscores and capitals, of classes and functions of both Kerases and their short forms.
_KINDS = {
    "regression": (
        "meansquarederror mse meanabsoluteerror mae meanabsolutepercentageerror mape meansquaredlogarithmicerror msle "
        "huber huberloss logcosh poisson"
    ),
    "sparse": "sparsecategoricalcrossentropy categoricalgeneralizedcrossentropy",
    "categorical": "categoricalcrossentropy categoricalfocalcrossentropy",
    "binary": "binarycrossentropy bce binaryfocalcrossentropy",
    "overlap": "dice tversky",
    "either": "crossentropy ce",  # Keras chooses by the shapes
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}


def plain_names(keras_object: object) -> list[str]:
    """The names of a loss or a metric without capitals and underscores, those of its base classes last.

    Args:
        keras_object: a name, a function, or an object of a Keras class or of a custom one.

    Example:
        >>> plain_names("mean_squared_error")
        ['meansquarederror']
    """
    if isinstance(keras_object, str):
        names = [keras_object]
    elif isinstance(keras_object, type):
        names = [kind.__name__ for kind in keras_object.__mro__]
    elif hasattr(keras_object, "__name__"):
        names = [keras_object.__name__]
    else:
        wrapped = next((getattr(keras_object, name) for name in ("fn", "_fn") if hasattr(keras_object, name)), None)
        own = [kind.__name__ for kind in type(keras_object).__mro__]
        names = own if wrapped is None or wrapped is keras_object else [*own, *plain_names(wrapped)]
    return [name.replace("_", "").lower() for name in names]


def kind_of_loss(loss: object, target_shape: tuple[int, ...], output_shape: tuple[int | None, ...]) -> str | None:
    """What kind of targets a loss compares outputs with.

    Args:
        loss: a Keras loss, its name, or a custom loss.
        target_shape: the targets' shape, the samples included.
        output_shape: the outputs' shape, the samples included.

    Returns:
        `"regression"` (real numbers), `"sparse"` (class numbers), `"categorical"` (one-hot classes), `"binary"` (zeros
        and ones), or `None` for a loss that is unknown.

    Example:
        >>> kind_of_loss("mse", (8, 1), (8, 1))
        'regression'
    """
    kind = next((_KIND_OF[name] for name in plain_names(loss) if name in _KIND_OF), None)
    if kind not in ("either", "overlap"):
        return kind
    if output_shape[-1] == 1:
        return "binary"
    sparse = len(target_shape) < len(output_shape) or target_shape[-1] == 1
    return "sparse" if sparse else "categorical"


def takes_class_numbers(loss: object) -> bool:
    """Whether a loss accepts class numbers, which TensorFlow uses as indices."""
    return any(_KIND_OF.get(name) == "sparse" for name in plain_names(loss))


def setting(loss: object, name: str) -> Any:
    """A setting of a loss, such as `"from_logits"` or `"ignore_class"`; `None` where it has none of that name."""
    return loss.get_config().get(name) if hasattr(loss, "get_config") and not isinstance(loss, type) else None
