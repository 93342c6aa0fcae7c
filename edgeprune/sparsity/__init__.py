"""Zeros in place: schedules, masks, policies and callbacks. TF-MOT's surface, on both Kerases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.sparsity.callbacks import PruningSummaries as PruningSummaries
    from edgeprune.sparsity.callbacks import UpdatePruningStep as UpdatePruningStep
    from edgeprune.sparsity.policies import PrunableLayer as PrunableLayer
    from edgeprune.sparsity.policies import PruneForLatencyOnXNNPack as PruneForLatencyOnXNNPack
    from edgeprune.sparsity.policies import PruningPolicy as PruningPolicy
    from edgeprune.sparsity.prune import prune_low_magnitude as prune_low_magnitude
    from edgeprune.sparsity.prune import prune_scope as prune_scope
    from edgeprune.sparsity.prune import pruning_step as pruning_step
    from edgeprune.sparsity.report import SparsityReport as SparsityReport
    from edgeprune.sparsity.report import WeightSparsity as WeightSparsity
    from edgeprune.sparsity.report import sparsity_report as sparsity_report
    from edgeprune.sparsity.schedules import ConstantSparsity as ConstantSparsity
    from edgeprune.sparsity.schedules import PolynomialDecay as PolynomialDecay
    from edgeprune.sparsity.schedules import PruningSchedule as PruningSchedule
    from edgeprune.sparsity.xnnpack import XnnpackMiss as XnnpackMiss
    from edgeprune.sparsity.xnnpack import adapt_for_xnnpack as adapt_for_xnnpack
    from edgeprune.sparsity.xnnpack import xnnpack_misses as xnnpack_misses

# Each public name and the module that defines it.
_HOME = {
    "ConstantSparsity": "edgeprune.sparsity.schedules",
    "PolynomialDecay": "edgeprune.sparsity.schedules",
    "PrunableLayer": "edgeprune.sparsity.policies",
    "PruneForLatencyOnXNNPack": "edgeprune.sparsity.policies",
    "PruningPolicy": "edgeprune.sparsity.policies",
    "PruningSchedule": "edgeprune.sparsity.schedules",
    "PruningSummaries": "edgeprune.sparsity.callbacks",
    "SparsityReport": "edgeprune.sparsity.report",
    "UpdatePruningStep": "edgeprune.sparsity.callbacks",
    "WeightSparsity": "edgeprune.sparsity.report",
    "XnnpackMiss": "edgeprune.sparsity.xnnpack",
    "adapt_for_xnnpack": "edgeprune.sparsity.xnnpack",
    "prune_low_magnitude": "edgeprune.sparsity.prune",
    "prune_scope": "edgeprune.sparsity.prune",
    "pruning_step": "edgeprune.sparsity.prune",
    "sparsity_report": "edgeprune.sparsity.report",
    "xnnpack_misses": "edgeprune.sparsity.xnnpack",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
