"""Zeros in place: schedules, masks, policies and callbacks. TF-MOT's surface, on both Kerases."""

from edgeprune.sparsity.callbacks import PruningSummaries, UpdatePruningStep
from edgeprune.sparsity.prune import prune_low_magnitude, pruning_step, strip_pruning, without_pruning
from edgeprune.sparsity.report import SparsityReport, WeightSparsity, sparsity_report
from edgeprune.sparsity.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule

__all__ = [
    "ConstantSparsity",
    "PolynomialDecay",
    "PruningSchedule",
    "PruningSummaries",
    "SparsityReport",
    "UpdatePruningStep",
    "WeightSparsity",
    "prune_low_magnitude",
    "pruning_step",
    "sparsity_report",
    "strip_pruning",
    "without_pruning",
]
