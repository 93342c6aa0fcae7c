"""Arrays matched by name or by order with what they are for: the inputs of a model or file, or its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgeprune.data.batches import InputShapes, are_samples
from edgeprune.data.structures import is_structure
from edgeprune.types import Arrays


def named_arrays(
    owner: str, shapes: InputShapes, arrays: Arrays, *, what: str = "input", all_of_them: bool = True
) -> dict[str, Any]:
    """Each array under the name of what it is for, in the order of the names.

    Args:
        owner: what has these inputs or outputs, as messages begin: `"Model 'net'"`, or the path of a file.
        shapes: by name the shapes without the samples; `()` where they are unknown.
        arrays: an array for the only one; for several a list or tuple in the order of the names, or a dict by name.
            Arrays of a dict for something else are ignored, as Keras ignores them. Samples in a list are one array.
        what: "input" or "output", for the message.
        all_of_them: whether a dict must have an array for each name.

    Raises:
        ValueError: one is missing, or there are not as many as names.

    Example:
        >>> found = named_arrays("Model 'net'", {"left": (2,), "right": (2,)}, (np.ones((1, 2)), np.zeros((1, 2))))
        >>> {name: values.tolist() for name, values in found.items()}
        {'left': [[1.0, 1.0]], 'right': [[0.0, 0.0]]}
    """
    if isinstance(arrays, Mapping):
        if all_of_them and not arrays.keys() >= shapes.keys():
            raise ValueError(f"{owner} has the {what}s {listed(shapes)}, got {listed(arrays)}.")
        return {name: arrays[name] for name in shapes if name in arrays}
    several: list[Any] = [arrays]
    if is_structure(arrays) and not (len(shapes) == 1 and are_samples(arrays, shapes)):
        several = list(arrays)
    if len(several) != len(shapes):
        count = f"1 {what}" if len(shapes) == 1 else f"{len(shapes)} {what}s"
        raise ValueError(f"{owner} has {count} ({listed(shapes)}), got {len(several)}.")
    return dict(zip(shapes, several, strict=True))


def listed(names: Iterable[str]) -> str:
    """Names for a message, quoted."""
    return ", ".join(map(repr, names)) or "none"
