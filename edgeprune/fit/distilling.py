"""Train a small model after a large one: `distill`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import batches_of, check_data, joined, sample_count
from edgeprune.data.labels import shape_fits
from edgeprune.data.ports import input_shapes
from edgeprune.data.structures import mapped
from edgeprune.fit.compiling import (
    check_and_compile,
    compilation_for,
    compiled_for,
    fresh_optimizer,
    watched_metrics,
    xla_where_needed,
)
from edgeprune.fit.distillation_terms import feature_terms, output_terms
from edgeprune.fit.output_ends import shapes_of_outputs
from edgeprune.fit.structures import check_inputs, structured
from edgeprune.fit.training import fit, is_keras_data
from edgeprune.measure.metrics import MetricLike
from edgeprune.number_checks import check_number, check_whole
from edgeprune.sparsity.mechanism import mechanism_of
from edgeprune.types import AnyTensor, Arrays, Callback, DataLike, LearningRate, Loss, Model, SameModel


def distill(
    student: SameModel,
    teacher: Model,
    x: DataLike,
    y: Arrays | None = None,
    *,
    sample_weight: Arrays | None = None,
    teacher_outputs: Mapping[str, np.ndarray] | None = None,
    epochs: int = 2,
    batch_size: int = 32,
    temperature: float = 3.0,
    student_loss_weight: float = 0.5,
    features: Mapping[str, str] | Sequence[str] = (),
    feature_weight: float = 1.0,
    learning_rate: LearningRate | None = None,
    loss: Loss | None = None,
    metric: MetricLike | None = None,
    callbacks: Iterable[Callback] = (),
    description: str = "Distilling",
) -> SameModel:
    """Train a student on labels and after a teacher, or after the teacher alone.

    The loss is `student_loss_weight` times that of the labels, plus the rest times the distillation loss, as in Keras's
    `Distiller`. The distillation loss of an output follows from the student's compiled loss, or from the activation
    that the output ends with: for classes the Kullback-Leibler divergence of softened probabilities (Keras's
    `LogitsDistillation`; a softmax or sigmoid at the end is undone first), for real numbers the mean squared error.

    The labels' loss is the student's own, with its metrics, its weights of samples and outputs, and its regularizers.
    What a callback gets as its model is a `keras.distillation.Distiller` (for `tf_keras` its equal) around the student,
    so that `UpdatePruningStep` and `ChannelPruning` prune the student, and `ModelCheckpoint` writes it.

    Args:
        student: the model to train, of `keras` 3 or `tf_keras`; it is trained in place.
        teacher: a trained model of the same Keras with the same inputs and outputs. Nothing of it changes.
        x: inputs `(n, ...)`; a dict by input name or a list for several. Or a `tf.data.Dataset`, a `PyDataset` or a
            `Sequence` of batches `x`, `(x, y)` or `(x, y, sample_weight)`, or another iterable of these, which is read
            into memory.
        y: labels or targets `(n, ...)`; a dict by output name or a list for several. Left out, the student learns from
            the teacher alone.
        sample_weight: weights of the samples `(n,)`, for both losses; a dict or a list for several outputs.
        teacher_outputs: what the teacher returns for arrays `x`, output name to values `(n, ...)`, where that is known
            already: then it is not run in each step.
        epochs: number of passes over the data.
        batch_size: samples per step.
        temperature: what logits are divided by; a higher one shows more of what the teacher finds similar.
        student_loss_weight: the share of the labels' loss, 0 to 1.
        features: layers whose outputs the student learns too: their names, or a dict of the teacher's to the
            student's. Where a student's layer has fewer channels, they are projected to the teacher's by a layer that
            is trained along and thrown away.
        feature_weight: what the mean squared errors of the features count, together.
        learning_rate: a number or a Keras schedule; left out, that of the compiled student, or 1e-3.
        loss: a Keras loss or its name, in place of the compiled one.
        metric: what is computed while it trains in place of the compiled metrics, which the student keeps.
        callbacks: Keras callbacks of the student's own Keras.
        description: a few words shown before the progress bar.

    Returns:
        The student, compiled as before, its optimizer as it was. `student.history` is the Keras `History`: `"loss"`,
        `"student_loss"`, `"distillation_loss"` and the metrics of each epoch.

    Raises:
        TypeError: a model is none, or a number is no number.
        ValueError: the models are of different Kerases, share weights or return outputs of different shapes; the
            teacher is under pruning; a layer of `features` is not there; the data or `teacher_outputs` do not fit, a
            number is out of range, or the loss became NaN.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015,
    https://arxiv.org/abs/1503.02531; features: Romero et al., FitNets, 2014, https://arxiv.org/abs/1412.6550

    Example:
        >>> smaller = ep.prune_channels(model, pruning_ratio=0.5)
        >>> smaller = distill(smaller, model, x, y, epochs=1, temperature=4.0)
        >>> sorted(smaller.history.history)
        ['distillation_loss', 'loss', 'student_loss']
    """
    _check_models(student, teacher)
    _check_settings(temperature, student_loss_weight, feature_weight, epochs)
    check_data(x, batch_size, name="x")
    if is_keras_data(student, x):
        if y is not None or sample_weight is not None:
            raise ValueError("A dataset holds its own labels and weights: leave y and sample_weight out.")
        first = next(batches_of(x, batch_size, 1, inputs=input_shapes(student)), None)
        if first is None:
            raise ValueError("The dataset has no batches.")
    else:
        first = joined(x if y is None else (x, y), inputs=input_shapes(student), source="x")
        x, y, sample_weight = first.x, first.y, first.sample_weight if sample_weight is None else sample_weight
        if y is None and sample_weight is not None:
            raise ValueError("Without labels no sample is weighed: pass y, or leave sample_weight out.")
    with contextlib.ExitStack() as stack:
        stack.enter_context(flavor.strategy_of(student))
        if first.y is None:
            check_inputs(student, first.x)
        else:
            _check_own_step(student)
            check_and_compile(student, first.x, first.y, loss)
            watched = watched_metrics(student, metric)
            if watched or loss is not None:
                settings = compilation_for(student, first.y, loss, learning_rate)
                settings["optimizer"] = getattr(student, "optimizer", None)
                stack.enter_context(compiled_for(student, settings, watched))
        example, labels = first.x, first.y
        if not is_keras_data(student, x):
            x, y, sample_weight = structured(student, cast(Arrays, x), y, sample_weight)
            example, labels = x, y
        run_teacher, inputs_of = None, _all_of
        if teacher_outputs is not None:
            if is_keras_data(student, x) or features:
                raise ValueError("teacher_outputs are for arrays, and without features: leave them out.")
            x = example = (x, _checked_outputs(teacher, teacher_outputs, sample_count(example)))
            run_teacher, inputs_of = _known_outputs, _first_of
        pairs, of_student, of_teacher = feature_terms(student, teacher, features, feature_weight)
        stack.enter_context(flavor.state_restored(teacher))
        stack.enter_context(flavor.frozen(teacher))
        terms: list[flavor.Term] = [*output_terms(student, teacher, temperature), *pairs]
        distiller = flavor.make_distiller(
            student,
            teacher,
            terms,
            student_loss_weight=student_loss_weight,
            run_student=_runner(student, of_student, training=True),
            run_teacher=run_teacher or _runner(teacher, of_teacher, training=False),
            inputs_of=inputs_of,
            projections=[pair.projection for pair in pairs if pair.projection is not None],
        )
        distiller.compile(fresh_optimizer(student, learning_rate), **xla_where_needed(student, teacher))
        # Callbacks look at a model that is built.
        outputs = flavor.with_kernels(distiller.__call__, student)(mapped(lambda array: array[:1], example))
        if first.y is not None:
            flavor.build_compiled(student, mapped(lambda array: np.asarray(array)[:1], labels), outputs)
        student.history = fit(
            distiller,
            x,
            y,
            sample_weight=sample_weight,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=callbacks,
            description=description,
        )
    return student


def _runner(model: Model, features: list[AnyTensor], training: bool) -> Callable[[Any], flavor.Seen]:
    """A function that calls a model, and returns what some of its layers returned too."""
    if not features:

        def run(x: AnyTensor) -> flavor.Seen:
            outputs = model(x, training=training)
            return flavor.Seen(outputs, flavor.named_outputs(model, outputs), [])

        return run
    inputs, _, outputs = flavor.graph_nodes(model)
    both = flavor.functional_model(model, inputs, [outputs, features])

    def run_with_features(x: AnyTensor) -> flavor.Seen:
        outputs, found = both(x, training=training)
        return flavor.Seen(outputs, flavor.named_outputs(model, outputs), list(found))

    return run_with_features


def _checked_outputs(teacher: Model, given: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """What a teacher returned, by the names of its outputs, as many as there are samples."""
    if not isinstance(given, Mapping):
        raise TypeError(f"teacher_outputs is a dict of output name to array, got {type(given).__name__}.")
    wanted = {name: (count, *shape[1:]) for name, shape in shapes_of_outputs(teacher).items()}
    found = {name: np.asarray(values) for name, values in given.items()}
    if set(found) != set(wanted) or not all(shape_fits(found[name].shape, shape) for name, shape in wanted.items()):
        shapes = {name: values.shape for name, values in found.items()}
        raise ValueError(f"teacher_outputs are of shapes {shapes}; those of the teacher {teacher.name!r} are {wanted}.")
    for name, values in found.items():
        if values.dtype.kind not in "fiub":
            raise TypeError(f"teacher_outputs[{name!r}] are of type {values.dtype}, and no numbers.")
        if not np.isfinite(values).all():
            rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
            raise ValueError(
                f"teacher_outputs[{name!r}] hold NaN or infinity for {len(rows):,} of {len(values):,} samples, the "
                f"first of them number {rows[0]}: leave these samples out."
            )
    return {name: found[name] for name in wanted}  # in the order of the teacher's outputs


def _all_of(x: Any) -> Any:
    return x


def _first_of(x: Any) -> Any:
    return x[0]


def _known_outputs(x: Any) -> flavor.Seen:
    return flavor.Seen(None, x[1], [])


def _check_models(student: Model, teacher: Model) -> None:
    for model in (student, teacher):
        flavor.check_built_model(model)
    if flavor.flavor_of(student) != flavor.flavor_of(teacher):
        raise ValueError(
            f"The student is of {flavor.flavor_of(student)} and the teacher of {flavor.flavor_of(teacher)}: both must "
            "be of one Keras."
        )
    if {id(weight) for weight in flavor.weights_of(student)} & {id(weight) for weight in flavor.weights_of(teacher)}:
        raise ValueError(
            f"The student {student.name!r} and the teacher {teacher.name!r} share weights, so that the teacher would "
            "change: make the student a copy, as keras.models.clone_model does, and set its weights."
        )
    if mechanism_of(teacher).has_masks(teacher):
        raise ValueError(f"The teacher {teacher.name!r} is under pruning: pass what strip_pruning returns.")


def _check_own_step(student: Model) -> None:
    compiled = flavor.compilation_of(student)
    if compiled is not None and compiled.own_step == "train_step":
        raise ValueError(
            f"The student {student.name!r} has a train_step of its own, which distillation does not run: leave the "
            "labels out, or pass a plain model."
        )


def _check_settings(temperature: float, student_loss_weight: float, feature_weight: float, epochs: int) -> None:
    for name, value in (
        ("temperature", temperature),
        ("student_loss_weight", student_loss_weight),
        ("feature_weight", feature_weight),
    ):
        check_number(name, value)
    check_whole("epochs", epochs, 1)
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0; got {temperature}.")
    if not 0 <= student_loss_weight <= 1:
        raise ValueError(f"student_loss_weight is a share, from 0 to 1; got {student_loss_weight}.")
    if feature_weight < 0:
        raise ValueError(f"feature_weight must be 0 or more; got {feature_weight}.")
