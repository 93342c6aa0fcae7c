"""Train a model on: while it is pruned, or after something was removed from it."""

from __future__ import annotations

from typing import Any

from edgeprune.fit.compiling import by_order, check_and_compile, compilation_for, compiled_for, watched_metrics
from edgeprune.fit.structures import structured
from edgeprune.fit.training import count_steps, fit
from edgeprune.measure.metrics import MetricLike
from edgeprune.types import Arrays, LayerChoice, LearningRate, Loss, Model

SCHEDULES = ("polynomial", "constant")
# The share of the training in which sparsity grows; in the rest the weights that are left recover.
GROWING_SHARE = 2 / 3


def prune_and_fit(
    model: Model,
    x: Arrays,
    y: Arrays,
    *,
    sample_weight: Arrays | None = None,
    sparsity: float = 0.8,
    epochs: int = 2,
    batch_size: int = 32,
    learning_rate: LearningRate | None = None,
    schedule: str = "polynomial",
    frequency: int = 100,
    layers: LayerChoice | None = None,
    loss: Loss | None = None,
    metric: MetricLike | None = None,
    description: str = "Pruning",
) -> Any:
    """Prune a trained model while it trains on, and strip it.

    With the polynomial schedule sparsity grows over the first two thirds of the steps. A compiled model keeps
    its loss, its metrics and its kind of optimizer; another one needs `loss`, or labels from which it follows.

    Args:
        model: a trained model of either Keras.
        x: inputs, shape `(n, ...)`; a dict by input name or a list for several.
        y: labels or targets, shape `(n, ...)`; a dict by output name or a list for several.
        sample_weight: weights of the samples, shape `(n,)`; a dict or a list for several outputs.
        sparsity: fraction of zeros to end with, 0 to below 1.
        epochs: number of passes over the data.
        batch_size: samples per step.
        learning_rate: a number or a Keras schedule; left out, that of the compiled model, or 1e-3.
        schedule: `"polynomial"` (from dense to `sparsity`) or `"constant"` (at once).
        frequency: steps between updates of the masks; fewer where under ten would fit.
        layers: which layers to prune, as `edgeprune.prune_low_magnitude` accepts it; all where left out.
        loss: a Keras loss or its name; left out, that of the compiled model, or
            `"sparse_categorical_crossentropy"` for a softmax over integer labels.
        metric: what is computed while it trains in place of the compiled metrics, which the model keeps: as
            `edgeprune.score` accepts it. Of a function it is the mean over the batches.
        description: a few words shown before the progress bar.

    Returns:
        A plain model: no wrappers, exact zeros.

    Raises:
        ValueError: a number is out of range, the schedule is unknown, no loss is known, no layer can be pruned, or the
            model is under pruning already.

    Source: Zhu and Gupta, To prune, or not to prune, 2017, https://arxiv.org/abs/1710.01878

    Example:
        >>> pruned = prune_and_fit(model, x, y, sparsity=0.5, epochs=1)
        >>> round(ep.sparsity_report(pruned).sparsity, 2)
        0.5
    """
    from edgeprune import sparsity as pruning
    from edgeprune.sparsity.mechanism import mechanism_of
    from edgeprune.sparsity.prune import remove_weight_masks

    check_and_compile(model, x, y, loss)
    if mechanism_of(model).has_masks(model):
        raise ValueError(f"Model {model.name!r} is under pruning already, with a schedule of its own: strip it first.")
    steps = epochs * count_steps(x, batch_size)
    if schedule == "polynomial":
        growing = pruning.PolynomialDecay(0.0, sparsity, frequency=frequency)
        growing.set_end_step(max(1, round(steps * GROWING_SHARE)))
        pruning_schedule: pruning.PruningSchedule = growing
    elif schedule == "constant":
        pruning_schedule = pruning.ConstantSparsity(sparsity, begin_step=1, frequency=frequency)
    else:
        raise ValueError(f"schedule={schedule!r} is unknown; choose one of {', '.join(map(repr, SCHEDULES))}.")
    compilation = by_order(model, compilation_for(model, y, loss, learning_rate))
    watched = by_order(model, watched_metrics(model, metric))
    x, y, sample_weight = structured(model, x, y, sample_weight)
    # Chosen by a pattern, layers of which none can be pruned are an error.
    pruned = pruning.prune_low_magnitude(model, pruning_schedule, layers="*" if layers is None else layers)
    with compiled_for(pruned, compilation, watched):
        fit(
            pruned,
            x,
            y,
            sample_weight=sample_weight,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[pruning.UpdatePruningStep()],
            description=description,
        )
    return remove_weight_masks(pruned)


def fine_tune(
    model: Model,
    x: Arrays,
    y: Arrays,
    *,
    sample_weight: Arrays | None = None,
    epochs: int = 2,
    batch_size: int = 32,
    learning_rate: LearningRate | None = None,
    loss: Loss | None = None,
    metric: MetricLike | None = None,
    description: str = "Fine-tuning",
) -> Any:
    """Train a model on, after something was removed from it.

    A compiled model keeps its loss and its kind of optimizer; another one needs `loss`, or labels from which it
    follows.

    Args:
        model: a model of either Keras; it is trained in place.
        x: inputs, shape `(n, ...)`; a dict by input name or a list for several.
        y: labels or targets, shape `(n, ...)`; a dict by output name or a list for several.
        sample_weight: weights of the samples, shape `(n,)`; a dict or a list for several outputs.
        epochs: number of passes over the data.
        batch_size: samples per step.
        learning_rate: a number or a Keras schedule; left out, that of the compiled model, or 1e-3.
        loss: a Keras loss or its name, as in `prune_and_fit`.
        metric: as in `prune_and_fit`; the `History` has it.
        description: a few words shown before the progress bar.

    Returns:
        The Keras `History`.

    Raises:
        ValueError: a number is out of range, the data do not fit, or no loss is known.

    Example:
        >>> smaller = ep.prune_channels(model, pruning_ratio=0.5)
        >>> _ = fine_tune(smaller, x, y, epochs=1, learning_rate=1e-3)
    """
    check_and_compile(model, x, y, loss)
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "description": description}
    with compiled_for(model, compilation_for(model, y, loss, learning_rate), watched_metrics(model, metric)):
        x, y, sample_weight = structured(model, x, y, sample_weight)
        return fit(model, x, y, sample_weight=sample_weight, **options)
