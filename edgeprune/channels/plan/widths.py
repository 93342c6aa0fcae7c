"""The widths that a group of channels may be left with: multiples that run fast, and the limits of a plan."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph, Group
from edgeprune.number_checks import check_whole

RoundTo = int | str | Callable[[Group], int]


def float_tile(group: Group) -> int:
    """The multiple of channels that fills the tiles of float kernels on a CPU (XNNPACK).

    The time of a convolution follows its outputs rounded up to 32, that of a depthwise one is lowest at multiples
    of 16. Narrow groups get finer multiples, as a whole tile of them is a large part of their channels.
    """
    depthwise = any("Depthwise" in type(slot.layer).__name__ or slot.name == "depthwise_kernel" for slot in group.slots)
    return 32 if width_of(group) >= 128 else 16 if depthwise or width_of(group) >= 32 else 8


def tile_int8(group: Group) -> int:
    """The multiple of channels that fills the tiles of int8 kernels: outputs come by 16 and inputs by 8."""
    return 16 if width_of(group) >= 64 else 8


TILES = {"tile": float_tile, "tile-int8": tile_int8}


@dataclass(frozen=True)
class Widths:
    """The numbers of classes that each group may keep: all, or multiples of `steps` from `least` on, up to `most`."""

    sizes: np.ndarray
    steps: np.ndarray
    least: np.ndarray
    most: np.ndarray

    @staticmethod
    def of(
        groups: Sequence[Group],
        round_to: int | str | Callable[[Group], int],
        min_channels: int,
        max_ratio: float,
        gone: np.ndarray,
    ) -> Widths:
        """Those that the limits of a plan allow."""
        sizes = np.array([group.count for group in groups])
        per_class = np.array([width_of(group) // group.count for group in groups])
        multiples = multiples_of(round_to, groups)
        steps = multiples // np.gcd(multiples, per_class)
        least = np.maximum(np.ceil(min_channels / per_class), np.ceil(sizes * (1 - max_ratio) - 1e-9))
        least = np.maximum(least, 1).astype(int)
        least = -(-least // steps) * steps
        most = np.array([int(_of_heads(group, ~gone).sum(axis=1).max()) for group in groups])
        return Widths(sizes, steps, np.minimum(least, most), most)

    @property
    def tops(self) -> np.ndarray:
        """The largest multiple of each group."""
        return self.sizes // self.steps * self.steps

    def nearest(self, counts: np.ndarray) -> np.ndarray:
        """The allowed counts nearest to these."""
        rounded = np.floor(counts / self.steps + 0.5).astype(int) * self.steps
        whole = (counts > (self.tops + self.sizes) / 2) | (self.least > self.tops)
        nearest = np.where(whole, self.sizes, np.clip(rounded, self.least, np.maximum(self.tops, self.least)))
        return np.minimum(nearest, self.most)

    def allowed(self, group: int) -> list[int]:
        """All counts that a group may keep."""
        multiples = range(self.least[group], self.tops[group] + 1, self.steps[group])
        most = int(self.most[group])
        return sorted({*(count for count in multiples if count <= most), most})

    def neighbours(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The allowed counts next below and next above; the same count where there is none."""
        below = np.where(counts > self.tops, self.tops, counts - self.steps)
        above = np.where(counts + self.steps > self.tops, self.sizes, counts + self.steps)
        return np.where(below < self.least, counts, below), np.minimum(above, self.most)


def narrowest(graph: ChannelGraph, round_to: RoundTo = 1, min_channels: int = 1, max_ratio: float = 0.9) -> np.ndarray:
    """The kept mask of a model whose groups are all as narrow as the limits of a plan (those of `solve`) allow."""
    kept = graph.full_mask()
    groups = [group for group in graph.groups if group.frozen is None]
    if groups:
        widths = Widths.of(groups, round_to, min_channels, max_ratio, ~kept)
        for group, least in zip(groups, widths.least.tolist(), strict=True):
            kept[group.classes.reshape(group.heads or 1, -1)[:, least:]] = False
    return kept


def unprunable(
    groups: Sequence[Group],
    round_to: RoundTo,
    min_channels: int,
    max_ratio: float,
    gone: np.ndarray | None = None,
) -> dict[str, str]:
    """The groups that the limits of a plan (those of `solve`) let lose nothing: name to the reason."""
    gone = np.zeros(1 + max((int(group.classes.max()) for group in groups), default=0), bool) if gone is None else gone
    if not groups:
        return {}
    widths = Widths.of(groups, round_to, min_channels, max_ratio, gone)
    multiples = multiples_of(round_to, groups)
    reasons = {}
    for number, (group, multiple) in enumerate(zip(groups, multiples.tolist(), strict=True)):
        if len(widths.allowed(number)) == 1 and widths.most[number] == group.count:
            width = width_of(group)
            if min_channels >= width:
                reasons[group.name] = f"min_channels={min_channels} leaves no smaller width for its {width} channels"
            elif multiple >= width:
                reasons[group.name] = f"round_to={multiple} leaves no smaller width for its {width} channels"
            else:
                reasons[group.name] = (
                    f"round_to={multiple} and max_ratio={max_ratio:g} leave no smaller width for its {width} channels"
                )
    return reasons


def width_of(group: Group) -> int:
    """The channels of a group as the runtime sees them.

    They are more than its classes where several channels go together, as those of a grouped convolution or of an
    attention head do; of channels inside attention heads they are those of one head. The gates of a recurrent layer
    are not counted: it has one channel a unit.
    """
    maker = next((slot for slot in group.slots if slot.makes), None)
    if maker is None or group.heads is not None:
        return group.count
    lines = [maker]
    lines += [slot for slot in group.slots if slot.name == "recurrent_kernel" and slot.reads]
    positions = min(int(np.isin(slot.classes, group.classes).sum()) for slot in lines)
    kind = type(maker.layer).__name__
    in_heads = "Attention" in kind or kind == "EinsumDense"  # an axis for the heads, then one for a head's channels
    return positions * (math.prod(maker.weight.shape[maker.axis + 1 :]) if in_heads else 1)


def multiples_of(round_to: int | str | Callable[[Group], int], groups: Sequence[Group]) -> np.ndarray:
    """The multiple that each group's channels are rounded to."""
    round_to = TILES[round_to] if isinstance(round_to, str) else round_to
    multiples = [round_to(group) if callable(round_to) else round_to for group in groups]
    for group, multiple in zip(groups, multiples, strict=True):
        check_whole(f"round_to (for group {group.name!r})", multiple, 1)
    return np.array(multiples)


def _of_heads(group: Group, of_classes: np.ndarray) -> np.ndarray:
    """What there is for each class of a group, (heads, channels); one row where there are no heads."""
    return of_classes[group.classes].reshape(group.heads or 1, -1)


def check_widths(groups: Sequence[Group], **limits: object) -> None:
    """Refuse a number by which no group could lose a channel."""
    widest = max(map(width_of, groups))
    for name, limit in limits.items():
        if isinstance(limit, numbers.Integral) and int(limit) > widest:
            raise ValueError(
                f"{name}={limit} is more than the {widest} channels of the widest group, so that none could lose any: "
                "lower it."
            )
