"""Notice samples that were not scaled as the model's training data: raw pixels, or values that are scaled twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.types import Arrays, Layer, Model

# Layers through which an input's values reach the next layer as they are.
_PASSING = ("CenterCrop", "Cropping2D", "FakeQuantize", "InputLayer", "Permute", "Resizing", "Reshape", "ZeroPadding2D")
_WEIGHTED = ("Conv2D", "Dense", "DepthwiseConv2D", "Flatten", "QuantizedLayer", "SeparableConv2D")
# Scaled values lie around -1 to 1; what is narrower or wider by far was scaled twice, or not at all.
_NARROW, _WIDE = 0.02, 20.0


def range_notes(model: Model, samples: Mapping[str, np.ndarray]) -> list[str]:
    """What is odd in the range of samples, beside what the model does with them first.

    Args:
        model: a built model of either Keras; of one with subclassed parts nothing is known.
        samples: input name to `(samples, ...)`, in the order of the model's inputs.

    Returns:
        At most one sentence for each input.
    """
    notes = []
    for values, (name, layers) in zip(samples.values(), _first_layers(model), strict=False):
        if values.dtype.kind == "f":
            notes += _notes(name, values, layers)[:1]
    return notes


def difference_notes(samples: Mapping[str, np.ndarray], others: Arrays) -> list[str]:
    """A sentence for each input whose representative data has a far wider or narrower range than other samples of it.

    Args:
        samples: the representative data: input name to `(samples, ...)`.
        others: other samples, such as those of a validation: an array for the only input, or a dict of them.
    """
    named = others if isinstance(others, Mapping) else dict.fromkeys(samples, others) if len(samples) == 1 else {}
    notes = []
    for name in samples.keys() & named.keys():
        one, other = samples[name], np.asarray(named[name])
        wide, narrow = sorted((float(np.ptp(one)), float(np.ptp(other))), reverse=True)
        if narrow > 0 and wide > 50 * narrow:
            notes.append(
                f"Input {name!r}: the representative data is between {_range(one)}, the other samples between "
                f"{_range(other)}. Scale both as the model's training data."
            )
    return notes


def _notes(name: str, values: np.ndarray, layers: list[Layer]) -> list[str]:
    kinds = {type(layer).__name__ for layer in layers}
    if kinds and kinds <= set(_WEIGHTED) and values.ndim == 4 and _are_pixels(values):
        return [
            f"Input {name!r}: the samples are whole numbers between {_range(values)}, as raw pixels are, and no layer "
            "scales them. If the model was trained on scaled values, scale the samples alike."
        ]
    return [note for layer in layers for note in _scaling_note(name, values, layer)]


def _scaling_note(name: str, values: np.ndarray, layer: Layer) -> Iterator[str]:
    scaled = _scaled(values, layer)
    if scaled is None or np.ptp(values) == 0:
        return
    if scaled.std() < _NARROW or np.median(np.abs(scaled)) > _WIDE:
        how = "scaled before" if scaled.std() < _NARROW else "not scaled"
        yield (
            f"Input {name!r}: the samples are between {_range(values)}, of which layer {layer.name!r} "
            f"({type(layer).__name__}) makes {_range(scaled)}, as if they were {how}. Pass values like those that the "
            "model was trained on."
        )


def _scaled(values: np.ndarray, layer: Layer) -> np.ndarray | None:
    """What a layer that brings values to about -1 to 1 makes of them; None for another layer."""
    kind = type(layer).__name__
    if kind == "Rescaling" and np.ndim(layer.scale) == np.ndim(layer.offset) == 0 and abs(layer.scale) <= 2:
        return values * layer.scale + layer.offset
    if kind == "Normalization" and not layer.invert:
        mean, variance = np.asarray(layer.mean), np.asarray(layer.variance)
        return (values - mean) / np.maximum(np.sqrt(variance), 1e-7)
    return None


def _are_pixels(values: np.ndarray) -> bool:
    return values.min() >= 0 and 100 < values.max() <= 255 and np.array_equal(values, np.rint(values))


def _first_layers(model: Model) -> list[tuple[str, list[Any]]]:
    """Each input's name with the layers that its values reach unchanged; empty where the graph is unknown."""
    if not flavor.is_graph_model(model):
        return []
    try:
        calls, _ = flavor.layer_calls(model)
    except ValueError:  # a part is subclassed
        return []
    return [(name, _reached(calls, number)) for number, name in enumerate(flavor.input_names(model) or ())]


def _reached(calls: list[Any], start: int) -> list[Any]:
    unchanged, reached = {start}, []
    for number, call in enumerate(calls):
        if unchanged & set(call.producers):
            if type(call.layer).__name__ in _PASSING:
                unchanged.add(number)
            else:
                reached.append(call.layer)
    return reached


def _range(values: np.ndarray) -> str:
    return f"{values.min():.4g} and {values.max():.4g}"
