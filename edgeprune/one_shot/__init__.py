"""Zeros in a trained model at once, without training: weights that remain make up for those that are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.one_shot.planned import PlannedWeight as PlannedWeight
    from edgeprune.one_shot.planning import plan_weights as plan_weights
    from edgeprune.one_shot.planning import prune_weights as prune_weights
    from edgeprune.one_shot.weight_plan import WeightPlan as WeightPlan

# Each public name and the module that defines it.
_HOME = {
    "PlannedWeight": "edgeprune.one_shot.planned",
    "WeightPlan": "edgeprune.one_shot.weight_plan",
    "plan_weights": "edgeprune.one_shot.planning",
    "prune_weights": "edgeprune.one_shot.planning",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
