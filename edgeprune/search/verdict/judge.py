"""The one figure that candidates are judged by: a metric where there are labels, else how far the outputs moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgeprune.data.structures import flat, mapped
from edgeprune.fit.output_ends import OutputEnd, output_ends
from edgeprune.measure.accuracy import predicted_classes
from edgeprune.measure.distance import distance
from edgeprune.measure.metrics import MetricLike
from edgeprune.measure.output_scores import NoScoreError, Score
from edgeprune.measure.score import Scores, score_outputs
from edgeprune.search.verdict.sample_scores import sample_scores
from edgeprune.types import Arrays, Model

Outputs = Mapping[str, np.ndarray]
# One for each sample, and the samples' weights.
SampleScores = tuple[np.ndarray, np.ndarray | None]
DISTANCE, AGREEMENT = "distance", "agreement"


@dataclass(frozen=True)
class Judge:
    """What scores the outputs of a candidate.

    Attributes:
        name: of the figure.
        higher_is_better: its direction.
        baseline: that of the original.
        score: returns that of a candidate's outputs.
        of_rows: returns the judge of the samples with these numbers `(n,)` alone.
        of_samples: returns the score of each sample and the samples' weights; None where the figure is not their mean.
        note: what outputs are not judged, and how to choose; None where none is left out, or that was asked for.
    """

    name: str
    higher_is_better: bool
    baseline: float
    score: Callable[[Outputs], float]
    of_rows: Callable[[np.ndarray], Judge]
    of_samples: Callable[[Outputs], SampleScores | None]
    note: str | None = None


def judge_of(
    model: Model,
    outputs: Outputs,
    samples: Arrays,
    labels: Arrays | None,
    sample_weight: Arrays | None,
    metric: MetricLike | None,
    batch_size: int,
    name: str | None = None,
) -> Judge:
    """Choose the figure.

    Args:
        model: the original, whose compiled metrics count where `metric` is None.
        outputs: what it computes for the samples.
        samples: inputs, as `edgeprune.score` accepts them.
        labels: theirs, or None.
        sample_weight: theirs, or None.
        metric: as `edgeprune.score` accepts it, `"distance"` or `"agreement"`; None for the compiled one, and for the
            distance where there are no labels.
        batch_size: samples at once for Keras's metrics.
        name: of the figure, where the metric has several; None to choose.

    Raises:
        TypeError: `metric` is no metric.
        ValueError: it has no figure for these outputs and labels, or of several outputs, or its direction is unknown.
    """

    first: Score | None = None

    def of_rows(rows: np.ndarray) -> Judge:
        made, own, theirs, weights = (taken(part, rows) for part in (outputs, samples, labels, sample_weight))
        return judge_of(model, made, own, theirs, weights, metric, batch_size, None if first is None else first.name)

    if metric == AGREEMENT:
        named = partial(_same_classes, _checked_ends(model), outputs)

        def agreements(made: Outputs) -> SampleScores:
            return np.mean([one.reshape(len(one), -1).mean(axis=1) for one in named(made)], axis=0), None

        def agreement(made: Outputs) -> float:
            return float(np.mean(np.concatenate([one.ravel() for one in named(made)])))

        return Judge(AGREEMENT, True, 1.0, agreement, of_rows, agreements)
    if metric == DISTANCE or (metric is None and labels is None):
        return Judge(DISTANCE, False, 0.0, lambda made: _distance(outputs, made), of_rows, lambda made: None)

    def scores(made: Outputs, metric: MetricLike | None = metric) -> Scores:
        return score_outputs(
            made, labels, sample_weight, inputs=samples, metric=metric, model=model, batch_size=batch_size
        )

    def own() -> Scores:
        try:
            return scores(outputs, None)
        except ValueError:  # labels that the metric accepts and the compiled loss does not
            return Scores((), 0)

    found = scores(outputs)
    first = _named(found, name) if name else _chosen(found, metric, own)
    chosen = first.name

    def figure(made: Outputs) -> float:
        return _named(scores(made), chosen).value

    if first.higher_is_better is None:
        raise ValueError(
            f"Which direction of {first.name!r} is better is unknown: pass "
            "metric=edgeprune.Metric(..., higher_is_better=True) or False."
        )

    def each(made: Outputs) -> SampleScores | None:
        return sample_scores(chosen, figure(made), made, labels, sample_weight)

    is_asked_for = metric == chosen or (isinstance(metric, Mapping) and len(metric) == 1)
    note = None if name or is_asked_for else _note(first, list(outputs), own)
    return Judge(chosen, first.higher_is_better, first.value, figure, of_rows, each, note)


def _named(found: Scores, name: str) -> Score:
    for one in found:
        if one.name == name:
            return one
    raise NoScoreError(found.reason or f"{name} has no value.")


def _chosen(found: Scores, metric: MetricLike | None, own: Callable[[], Scores]) -> Score:
    """The figure that is judged by: the first one, unless one metric has figures of several outputs."""
    if not found:
        raise NoScoreError(found.reason or "")
    if metric is None or isinstance(metric, Mapping) or len({one.output for one in found}) == 1:
        return found.scores[0]
    known = {one.name for one in own()}
    fitting = [one for one in found if one.name in known]
    if len({one.output for one in fitting}) != 1:
        raise ValueError(
            f"metric= has figures of several outputs, {_listed([one.name for one in found])}: pass the name of one, or "
            f"a dict such as metric={{{found.scores[0].output!r}: ...}}."
        )
    return fitting[0]


def _note(judged: Score, outputs: Sequence[str], own: Callable[[], Scores]) -> str | None:
    if not (others := [name for name in outputs if name != judged.output]):
        return None
    names = [one.name for one in own() if one.output in others]
    choose = f"metric={names[0]!r}" if len(names) == 1 else f"metric= one of {_listed(names)}"
    choose = choose if names else f"metric={{{others[0]!r}: ...}}"
    return (
        f"only output {judged.output!r} is judged, by {judged.name}, and not {_listed(others)}: pass {choose} to choose"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def figure_without_labels(model: Model, samples: Arrays) -> str:
    """The figure for a model where there are no labels.

    Args:
        model: the original.
        samples: its inputs.

    Returns:
        `"agreement"` where all outputs are known to name classes, else `"distance"`. Yes or no for each value of an
        input may be the shades that an autoencoder returns, and is not known to.
    """
    shapes = {np.shape(one)[1:] for one in flat(samples)}
    name_classes = [
        end.activation == "softmax"
        or end.meaning == "classes"
        or (end.meaning == "yes_or_no" and end.shape[1:] not in shapes)
        for end in output_ends(model)
    ]
    return AGREEMENT if all(name_classes) else DISTANCE


def check_varies(judge: Judge, outputs: Outputs) -> None:
    """Refuse a figure that is the same whatever is computed: no model is better than another by it.

    Args:
        judge: what scores outputs.
        outputs: the original's.

    Raises:
        ValueError: it is the same for outputs of other samples, in another order, of zeros and of random numbers.
    """
    others: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda values: np.roll(values, 1, axis=0),
        lambda values: values[..., ::-1],
        np.zeros_like,
        *[partial(_random, seed) for seed in range(5)],  # on few samples one may score the same by chance
    )
    for other in others:
        if judge.score({name: other(np.asarray(values)) for name, values in outputs.items()}) != judge.baseline:
            return
    raise ValueError(
        f"{judge.name} is {judge.baseline:.4g} whatever the model computes for these samples: pass another metric=, or "
        "samples of more than one class."
    )


def standard_error(judge: Judge, before: Outputs, after: Outputs) -> float | None:
    """How far what is lost on other samples may be from what is lost on these: its standard error.

    Args:
        judge: what scores outputs.
        before: the original's.
        after: a candidate's.

    Returns:
        In the figure's unit; None where the figure is no mean over samples.
    """
    own, others = judge.of_samples(before), judge.of_samples(after)
    if own is None or others is None:
        return None
    (first, weights), (second, _) = own, others
    lost = (first - second) * (1.0 if weights is None else weights / np.mean(weights))
    return float(np.std(lost) / math.sqrt(len(lost)))


def _random(seed: int, values: np.ndarray) -> np.ndarray:
    return np.random.default_rng(seed).random(values.shape).astype(values.dtype)


def taken(part: object, rows: np.ndarray) -> Any:
    """The samples with these numbers, of arrays in any structure."""
    return mapped(lambda array: np.asarray(array)[rows], part)


def _distance(old: Outputs, new: Outputs) -> float:
    return distance([(values, new[name])] for name, values in old.items())


def _same_classes(ends: Mapping[str, OutputEnd], old: Outputs, new: Outputs) -> list[np.ndarray]:
    """For each output, whether both name the same class: booleans for all samples and their places."""
    return [_classes(ends[name], old[name]) == _classes(ends[name], new[name]) for name in old]


def _classes(end: OutputEnd, values: np.ndarray) -> np.ndarray:
    if end.meaning == "yes_or_no":  # each value by itself, as where several may hold
        return predicted_classes(values[..., None], 0.0 if end.gives_logits else 0.5)
    return predicted_classes(values)


def _checked_ends(model: Model) -> dict[str, OutputEnd]:
    """What is known of the outputs, none of which is known to be real numbers."""
    ends = {end.name: end for end in output_ends(model)}
    if numbers := [name for name, end in ends.items() if end.meaning == "numbers" and end.activation != "softmax"]:
        raise ValueError(
            f"metric={AGREEMENT!r} compares classes, and the loss of {_listed_outputs(numbers)} compares real numbers: "
            f"pass metric={DISTANCE!r}, or labels."
        )
    return ends


def _listed_outputs(names: Sequence[str]) -> str:
    return f"output{'s' * (len(names) > 1)} {_listed(names)}"
