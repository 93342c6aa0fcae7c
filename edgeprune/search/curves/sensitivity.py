"""How much each part of a model matters: each group of channels, or each layer's weights, is pruned alone.

curves = ep.sensitivity(model, (x_test, y_test))
print(curves)
plan = ep.plan_channels(model, target_macs=0.5, scope=curves)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Group
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.importance import class_scores
from edgeprune.channels.plan.selection import entries, freeze, freeze_in_attention, matching
from edgeprune.data.batches import check_data
from edgeprune.layer_patterns import layers_fitting
from edgeprune.measure.metrics import MetricLike
from edgeprune.measure.predictions import gather
from edgeprune.number_checks import check_number, check_seed
from edgeprune.progress import status, steps
from edgeprune.search.curves.curves import Sensitivity, SensitivityCurve, SensitivityKind
from edgeprune.search.journal.measurements import Journal, fingerprint
from edgeprune.search.trial.candidates import NO_VALUES, Candidates, Values
from edgeprune.search.trial.quick_reconstruction import QuickReconstruction
from edgeprune.search.verdict.judge import Judge, judge_of
from edgeprune.sparsity.prunable import prunable_weights
from edgeprune.types import Attention, DataLike, Importance, Layer, Model, PathLike

LEVELS = (0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class _Trial:
    """One part pruned to one level.

    Attributes:
        kept_mask: the classes of channels that are kept.
        values: weights that are not the original's.
    """

    kept_mask: np.ndarray
    values: Values


@dataclass(frozen=True, eq=False)
class _Part:
    """A group of channels, or the weights of a layer.

    Attributes:
        name: of the curve.
        layers: path names of its layers.
        size: how many channels or weights it has.
        trial: makes the trial in which so many are removed.
    """

    name: str
    layers: tuple[str, ...]
    size: int
    trial: Callable[[int], _Trial]

    def counts(self, levels: Sequence[float]) -> list[int]:
        """How many are removed at each level: at least one, and not all."""
        return sorted({min(max(round(level * self.size), 1), self.size - 1) for level in levels} - {0})


def sensitivity(
    model: Model,
    data: DataLike,
    *,
    metric: MetricLike | None = None,
    kind: SensitivityKind = "channels",
    levels: Iterable[float] = LEVELS,
    importance: Importance = "l2",
    ignore: str | Layer | Iterable[str | Layer] = (),
    attention: Attention = "heads",
    reconstruct: DataLike | None = None,
    batch_size: int = 32,
    seed: int = 0,
    cache: PathLike | None = None,
    verbose: bool = True,
) -> Sensitivity:
    """Measure how much worse a model gets as each part of it is pruned alone.

    Nothing is trained, and no smaller model is built: a copy of the model is compiled once and reads what was removed
    as zero, which computes what the smaller model would. (Li et al., Pruning Filters for Efficient ConvNets, 2017, for
    the curves.)

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        data: some hundred samples in any form that `model.fit` accepts, such as `(x, y)` or a dataset of batches.
            Without labels the distance of the outputs is measured.
        metric: what is measured: a Keras metric, its name, a function `f(y_true, y_pred)` or an `edgeprune.Metric`, or
            the name of a figure as `edgeprune.score` prints it, such as `"kind_accuracy"` of an output `kind`.
            Left out, the first metric that the model was compiled with, or what its loss suggests. Without labels:
            `"distance"`, the error of each output over its own deviation from its mean, averaged over the outputs, or
            `"agreement"`, the share of samples whose class does not change, where no output is of real numbers.
        kind: what is pruned: `"channels"`, each group of coupled channels, or `"weights"`, the weights of each layer.
        levels: fractions of a part to remove, each above 0 and below 1. At least one channel is removed and one is
            kept.
        importance: how channels are ranked, as `plan_channels` accepts its names; the least important ones go first.
            Weights are ranked by their magnitude.
        ignore: layers, or names or patterns of layers, that are left out.
        attention: what attention layers lose, as `plan_channels` accepts it.
        reconstruct: samples, without labels, on which the layers that read a group are solved again before it is
            scored, as `plan.reconstruct` solves all layers: what the others can make up for is then no loss. Of
            `kind="weights"` the layer itself, as `ep.prune_weights` does: its kept weights make up for the zeros, which
            are chosen again. Layers with several kernels, and those inside others, keep their largest magnitudes.
        batch_size: samples at once where `data` are arrays.
        seed: of `importance="random"`, and of the places that layers are solved on.
        cache: a file to which each measurement is appended. A run on the same model, data and settings reads from it
            what is there: one that was stopped, by Ctrl-C or otherwise, continues where it was.
        verbose: whether to draw a progress bar.

    Returns:
        The curves. They can be printed, plotted and saved, and `plan_channels(scope=curves)` weighs groups by them.

    Raises:
        TypeError: `model` is no Keras model, or an argument is of the wrong type.
        ValueError: the model is not built, an argument is out of its range, the data do not fit the model, the metric
            has no figure for them or its direction is unknown, or there is nothing to prune.

    Example:
        >>> curves = ep.sensitivity(model, x, levels=(0.25, 0.5))
        >>> curves.metric, [curve.name for curve in curves]
        ('distance', ['stem', 'conv'])
        >>> curves["conv"].removed
        (4, 8)
    """
    levels = _checked(levels, kind)
    check_data(data, batch_size)
    check_seed(seed)
    flavor.check_built_model(model)
    solver: QuickReconstruction | None = None
    samples, labels, sample_weight = gather(model, data)
    with status("Following the channels", verbose=verbose):
        graph = freeze_in_attention(trace(model), attention)
    if reconstruct is not None:
        solver = QuickReconstruction(graph, reconstruct, batch_size, seed, all_kernels=kind == "weights")
    if kind == "channels":
        ignored = {group.name: "ignored" for entry in entries(ignore) for group in matching(graph, entry)}
        graph = freeze(graph, ignored)
        scores = class_scores(graph, importance, data, seed, batch_size=batch_size)
        parts = _groups(graph, scores, solver)
    else:
        parts = _layers(graph, _ids_of(graph, entries(ignore)), solver)
    if not parts:
        raise ValueError(f"Nothing of model {model.name!r} can be pruned: inspect(model) says why.")
    candidates = Candidates(graph, samples, batch_size)
    outputs = candidates.outputs(graph.full_mask())
    judge = judge_of(model, outputs, samples, labels, sample_weight, metric, batch_size)
    settings = [1, metric, kind, importance, seed, judge.name, solver is not None]
    solved_on = [] if solver is None else solver.batches
    run = fingerprint(model, [samples, labels, sample_weight, *solved_on], settings)
    with Journal(cache, run) as journal:
        curves = tuple(_curves(parts, levels, candidates, judge, journal, verbose))
    num_samples = len(next(iter(outputs.values())))
    return Sensitivity(
        model=model.name,
        kind=kind,
        metric=judge.name,
        higher_is_better=judge.higher_is_better,
        baseline=judge.baseline,
        importance=importance if kind == "channels" else "magnitude",
        reconstructed=solver is not None,
        num_samples=num_samples,
        curves=curves,
        note=judge.note,
    )


def _checked(levels: object, kind: object) -> tuple[float, ...]:
    """The levels, ascending, if they and the kind are such as `sensitivity` accepts."""
    if kind not in ("channels", "weights"):
        raise ValueError(f"kind must be 'channels' or 'weights'; got {kind!r}.")
    if not isinstance(levels, Iterable) or isinstance(levels, str):
        raise TypeError(f"levels must be fractions to remove, such as (0.25, 0.5); got {levels!r}.")
    levels = tuple(levels)
    for level in levels:
        check_number("A level", level)
        if not 0 < level < 1:
            raise ValueError(f"A level is a fraction to remove, above 0 and below 1; got {level}.")
    if not levels:
        raise ValueError("levels is empty: pass at least one fraction to remove.")
    return tuple(sorted(levels))


def _groups(graph: ChannelGraph, scores: np.ndarray, solver: QuickReconstruction | None) -> list[_Part]:
    """The groups that can lose channels and that the importance has scores for."""

    def part(group: Group) -> _Part:
        order = removal_order(group, scores)

        def trial(count: int) -> _Trial:
            kept = graph.full_mask()
            kept[order[:, :count]] = False
            return _Trial(kept, NO_VALUES if solver is None else solver.values(kept))

        return _Part(group.name, group.layers, group.count, trial)

    free = (group for group in graph.groups if group.frozen is None and group.count > 1)
    return [part(group) for group in free if np.isfinite(scores[group.classes]).all()]


def removal_order(group: Group, scores: np.ndarray) -> np.ndarray:
    """In which order the channels of a group are removed.

    Args:
        group: the group.
        scores: importance of each class, float, shape `(class_count,)`.

    Returns:
        Its classes, (heads, channels), the least important ones first; of equals, the last, as in a plan.
    """
    classes = group.classes.reshape(group.heads or 1, -1)
    turned = classes[:, ::-1]
    return np.take_along_axis(turned, np.argsort(scores[turned], axis=1, kind="stable"), axis=1)


def _ids_of(graph: ChannelGraph, ignored: Sequence[str | Layer]) -> set[int]:
    """The layers that names, patterns and layers mean, with those inside them."""
    found: set[int] = set()
    for entry in ignored:
        if isinstance(entry, str):
            own = layers_fitting(graph.model, entry, graph.names)
        else:
            own = {id(part) for part in (entry, *flavor.layers_of(entry))} & graph.names.keys()
        if not own:
            raise ValueError(f"ignore={entry!r} fits no layer of model {graph.model.name!r}.")
        found |= own
    return found


def _layers(graph: ChannelGraph, left_out: set[int], solver: QuickReconstruction | None) -> list[_Part]:
    """The layers whose weights can be pruned, those inside others too."""

    def part(layer: Layer) -> _Part:
        weights = list(prunable_weights(layer).values())
        arrays = [flavor.array_of(weight) for weight in weights]
        sizes = np.abs(np.concatenate([array.ravel() for array in arrays]).astype(np.float64))
        order = np.argsort(sizes, kind="stable")

        def trial(count: int) -> _Trial:
            kept = np.ones(sizes.size, bool)
            kept[order[:count]] = False
            ends = np.cumsum([array.size for array in arrays])[:-1]
            masks = [own.reshape(array.shape) for own, array in zip(np.split(kept, ends), arrays, strict=True)]
            values = {
                id(weight): np.where(mask, array, 0).astype(array.dtype)
                for weight, mask, array in zip(weights, masks, arrays, strict=True)
            }
            if solver is not None and len(weights) == 1:
                values |= solver.sparse_values(weights[0], masks[0])
            return _Trial(graph.full_mask(), values)

        name = graph.name_of(layer)
        return _Part(name, (name,), sizes.size, trial)

    called = {id(step.layer): step.layer for step in graph.steps if flavor.function_name(step.layer) is None}
    inside = {id(one): one for layer in called.values() for one in layer._flatten_layers()}
    return [part(layer) for key, layer in inside.items() if prunable_weights(layer) and key not in left_out]


def _curves(
    parts: Sequence[_Part],
    levels: Sequence[float],
    candidates: Candidates,
    judge: Judge,
    journal: Journal,
    verbose: bool,
) -> Iterator[SensitivityCurve]:
    """Measure every part at every level, but what the journal knows."""
    counts = [part.counts(levels) for part in parts]
    with steps("Sensitivity", sum(map(len, counts)), verbose=verbose) as done:
        for part, own in zip(parts, counts, strict=True):
            scores = []
            for count in own:
                score = journal.get(part.name, count)
                if score is None:
                    trial = part.trial(count)
                    score = judge.score(candidates.outputs(trial.kept_mask, trial.values))
                    if not math.isfinite(score):
                        raise ValueError(f"{judge.name} is {score} where {count:,} of {part.name!r} are removed.")
                    journal.put(score, part.name, count)
                scores.append(score)
                done(part.name)
            yield SensitivityCurve(part.name, part.layers, part.size, tuple(own), tuple(scores))
