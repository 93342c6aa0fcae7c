"""The counterpart of `tensorflow_model_optimization.sparsity.keras`: its public names, for both Kerases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import edgeprune

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.sparsity.callbacks import PruningSummaries, UpdatePruningStep
    from edgeprune.sparsity.policies import PrunableLayer, PruneForLatencyOnXNNPack, PruningPolicy
    from edgeprune.sparsity.prune import prune_low_magnitude, prune_scope
    from edgeprune.sparsity.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
    from edgeprune.strip import strip_pruning

__all__ = [
    "ConstantSparsity",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "UpdatePruningStep",
    "prune_low_magnitude",
    "prune_scope",
    "strip_pruning",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(edgeprune, name)


def __dir__() -> list[str]:
    return __all__
