"""The weights of one layer of the smaller model, solved on all its uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from edgeprune import flavor
from edgeprune.channels.reconstruct.linear import Part
from edgeprune.channels.reconstruct.report import SolvedLayer
from edgeprune.channels.reconstruct.ridge import Equations, Solution, Solver, least_squares
from edgeprune.channels.reconstruct.span import MOST_NUMBERS, MOST_ROWS, Rows, solve_in_span
from edgeprune.channels.reconstruct.windows import Chosen
from edgeprune.types import Layer, Variable

LEAST_ROWS = 20_000  # places that a layer is solved on, where there are so many
ROWS_PER_INPUT = 10  # where its outputs have so many weights that this is more
MOST_INPUTS = 8192  # weights of an output: the equations take the square of it; of more, the rows are kept
BLOCK = 1 << 22  # numbers that are turned into float64 at once
HELD_OUT = 5  # every so many samples one, which the ridge is judged by

S = TypeVar("S", Equations, Rows)


class CannotSolve(Exception):
    """Raised for a layer that keeps what the removal left of its weights; the text says why."""


@dataclass(frozen=True, eq=False)
class Use:
    """What a layer is called on in the original and in the smaller model, for a batch.

    Attributes:
        old: array (samples, ...).
        new: array (samples, ...).
        first: the number of the first sample among all samples.
        samples: how many samples the batch is of: fewer than there are rows where steps were folded into samples.
    """

    old: np.ndarray
    new: np.ndarray
    first: int
    samples: int


def solve_part(
    name: str,
    old: Part,
    new: Part,
    wanted: np.ndarray,
    solve: Solver,
    uses: Iterable[Use],
    batches: int,
    intercept: bool,
    random: np.random.Generator,
) -> SolvedLayer | None:
    """Solve for the kernel and the bias of a layer of the smaller model, and assign them.

    Args:
        name: its path name.
        old: the layer of the original.
        new: that of the smaller model.
        wanted: the original's kernel, cut along all axes but those that it reads.
        solve: finds the change of its weights.
        uses: all batches of all its uses.
        batches: how many there are.
        intercept: whether what comes next makes up for a shift of the outputs, where it has no bias.
        random: chooses the places.

    Returns:
        The errors before and after; None where there was no error.

    Raises:
        CannotSolve: its outputs have too many weights, or its rows do not fit those of the original.
        ValueError: what it reads is not finite.
    """
    kernel = new.linear.kernel
    values = flavor.array_of(kernel)
    matrix, target = new.linear.matrix(values), new.linear.matrix(wanted)  # of as many groups
    groups, inputs, outputs = matrix.shape
    is_wide = inputs > MOST_INPUTS
    if is_wide and (solve is not least_squares or groups > 1):
        raise CannotSolve(f"each output has {inputs:,} weights, more than {MOST_INPUTS:,}")
    if target.shape[0] != groups or target.shape[2] != outputs:
        raise CannotSolve("its groups of channels are not those of the original")
    rows = min(MOST_ROWS, MOST_NUMBERS // inputs) if is_wide else max(LEAST_ROWS, ROWS_PER_INPUT * inputs)
    sums: _Sums[Rows] | _Sums[Equations]
    if is_wide:
        sums = _Sums(Rows(), Rows(), solve_in_span)
    else:
        fit, held = (Equations.zeros(groups, inputs, outputs) for _ in range(2))
        sums = _Sums(fit, held, partial(solve, matrix, target))
    for x_old, x_new, held_out in _rows(old, new, uses, -(-rows // batches), max(BLOCK // target.shape[1], 1), random):
        y = x_old @ target
        sums.add(x_new, y - x_new @ matrix, y, held_out)
    total = sums.total
    if not total.is_finite:
        raise ValueError(f"What {name!r} reads is NaN or infinite on this data: look for such values in the data.")
    bias = new.linear.bias
    has_shift = bias is not None or intercept
    before = total.error(
        np.zeros_like(matrix), total.mean_residual if bias is None and intercept else np.zeros((groups, outputs))
    )
    if before <= 1e-12 * total.target_squares:
        return None
    solution = sums.solution(has_shift)
    change, shift = _rounded(kernel, matrix, solution.change), solution.shift
    after = total.error(change, shift)
    if after < before:
        kernel.assign(new.linear.kernel_of(matrix + change, values.shape).astype(values.dtype))
        if bias is not None:
            old_bias = flavor.array_of(bias)
            bias.assign((old_bias + new.linear.shift_of(shift, old_bias.shape)).astype(old_bias.dtype))
    before, after = (float(np.sqrt(error / total.target_squares)) for error in (before, min(after, before)))
    return SolvedLayer(name, before, after, total.count, inputs, solution.ridge)


@dataclass
class _Sums(Generic[S]):
    """What is added up over the rows: those that are solved on, and those that are held out."""

    fit: S
    held: S
    solve: Callable[[S, S, bool], Solution]

    def add(self, x: np.ndarray, r: np.ndarray, y: np.ndarray, held_out: np.ndarray) -> None:
        """Add rows, as `Equations.add` accepts them."""
        for sums, own in ((self.fit, ~held_out), (self.held, held_out)):
            sums.add(x[:, own], r[:, own], y[:, own])

    def solution(self, intercept: bool) -> Solution:
        """What is found on them."""
        return self.solve(self.fit, self.held, intercept)

    @property
    def total(self) -> S:
        """All rows."""
        return self.fit + self.held


def _rounded(kernel: Variable, matrix: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The change that is left after the sum is stored in the kernel's type."""
    dtype = flavor.array_of(kernel).dtype
    return (matrix + change).astype(dtype).astype(np.float64) - matrix


def _rows(
    old: Part, new: Part, uses: Iterable[Use], count: int, block: int, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of both models at the same places, up to `count` a batch, and which of them are held out."""
    for use in uses:
        before, after = (folded(x, old.folded) for x in (use.old, use.new))
        places = old.linear.places(before.shape)
        if places != new.linear.places(after.shape) or len(before) != len(after):
            raise CannotSolve("it works on fewer places than in the original")
        for chosen in chosen_places(len(before), places, count, block, random):
            numbers = use.first + chosen.samples * use.samples // len(before)
            yield old.linear.rows(before, chosen), new.linear.rows(after, chosen), numbers % HELD_OUT == HELD_OUT - 1


def chosen_places(samples: int, places: int, count: int, block: int, random: np.random.Generator) -> Iterator[Chosen]:
    """Up to `count` of the places of all samples, some at a time."""
    of_all = samples * places
    flat = np.arange(of_all) if count >= of_all else np.sort(random.choice(of_all, count, replace=False))
    for start in range(0, len(flat), block):
        yield Chosen(*np.divmod(flat[start : start + block], max(places, 1)))


def folded(x: np.ndarray, axes: int) -> np.ndarray:
    """Values with some axes after the first made samples too."""
    return x.reshape(-1, *x.shape[1 + axes :]) if axes else x


def capture(layer: Layer, call: Callable[[], Any], which: Callable[..., Any] = lambda x, *_, **__: x) -> list[Any]:
    """What a layer inside another is called on while a function runs: of each call what `which` picks."""
    seen: list[Any] = []
    own = layer.call

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(which(*args, **kwargs))
        return own(*args, **kwargs)

    with flavor.overridden(layer, call=watched):
        call()
    return seen
