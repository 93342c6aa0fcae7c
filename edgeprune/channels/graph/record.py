"""What the rules of a model's layers write down during one trace; `settle` makes a graph of channels of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeprune.channels.graph.channel_values import Space, Value
from edgeprune.channels.graph.coupling import Cost, Rescale, Resize, Slot
from edgeprune.types import Layer, Variable


class CannotFollow(Exception):
    """Raised by a rule for a call whose channels it cannot follow; the text is the reason."""


class Record:
    """What is known of a model's channels so far, in terms of ids.

    Attributes:
        space: the ids, and the operations on values.
        names: the path names of the layers, by `id`.
        inside: the layers, by `id`, that read channels which are not in a tensor of the graph.
        runs: lines of ids of which at least one is kept.
        slots: the axes of weights that ids lie along, by weight (`id`) and axis.
        costs: the MACs of the calls.
        resizes: the arguments that follow the number of channels, by owner (`id`) and name.
        shape_resizes: the shapes among the arguments that follow a value, once it is settled along which axes ids lie.
        rescales: the weights that compensate for a layer's scale, by `id`.
        notes: what a plan says if any of these channels can be dropped.
    """

    def __init__(self, weights: Sequence[Variable], names: dict[int, str]) -> None:
        self.space = Space()
        self.names = names
        self.inside: set[int] = set()
        self.runs: list[np.ndarray] = []
        self.slots: dict[tuple[int, int], Slot] = {}
        self.costs: list[Cost] = []
        self.resizes: dict[tuple[int, str], Resize] = {}
        self.shape_resizes: list[tuple[Any, str, Sequence[Any], Value, int]] = []
        self.rescales: dict[int, Rescale] = {}
        self.notes: list[tuple[str, tuple[np.ndarray | None, ...]]] = []
        self._weights = {id(weight) for weight in weights}
        self._forbidden: dict[tuple[int, int], str] = {}

    def line_of(self, weight: Variable, axis: int) -> np.ndarray | None:
        """The ids along a weight's axis that an earlier call noted; None where none did."""
        slot = self.slots.get((id(weight), axis))
        return None if slot is None else slot.classes

    def add_slot(
        self,
        weight: Variable,
        layer: Layer,
        name: str | None,
        axis: int,
        line: np.ndarray,
        reads: bool = False,
        makes: bool = False,
    ) -> None:
        """Note that an axis of a weight is indexed by these ids."""
        if id(weight) not in self._weights:
            raise CannotFollow(f"{layer.name} computes its weights")
        key = (id(weight), axis)
        if key in self._forbidden:
            self.space.ids.freeze(line, self._forbidden[key])
        known = self.slots.get(key)
        if known is not None:
            self.space.ids.unite(known.classes, line)
        else:
            name = name or weight.name.rpartition("/")[2].partition(":")[0]
            self.slots[key] = Slot(weight, layer, name, axis, line, reads, makes)

    def forbid(self, weight: Variable, axis: int, reason: str) -> None:
        """Note that nothing can be cut along this axis of a weight, whatever a later call says."""
        self._forbidden.setdefault((id(weight), axis), reason)

    def add_resize(self, owner: Layer, key: str, lines: Sequence[np.ndarray], value: Callable[..., Any]) -> None:
        """Note that an argument follows these ids; what a second call of a shared layer says must agree."""
        known = self.resizes.get((id(owner), key))
        if known is None:
            self.resizes[id(owner), key] = Resize(owner, key, tuple(lines), value)
            return
        for a, b in zip(known.vectors, lines, strict=True):
            if a is not None and b is not None and a.shape == b.shape:
                self.space.ids.unite(a, b)
            else:
                for line in (a, b):
                    if line is not None:
                        self.space.ids.freeze(line, f"a shared layer's {key} must fit all its calls")

    def add_shape_resize(self, owner: Layer, key: str, shape: Sequence[Any], value: Value, skip: int) -> None:
        """Note that a shape among the arguments follows a value."""
        self.shape_resizes.append((owner, key, shape, value, skip))

    def add_rescale(self, weight: Variable, table: np.ndarray) -> None:
        """Note a weight that makes up for a layer's scale, once for all calls of a shared layer."""
        self.rescales.setdefault(id(weight), Rescale(weight, table))

    def add_cost(self, layer: Layer, macs: int, lines: tuple[np.ndarray, ...]) -> None:
        """Note the MACs of one call."""
        self.costs.append(Cost(layer, macs, lines))

    def note(self, sentence: str, lines: tuple[np.ndarray | None, ...]) -> None:
        """Note something a plan should say if any of these channels can be dropped."""
        self.notes.append((sentence, lines))
