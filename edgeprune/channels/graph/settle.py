"""From what the rules wrote down, in terms of ids, to classes of channels and the groups that they form."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from edgeprune.channels.graph.channel_values import Value, varying
from edgeprune.channels.graph.coupling import Cost, Group, Rescale, Resize, Slot, Tensor
from edgeprune.channels.graph.record import Record


class Settlement:
    """A record when every call was followed: the ids that were united are one class, and classes have numbers.

    Attributes:
        class_count: the number of classes.
        reasons: by class, why it is frozen.
        slots: the axes of weights that classes lie along.
        runs: classes of which at least one is kept.
        groups: classes that own slices of the same axes.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._space = record.space
        self._space.settle()
        ids = self._space.ids
        self._fixed = ids.fresh(1)
        ids.freeze(self._fixed, "it cannot be dropped")
        roots, self._classes = np.unique(ids.find(np.arange(len(ids))), return_inverse=True)
        self.class_count = len(roots)
        numbers = dict(zip(roots.tolist(), range(len(roots)), strict=True))
        self.reasons = {numbers[root]: reason for root, reason in ids.frozen().items()}
        self.slots = tuple(
            Slot(slot.weight, slot.layer, slot.name, slot.axis, self.numbered(slot.classes), slot.reads, slot.makes)
            for slot in record.slots.values()
        )
        self.runs = tuple(self.numbered(line) for line in record.runs)
        self.groups = self._groups()
        for group in self.groups:
            if group.frozen:
                self.reasons.update(dict.fromkeys(group.classes.tolist(), group.frozen))

    def numbered(self, line: np.ndarray | None) -> np.ndarray:
        """The classes of a line of ids; None is a line that cannot be dropped."""
        return self._classes[self._fixed if line is None else line]

    def tensor(self, value: Value) -> Tensor:
        """A value in terms of classes."""
        axes = {}
        for part in value.parts:
            part = self._space.settled_part(part) if len(varying(part)) > 1 else part
            for axis in varying(part):
                axes[axis] = self._classes[part.reshape(-1)]
        return Tensor(value.shape, axes)

    def costs(self) -> tuple[Cost, ...]:
        """The MACs of the calls."""
        return tuple(Cost(one.layer, one.macs, tuple(map(self.numbered, one.axes))) for one in self._record.costs)

    def rescales(self) -> tuple[Rescale, ...]:
        """The weights that compensate for a layer's scale."""
        return tuple(Rescale(one.weight, self.numbered(one.classes)) for one in self._record.rescales.values())

    def notes(self) -> tuple[str, ...]:
        """What a plan says: the notes on channels of which any can be dropped."""
        return tuple(
            dict.fromkeys(
                sentence
                for sentence, lines in self._record.notes
                if any(number not in self.reasons for line in lines for number in self.numbered(line).tolist())
            )
        )

    def resizes(self) -> tuple[Resize, ...]:
        """The arguments that follow the number of channels."""
        plain = (
            Resize(one.owner, one.key, tuple(map(self.numbered, one.vectors)), one.value)
            for one in self._record.resizes.values()
        )
        return (*plain, *self._shape_resizes())

    def _shape_resizes(self) -> list[Resize]:
        """The shapes among the arguments, now that it is settled along which axes channels lie."""
        resizes: dict[tuple[int, str], Resize] = {}
        for owner, key, shape, value, skip in self._record.shape_resizes:
            axes = self.tensor(value).axes
            places = [
                place
                for place, size in enumerate(shape)
                if isinstance(size, int | np.integer) and size > 1 and place + skip in axes
            ]
            if places:
                lines = tuple(axes[place + skip] for place in places)
                resizes.setdefault((id(owner), key), Resize(owner, key, lines, _Reshaped(tuple(shape), tuple(places))))
        return list(resizes.values())

    def _groups(self) -> tuple[Group, ...]:
        """Classes that own slices of the same axes, in the order in which their layers make them."""
        members = self._members()
        touching = self._touching(members)
        makers = [[slot for slot in slots if slot.makes] for slots in touching]
        groups = []
        for own, slots, making, name in zip(members, touching, makers, self._names(makers), strict=True):
            layers = dict.fromkeys(self._layer_name(slot) for slot in making)
            heads = next((len(slot.classes) for slot in making if slot.classes.ndim == 2), None)
            groups.append(Group(name, own, tuple(slots), self._reason(own, heads or 1), tuple(layers), heads))
        return tuple(groups)

    def _members(self) -> list[np.ndarray]:
        """The classes of each group. Those that are on the same axes have the same sum of random marks."""
        count = self._owning_count()
        is_frozen = np.zeros(count, bool)
        is_frozen[[number for number in self.reasons if number < count]] = True
        made = np.zeros(count, bool)
        made[np.concatenate([np.zeros(0, int), *(slot.classes.ravel() for slot in self.slots if slot.makes)])] = True
        owned = [
            *(slot.classes.ravel() for slot in self.slots),
            *(run[run < count] for run in self.runs),
            np.flatnonzero(is_frozen),
        ]
        marks = np.random.default_rng(0).integers(1, 2**63, len(owned), dtype=np.uint64)
        signatures = np.zeros(count, np.uint64)
        for classes, mark in zip(owned, marks, strict=True):
            signatures[classes] = signatures[classes] + mark  # not `+=`: one that is there several times is marked once
        return _alike(np.flatnonzero(made), signatures)

    def _owning_count(self) -> int:
        """One more than the last class that owns a slice of a weight."""
        return max((int(slot.classes.max()) for slot in self.slots if len(slot.classes)), default=-1) + 1

    def _touching(self, members: list[np.ndarray]) -> list[list[Slot]]:
        """The slots of each group: all its classes lie along the same, so its first class is looked for."""
        of_first = np.full(self._owning_count(), -1)
        of_first[[own[0] for own in members]] = np.arange(len(members))
        touching: list[list[Slot]] = [[] for _ in members]
        for slot in self.slots:
            found = of_first[slot.classes]
            for number in sorted(set(found[found >= 0].tolist())):
                touching[number].append(slot)
        return touching

    def _names(self, makers: list[list[Slot]]) -> list[str]:
        """A group is named for the first layer that makes its channels; with a number where it makes several."""
        names = [self._layer_name(making[0]) for making in makers]
        repeated = {name for name, times in Counter(names).items() if times > 1}
        used: dict[str, int] = defaultdict(int)
        numbered = []
        for name in names:
            used[name] += 1
            numbered.append(f"{name}:{used[name] - 1}" if name in repeated else name)
        return numbered

    def _layer_name(self, slot: Slot) -> str:
        return self._record.names.get(id(slot.layer), slot.layer.name)

    def _reason(self, own: np.ndarray, heads: int) -> str | None:
        if int(own[0]) in self.reasons:
            return self.reasons[int(own[0])]
        return "it has a single channel" if len(own) == heads else None


def _alike(classes: np.ndarray, signatures: np.ndarray) -> list[np.ndarray]:
    """The classes with the same signature together, in the order of the first of each."""
    if not len(classes):
        return []
    _, first, kind = np.unique(signatures[classes], return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[kind]
    return np.split(classes[np.argsort(place, kind="stable")], np.cumsum(np.bincount(place))[:-1])


class _Reshaped:
    """A shape with other sizes at some places; what is no plain size is left to the call (`...`)."""

    def __init__(self, shape: tuple, places: tuple[int, ...]) -> None:
        plain = (int, np.integer, type(None))
        self.shape = tuple(size if isinstance(size, plain) else ... for size in shape)
        self.places = places

    def __call__(self, *sizes: int) -> tuple:
        shape = list(self.shape)
        for place, size in zip(self.places, sizes, strict=True):
            shape[place] = size
        return tuple(shape)
