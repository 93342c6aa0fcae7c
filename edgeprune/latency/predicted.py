"""What a model costs at any widths: its operators' costs, scaled so that they add up to the whole file's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.latency.cost import CostTerm, OperatorCosts, operator_terms, total
from edgeprune.latency.template import FileTemplate

_LEAST = 0.1  # of a file's cost that is its operators'


@dataclass(frozen=True, eq=False)
class CostModel:
    """The cost of a model as a function of its widths.

    Attributes:
        template: the model's file.
        costs: where the costs of operators come from.
        terms: the cost of each operator, scaled.
        original: the cost of the original.
        sum_of_operators: what its operators alone add up to, relative to that.
    """

    template: FileTemplate
    costs: OperatorCosts
    terms: tuple[CostTerm, ...]
    original: float
    sum_of_operators: float

    @staticmethod
    def of(template: FileTemplate, costs: OperatorCosts, points: Mapping[int, np.ndarray]) -> CostModel:
        """Measure or estimate what is needed.

        Args:
            template: the model's file.
            costs: where the costs of operators come from.
            points: line to the counts that a plan may choose, ascending.
        """
        terms = operator_terms(template, costs, points)
        alone, nothing = total(terms, template.counts), costs.of_nothing()
        whole = costs.of_model(template, [template.counts])
        original = alone + nothing if whole is None else float(whole[0])
        scaled = [_scaled(term, max(original - nothing, _LEAST * original) / alone) for term in terms]
        every_run = CostTerm((), lambda: np.asarray(nothing))
        return CostModel(template, costs, (*scaled, every_run), original, (alone + nothing) / original)

    def predicted(self, counts: np.ndarray) -> float:
        """The cost at these counts, by its operators."""
        return total(self.terms, counts)

    def looked_at(self, counts: np.ndarray) -> float | None:
        """The whole file's cost at these counts relative to the original's; None where only operators are known."""
        found = self.costs.of_model(self.template, [self.template.counts, counts])
        return None if found is None else float(found[1] / found[0])


def _scaled(term: CostTerm, factor: float) -> CostTerm:
    return CostTerm(term.lines, lambda *counts: factor * term.cost(*counts))


def points_of_lines(
    fixed: np.ndarray, adds: Sequence[Mapping[int, np.ndarray]], step: int = 8, most: int = 256
) -> dict[int, np.ndarray]:
    """The counts of each line at which costs are looked at: those that its only group allows, else even steps.

    Args:
        fixed: what each line has besides its groups.
        adds: for each group a dict of line to what it adds at each of its choices.
        step: channels between two counts of a line of several groups.
        most: as many counts of such a line at most.
    """
    points: dict[int, np.ndarray] = {}
    for line, base in enumerate(fixed):
        of_groups = [of_one[line] for of_one in adds if line in of_one]
        least = int(base) + sum(int(values.min()) for values in of_groups)
        largest = int(base) + sum(int(values.max()) for values in of_groups)
        if len(of_groups) == 1:
            points[line] = np.unique(int(base) + of_groups[0])
        else:
            distance = max(step, -(-(largest - least) // most))
            points[line] = np.unique([least, *range(-(-least // step) * step, largest, distance), largest])
    return points
