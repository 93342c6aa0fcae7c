"""How many channels each group keeps, so that most of the importance is kept within limits on time, memory and size.

A knapsack in which the cost of an item depends on others: an operator's time follows the channels that it reads and
those that it makes. Shen et al., Structural Pruning via Latency-Saliency Knapsack (HALP, NeurIPS 2022), fill it channel
by channel; here every group chooses among all its widths given the others', at a price that is raised until the limits
hold, and single groups and pairs of them are then moved while that keeps more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.latency.cost import CostTerm

_SWEEPS = 12
_BISECTIONS = 24
_REWEIGHTINGS = 4
_EXCHANGES = 40
_NEAR = 4  # steps down that an exchange tries


class LimitError(ValueError):
    """No allowed widths hold a limit.

    Attributes:
        limit: its number.
        least: what is left of it where every group is as narrow as allowed.
    """

    def __init__(self, limit: int, least: float) -> None:
        super().__init__(f"limit {limit} cannot be held: {least:g} is left")
        self.limit, self.least = limit, least


@dataclass(frozen=True, eq=False)
class Limit:
    """A cost that must not be more than this.

    Attributes:
        most: the limit.
        terms: what the cost is the sum of.
    """

    most: float
    terms: Sequence[CostTerm]


@dataclass(frozen=True, eq=False)
class Knapsack:
    """What can be chosen.

    Attributes:
        values: for each group the importance that is kept at each of its choices, which never falls.
        adds: for each group a dict of line to what the group adds to it at each of its choices.
        fixed: int array (lines,), what each line has besides.
        limits: what must hold.
    """

    values: Sequence[np.ndarray]
    adds: Sequence[Mapping[int, np.ndarray]]
    fixed: np.ndarray
    limits: Sequence[Limit]

    def counts(self, chosen: np.ndarray) -> np.ndarray:
        """The count of each line where each group makes this choice."""
        counts = self.fixed.copy()
        for group, choice in enumerate(chosen):
            for line, adds in self.adds[group].items():
                counts[line] += adds[choice]
        return counts

    def value(self, chosen: np.ndarray) -> float:
        """The importance that is kept."""
        return float(sum(values[choice] for values, choice in zip(self.values, chosen, strict=True)))


def allocate(knapsack: Knapsack) -> np.ndarray:
    """Choose for each group.

    Returns:
        The number of each group's choice: the best found, not proven to be the best there is.

    Raises:
        LimitError: a limit does not hold even where every group makes its first choice.
    """
    search = _Search(knapsack)
    whole = np.array([len(values) - 1 for values in knapsack.values])
    if search.holds(whole):
        return whole
    narrowest = search.ratios(np.zeros_like(whole))
    if (narrowest > 1).any():
        worst = int(narrowest.argmax())
        raise LimitError(worst, float(narrowest[worst] * knapsack.limits[worst].most))
    starts = [*search.priced(whole), search.repaired(whole)]
    best = max({tuple(start): start for start in starts}.values(), key=knapsack.value)
    return search.improved(best)


class _Search:
    """Moves of single groups over choices, with the costs that change by them."""

    def __init__(self, knapsack: Knapsack) -> None:
        self.knapsack = knapsack
        self.most = np.array([limit.most for limit in knapsack.limits])
        self.terms: list[tuple[int, CostTerm]] = [
            (number, term) for number, limit in enumerate(knapsack.limits) for term in limit.terms
        ]
        of_line: dict[int, set[int]] = {}
        for place, (_, term) in enumerate(self.terms):
            for line in term.lines:
                of_line.setdefault(line, set()).add(place)
        self.touched = [sorted(set().union(*(of_line.get(line, set()) for line in adds))) for adds in knapsack.adds]

    def ratios(self, chosen: np.ndarray) -> np.ndarray:
        """Each cost relative to its limit."""
        counts, costs = self.knapsack.counts(chosen), np.zeros(len(self.most))
        for number, term in self.terms:
            costs[number] += float(term.cost(*(counts[line] for line in term.lines)))
        return costs / self.most

    def holds(self, chosen: np.ndarray) -> bool:
        return bool((self.ratios(chosen) <= 1 + 1e-12).all())

    def changes(self, chosen: np.ndarray, group: int) -> np.ndarray:
        """The ratios relative to the present ones, (choices, limits), where one group makes each of its choices."""
        adds = self.knapsack.adds[group]
        counts = self.knapsack.counts(chosen)
        changes = np.zeros((len(self.knapsack.values[group]), len(self.most)))
        lines = {line: counts[line] - values[chosen[group]] + values for line, values in adds.items()}
        for place in self.touched[group]:
            number, term = self.terms[place]
            costs = term.cost(*(lines.get(line, counts[line]) for line in term.lines))
            changes[:, number] += costs - costs[chosen[group]]
        return changes / self.most

    def priced(self, whole: np.ndarray) -> Iterator[np.ndarray]:
        """Solutions at the lowest price at which the limits hold; a limit that is far from binding gets cheaper."""
        weights = np.where(self.ratios(whole) > 1, 1.0, 0.0)
        for _ in range(_REWEIGHTINGS):
            low, high = 0.0, 1e-3 * max(self.knapsack.value(whole), 1e-9)
            solution = self.swept(whole, high * weights)
            while not self.holds(solution) and high < 1e12:
                low, high = high, 4 * high
                solution = self.swept(whole, high * weights)
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                trial = self.swept(whole, middle * weights)
                low, high = (low, middle) if self.holds(trial) else (middle, high)
                solution = trial if self.holds(trial) else solution
            if self.holds(solution):
                yield solution
            if np.count_nonzero(weights) < 2:
                return
            weights = weights * self.ratios(solution) ** 4
            weights /= weights.max()

    def swept(self, start: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Each group makes the choice that is worth most at these prices, given the others, until none changes."""
        chosen = start.copy()
        for _ in range(_SWEEPS):
            before = chosen.copy()
            for group, values in enumerate(self.knapsack.values):
                worth = values - self.changes(chosen, group) @ prices
                chosen[group] = len(worth) - 1 - int(worth[::-1].argmax())  # of equals, the widest
            if (chosen == before).all():
                break
        return chosen

    def repaired(self, start: np.ndarray) -> np.ndarray:
        """From a choice that breaks limits, the moves that lose the least for what they bring, until all hold."""
        chosen = start.copy()
        ratios = self.ratios(chosen)
        while (ratios > 1 + 1e-12).any():
            best: tuple[float, int, int] | None = None
            for group, values in enumerate(self.knapsack.values):
                if not chosen[group]:
                    continue
                after = ratios + self.changes(chosen, group)[: chosen[group]]
                gained = np.maximum(ratios - 1, 0).sum() - np.maximum(after - 1, 0).sum(axis=1)
                lost = values[chosen[group]] - values[: chosen[group]]
                rates = np.where(gained > 0, lost / np.maximum(gained, 1e-15), np.inf)
                choice = len(rates) - 1 - int(rates[::-1].argmin())
                if best is None or rates[choice] < best[0]:
                    best = (float(rates[choice]), group, choice)
            if best is None or not np.isfinite(best[0]):  # costs that do not fall: one step for all
                chosen = np.maximum(chosen - 1, 0)
            else:
                chosen[best[1]] = best[2]
            ratios = self.ratios(chosen)
        return chosen

    def improved(self, start: np.ndarray) -> np.ndarray:
        """Widen single groups, and exchange between two, while that keeps more importance within the limits."""
        chosen = self.filled(start)
        for _ in range(_EXCHANGES):
            better = self.exchanged(chosen)
            if better is None:
                break
            chosen = self.filled(better)
        return chosen

    def filled(self, start: np.ndarray) -> np.ndarray:
        """Groups widened, the one that gains most first, as far as the limits allow."""
        chosen = start.copy()
        ratios = self.ratios(chosen)
        while True:
            move = self.widest(chosen, ratios, range(len(chosen)))
            if move is None:
                return chosen
            chosen[move[1]] = move[2]
            ratios = self.ratios(chosen)

    def widest(
        self, chosen: np.ndarray, ratios: np.ndarray, groups: Sequence[int] | range
    ) -> tuple[float, int, int] | None:
        """The move of one group that gains most within the limits: gain, group and choice."""
        best: tuple[float, int, int] | None = None
        for group in groups:
            values = self.knapsack.values[group]
            gains = values - values[chosen[group]]
            if gains[-1] <= (best[0] if best else 1e-12):
                continue
            fits = (ratios + self.changes(chosen, group) <= 1 + 1e-12).all(axis=1)
            gains = np.where(fits, gains, -np.inf)
            choice = int(gains.argmax())
            if gains[choice] > (best[0] if best else 1e-12):
                best = (float(gains[choice]), group, choice)
        return best

    def exchanged(self, chosen: np.ndarray) -> np.ndarray | None:
        """One group narrower and another wider, where that gains most; None where it gains nothing."""
        best, better = 1e-9, None
        ratios = self.ratios(chosen)
        for group, values in enumerate(self.knapsack.values):
            changes = self.changes(chosen, group)
            for choice in range(max(chosen[group] - _NEAR, 0), chosen[group]):
                lost = values[chosen[group]] - values[choice]
                trial = chosen.copy()
                trial[group] = choice
                others = [other for other in range(len(chosen)) if other != group]
                move = self.widest(trial, ratios + changes[choice], others)
                if move is not None and move[0] - lost > best:
                    best, better = move[0] - lost, trial
                    better[move[1]] = move[2]
        return better
