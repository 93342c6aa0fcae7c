"""Labels, losses and sample weights: which belongs to which output of a model, and which labels a loss accepts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.losses import kind_of_loss, setting, takes_class_numbers
from edgeprune.types import Arrays, Loss, Model

_NOT_REAL = "cOSUmM"  # NumPy's kinds of complex numbers, objects, text and times


def check_labels(model: Model, y: Arrays | None, loss: Loss | None = None) -> None:
    """Refuse labels that a model's loss does not accept, before TensorFlow does so in the middle of a step.

    Args:
        model: a built model of either Keras.
        y: labels or targets `(n, ...)`; a dict or a list of them for several outputs, as `fit` accepts them. None where
            there are none.
        loss: a Keras loss or its name, or a list or dict of them for several outputs; left out, the compiled one.

    Raises:
        ValueError: labels are text, complex or, where the loss needs class numbers, no whole numbers in their range.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
        >>> check_labels(model, np.array([0, 2, 1]), "sparse_categorical_crossentropy")
        >>> check_labels(model, np.array([0, 3, 1]), "sparse_categorical_crossentropy")
        Traceback (most recent call last):
        ...
        ValueError: The labels must be class numbers from 0 to 2; got 3.
    """
    if y is None:
        return
    classes = _classes(model, y)
    losses = by_output(classes, getattr(model, "loss", None) if loss is None else loss, "losses")
    for name, labels in by_output(classes, y, "labels").items():
        if labels is not None and losses[name] is not None:
            _check(labels_of(name, classes), np.asarray(labels), losses[name], classes[name])


def check_output_labels(what: str, labels: np.ndarray, output_shape: tuple[int | None, ...], loss: Loss | None) -> None:
    """Refuse labels of one output that its loss does not accept, or that it would stretch to the output's shape.

    Args:
        what: what the error calls them, such as `"The labels"`.
        labels: labels or targets `(n, ...)`.
        output_shape: the output's shape, the samples included; `None` for a size that is unknown.
        loss: a Keras loss or its name; of one that is not Keras's own nothing is known.

    Raises:
        ValueError: labels are no real numbers, of another shape than the output's, or no class numbers in its range
            where the loss needs them.
    """
    _check(what, labels, loss, output_shape[-1] if len(output_shape) > 1 else None)
    kind = kind_of_loss(loss, labels.shape, output_shape)
    if kind is None:
        return
    given = [labels.shape[1:], labels.shape[1:-1] if labels.shape[-1:] == (1,) else None]
    wanted = output_shape[1:-1]
    if kind != "sparse":
        given, wanted = [labels.shape[1:], (*labels.shape[1:], 1)], output_shape[1:]
    if not any(shape_fits(shape, wanted) for shape in given):
        shown = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
        raise ValueError(
            f"The loss {shown!r} compares targets with outputs of shape {output_shape}, and the targets have "
            f"{labels.shape}."
        )


def check_sample_weights(sample_weight: Arrays | None) -> None:
    """Refuse weights of samples that are no real numbers.

    Args:
        sample_weight: weights `(n, ...)`; a dict or a list of them for several outputs, as `fit` accepts them, or None.

    Raises:
        ValueError: some are text, complex or no numbers at all.
    """
    several = list(sample_weight.values()) if isinstance(sample_weight, Mapping) else sample_weight
    for weights in several if isinstance(several, list | tuple) else [several]:
        if weights is not None:
            _check_real("The sample weights", np.asarray(weights))


def by_output(names: Iterable[str], part: object, what: str) -> dict[str, Any]:
    """Labels, losses or weights by the name of the output they are for; None for an output that has none.

    Args:
        names: the names of the model's outputs, in their order.
        part: a dict by these names, a list or tuple in their order, or one for all.
        what: the word for it in the error.

    Raises:
        ValueError: a list or tuple is too short or too long, or none of a dict's keys is the name of an output.
    """
    names = list(names)
    if isinstance(part, Mapping):
        if part and not part.keys() & set(names):
            raise ValueError(f"The model's outputs are {names}, got {what} for {list(part)}.")
        return {name: part.get(name) for name in names}
    if isinstance(part, list | tuple):
        if len(part) != len(names):
            raise ValueError(
                f"The model has {len(names)} outputs, got {len(part)} {what}: pass one for each of {names}."
            )
        return dict(zip(names, part, strict=True))
    return dict.fromkeys(names, part)


def _classes(model: Model, y: Arrays | None) -> dict[str, int | None]:
    """By output the number of its classes: the size of its last axis, None where that is unknown."""
    if flavor.is_graph_model(model):
        outputs = flavor.output_tensors(model)
        return {name: tensor.shape[-1] if len(tensor.shape) else None for name, tensor in outputs.items()}
    if isinstance(y, Mapping):
        return dict.fromkeys(y)
    return {f"output_{number}": None for number in range(len(y) if isinstance(y, list | tuple) else 1)}


def _check(what: str, labels: np.ndarray, loss: Loss | None, classes: int | None) -> None:
    _check_real(what, labels)
    if not takes_class_numbers(loss) or not labels.size:
        return
    ignored = setting(loss, "ignore_class")
    wrong = (labels != np.floor(labels)) | (labels < 0)  # NaN is not equal to itself
    wrong |= False if classes is None else labels >= classes
    wrong &= True if ignored is None else labels != ignored
    if wrong.any():
        numbers = "class numbers, 0 or more" if classes is None else f"class numbers from 0 to {classes - 1}"
        raise ValueError(f"{what} must be {numbers}; got {_shown(labels[wrong])}.")


def _check_real(what: str, values: np.ndarray) -> None:
    if values.dtype.kind in _NOT_REAL:
        raise ValueError(f"{what} must be real numbers; got values of type {values.dtype}, such as {_shown(values)}.")


def _shown(values: np.ndarray) -> str:
    """The first of some values, as a user writes it."""
    return repr(values.reshape(-1)[:1].tolist()[0]) if values.size else "none"


def labels_of(name: str, outputs: Collection[str]) -> str:
    """What an error calls the labels of one of a model's outputs."""
    return "The labels" if len(outputs) == 1 else f"The labels of output {name!r}"


def shape_fits(shape: tuple[int, ...] | None, wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape is the one that is wanted, in which `None` stands for any size."""
    if shape is None or len(shape) != len(wanted):
        return False
    return all(size in (None, own) for own, size in zip(shape, wanted, strict=True))
