"""The cost of a model's operators at any widths, between those at which it is known.

An operator that depends on one line is looked at in every width that a plan may choose. One that depends on two, as a
convolution does on its inputs and its outputs, is looked at along each of them, where the steps of a runtime's tiles
show, and on a coarse grid: the cost between is what the two steps and the grid say together. One of more lines is
looked at where all of them shrink alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeprune.latency.template import FileTemplate

_COARSE = (0.0, 0.3, 0.6, 1.0)  # of a line's range
_MOST_ALONG_INPUTS = 9  # time follows the inputs without large steps
_MOST_ALONG_OUTPUTS = 33
_LEAST = 1e-6  # of a cost, so that ratios can be taken

Surface = Callable[..., np.ndarray]


class OperatorCosts(Protocol):
    """Where the costs of single operators come from: measured, estimated, or a compiler's."""

    unit: str
    source: str
    estimated: bool

    def of_nothing(self) -> float:
        """What every run of a file costs, however little it does; part of the cost of each operator alone."""

    def of_operators(self, template: FileTemplate, wanted: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
        """The cost of each operator (its number in the template) at these counts of all lines."""

    def of_model(self, template: FileTemplate, counts: Sequence[np.ndarray]) -> np.ndarray | None:
        """The cost of the whole file at each of these counts, looked at together; None where only operators can be."""


@dataclass(frozen=True, eq=False)
class CostTerm:
    """A part of a cost: a function of the counts of a few lines.

    Attributes:
        lines: the lines.
        cost: accepts an array for each of them, which are broadcast, and returns the cost.
    """

    lines: tuple[int, ...]
    cost: Surface


@dataclass(frozen=True, eq=False)
class _Samples:
    """Where one operator is looked at: int array (samples, its lines)."""

    place: int
    lines: tuple[int, ...]
    at: np.ndarray

    def counts(self, original: np.ndarray) -> list[np.ndarray]:
        rows = []
        for sample in self.at:
            row = original.copy()
            row[list(self.lines)] = sample
            rows.append(row)
        return rows


def operator_terms(template: FileTemplate, costs: OperatorCosts, points: Mapping[int, np.ndarray]) -> list[CostTerm]:
    """The cost of each operator of a model as a function of its lines.

    Args:
        template: the model's file.
        costs: where costs come from.
        points: line to the counts that a plan may choose, ascending.

    Returns:
        A term for each operator.
    """
    samples = [_samples(template, place, points) for place, operator in enumerate(template.operators) if operator.alone]
    wanted = [(of_one.place, counts) for of_one in samples for counts in of_one.counts(template.counts)]
    found = np.maximum(costs.of_operators(template, wanted) - costs.of_nothing(), _LEAST)
    ends = np.cumsum([len(of_one.at) for of_one in samples])
    return [
        CostTerm(of_one.lines, _surface(of_one.at, values))
        for of_one, values in zip(samples, np.split(found, ends[:-1]), strict=True)
    ]


def total(terms: Sequence[CostTerm], counts: np.ndarray) -> float:
    """The sum of terms at these counts of all lines."""
    return float(sum(float(term.cost(*(counts[line] for line in term.lines))) for term in terms))


def _samples(template: FileTemplate, place: int, points: Mapping[int, np.ndarray]) -> _Samples:
    lines = template.operators[place].lines
    axes = [points[line] for line in lines]
    if not lines:
        at = np.zeros((1, 0), int)
    elif len(lines) == 1:
        at = _some(axes[0], _MOST_ALONG_OUTPUTS)[:, None]
    elif len(lines) == 2:
        along = (_some(axes[0], _MOST_ALONG_INPUTS), _some(axes[1], _MOST_ALONG_OUTPUTS))
        coarse = [_coarse(axis) for axis in along]
        rows = {(int(a), int(along[1][-1])) for a in along[0]} | {(int(along[0][-1]), int(b)) for b in along[1]}
        rows |= {(int(a), int(b)) for a in coarse[0] for b in coarse[1]}
        at = np.array(sorted(rows))
    else:
        fractions = np.linspace(0, 1, _MOST_ALONG_INPUTS)
        at = np.stack([axis[np.rint(fractions * (len(axis) - 1)).astype(int)] for axis in axes], axis=1)
        at = np.unique(at, axis=0)
    return _Samples(place, lines, at)


def _some(axis: np.ndarray, most: int) -> np.ndarray:
    """Some of a line's counts, the first and the last among them."""
    return axis[np.unique(np.linspace(0, len(axis) - 1, min(most, len(axis))).round().astype(int))]


def _coarse(axis: np.ndarray) -> np.ndarray:
    wanted = axis[0] + np.array(_COARSE) * (axis[-1] - axis[0])
    return axis[np.unique(np.abs(axis[:, None] - wanted).argmin(axis=0))]


def _surface(at: np.ndarray, values: np.ndarray) -> Surface:
    if not at.shape[1]:
        return lambda: values[0]
    if at.shape[1] == 1:
        return lambda counts: np.interp(counts, at[:, 0], values)
    if at.shape[1] == 2:
        return _product_surface(at, values)
    sums = at.sum(axis=1)
    order = np.argsort(sums)
    return lambda *counts: np.interp(sum(counts), sums[order], values[order])


def _product_surface(at: np.ndarray, values: np.ndarray) -> Surface:
    """The cost over two lines: the profile along each, times what the grid says of both together."""
    known = {(int(a), int(b)): value for (a, b), value in zip(at, values, strict=True)}
    last = at.max(axis=0)
    first_axis = np.unique(at[at[:, 1] == last[1], 0])
    second_axis = np.unique(at[at[:, 0] == last[0], 1])
    first = np.array([known[int(a), int(last[1])] for a in first_axis])
    second = np.array([known[int(last[0]), int(b)] for b in second_axis])
    coarse = [_coarse(axis) for axis in (first_axis, second_axis)]

    def along(counts: np.ndarray, axis: np.ndarray, profile: np.ndarray) -> np.ndarray:
        return np.interp(counts, axis, profile)

    together = np.array(
        [
            [known[int(a), int(b)] / (along(a, first_axis, first) * along(b, second_axis, second)) for b in coarse[1]]
            for a in coarse[0]
        ]
    )

    def surface(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = np.broadcast_arrays(a, b)
        return (
            along(a, first_axis, first)
            * along(b, second_axis, second)
            * _bilinear(a, b, coarse[0], coarse[1], together)
        )

    return surface


def _bilinear(a: np.ndarray, b: np.ndarray, a_axis: np.ndarray, b_axis: np.ndarray, grid: np.ndarray) -> np.ndarray:
    a_low, a_part = _place(a, a_axis)
    b_low, b_part = _place(b, b_axis)
    a_high, b_high = np.minimum(a_low + 1, len(a_axis) - 1), np.minimum(b_low + 1, len(b_axis) - 1)
    low = grid[a_low, b_low] * (1 - b_part) + grid[a_low, b_high] * b_part
    high = grid[a_high, b_low] * (1 - b_part) + grid[a_high, b_high] * b_part
    return low * (1 - a_part) + high * a_part


def _place(counts: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which points of an axis counts lie: the number of the lower one, and how far from it, 0 to 1."""
    position = np.interp(counts, axis, np.arange(len(axis)))
    low = np.minimum(position.astype(int), max(len(axis) - 2, 0))
    return low, position - low
