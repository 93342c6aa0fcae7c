"""The model that trains a student after a teacher, and the two losses of distillation, for both Kerases.

Keras 3 brings them: `keras.distillation`. For `tf_keras` they are written here, with the same figures.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from edgeprune.flavor.kinds import KERAS_3, keras_of
from edgeprune.types import AnyTensor, Layer, Model, Optimizer, TfTensor


class DistillationLoss(Protocol):
    """What Keras calls by this name: a loss between what teacher and student compute."""

    def compute_loss(self, teacher_outputs: TfTensor, student_outputs: TfTensor) -> Any:
        """A scalar."""


class Seen(NamedTuple):
    """What a model returned, the same by the outputs' names, and what layers inside it returned, in one run."""

    outputs: Any
    by_name: dict[str, AnyTensor]
    features: list[AnyTensor]


class Term(Protocol):
    """One of the terms that a distillation loss is the sum of."""

    @property
    def weight(self) -> float:
        """What the term counts."""

    def loss(self, sample_weight: AnyTensor | None = None) -> DistillationLoss:
        """Keras's loss that computes the term."""

    def value(self, teacher: Seen, student: Seen, sample_weight: AnyTensor | None) -> Any:
        """The term of a batch, a scalar."""


def logits_distillation(
    keras: ModuleType, temperature: float, sample_weight: AnyTensor | None = None
) -> DistillationLoss:
    """The Kullback-Leibler divergence of class probabilities at a temperature, times its square.

    Args:
        keras: either Keras.
        temperature: what logits are divided by.
        sample_weight: weights `(n, ...)` of the losses, or None.
    """
    loss = _weighted(keras, "KLDivergence", sample_weight)
    if keras.__name__ == KERAS_3:
        return keras.distillation.LogitsDistillation(temperature=temperature, loss=loss)
    return _LogitsDistillation(temperature, loss)


def feature_distillation(keras: ModuleType, sample_weight: AnyTensor | None = None) -> DistillationLoss:
    """The mean squared error of what student and teacher compute.

    Args:
        keras: either Keras.
        sample_weight: weights `(n, ...)` of the losses, or None.
    """
    loss = _weighted(keras, "MeanSquaredError", sample_weight)
    if keras.__name__ == KERAS_3:
        return keras.distillation.FeatureDistillation(loss=loss)
    return _FeatureDistillation(loss)


class _LogitsDistillation:
    """`keras.distillation.LogitsDistillation`, for `tf_keras`."""

    def __init__(self, temperature: float, loss: Callable[[Any, Any], Any]) -> None:
        self.temperature = temperature
        self.loss = loss

    def compute_loss(self, teacher_outputs: TfTensor, student_outputs: TfTensor) -> Any:
        import tensorflow as tf

        soft = [tf.nn.softmax(logits / self.temperature) for logits in (teacher_outputs, student_outputs)]
        return self.loss(*soft) * self.temperature**2


class _FeatureDistillation:
    """`keras.distillation.FeatureDistillation`, for `tf_keras`."""

    def __init__(self, loss: Callable[[Any, Any], Any]) -> None:
        self.loss = loss

    def compute_loss(self, teacher_outputs: TfTensor, student_outputs: TfTensor) -> Any:
        return self.loss(teacher_outputs, student_outputs)


def _weighted(keras: ModuleType, name: str, sample_weight: AnyTensor | None) -> Any:
    """A loss of Keras that weighs the samples, though it is called without weights."""
    kind: Any = getattr(keras.losses, name)

    class Weighted(kind):
        def __call__(self, y_true: TfTensor, y_pred: TfTensor, sample_weight: AnyTensor | None = sample_weight) -> Any:
            return super().__call__(y_true, y_pred, sample_weight)

    loss = Weighted()
    loss._allow_sum_over_batch_size = True  # of tf_keras, which divides among replicas in the distiller
    return loss


def make_distiller(
    student: Model,
    teacher: Model,
    terms: Sequence[Term],
    *,
    student_loss_weight: float,
    run_student: Callable[[Any], Seen],
    run_teacher: Callable[[Any], Seen],
    inputs_of: Callable[[Any], Any] = lambda x: x,
    projections: Sequence[Layer] = (),
) -> Any:
    """A model whose `fit` trains a student on labels and after a teacher.

    It computes what the student does. The student's own compiled loss and metrics are those of the labels, with
    weights of samples and of outputs, and regularizers count in full. In Keras 3 it is a `Distiller`, whose own loss
    leaves these out, runs the student twice where features are compared, and treats all outputs as logits.

    Args:
        student: the compiled model that is trained.
        teacher: a model of the same Keras; its weights are constants.
        terms: what the distillation loss is the sum of.
        student_loss_weight: the share of the loss on the labels in the whole; the rest is the distillation loss.
        run_student: calls the student in training, on its inputs.
        run_teacher: calls the teacher at inference, on what `fit` is passed as x.
        inputs_of: returns the inputs of the student in what `fit` is passed as x.
        projections: layers that are trained with the student, and that only the terms use.
    """
    return _distiller_class(keras_of(student))(
        student, teacher, terms, student_loss_weight, run_student, run_teacher, inputs_of, projections
    )


@functools.cache
def _distiller_class(keras: ModuleType) -> Any:
    import tensorflow as tf

    keras_3 = keras.__name__ == KERAS_3
    base: Any = keras.distillation.Distiller if keras_3 else keras.Model

    class StudentTrainer(base):
        def __init__(
            self,
            student: Model,
            teacher: Model,
            terms: Sequence[Term],
            student_loss_weight: float,
            run_student: Callable[[Any], Seen],
            run_teacher: Callable[[Any], Seen],
            inputs_of: Callable[[Any], Any],
            projections: Sequence[Layer],
        ) -> None:
            if keras_3:
                losses, weights = [term.loss() for term in terms], [term.weight for term in terms]
                super().__init__(teacher, student, losses, weights, student_loss_weight, f"{student.name}_distiller")
            else:
                super().__init__(name=f"{student.name}_distiller")
                # What metrics return is that of all replicas already; that of several workers would be summed.
                self.distribute_reduction_method = "first"
                self.student, self.teacher, self.student_loss_weight = student, teacher, student_loss_weight
                self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
                self.distillation_loss_tracker = keras.metrics.Mean(name="distillation_loss")
                self.total_loss_tracker = keras.metrics.Mean(name="total_loss")
            self.projections = list(projections)
            self._run_student, self._run_teacher, self._terms = run_student, run_teacher, tuple(terms)
            self._inputs_of = inputs_of

        def compile(self, optimizer: Optimizer | str, **settings: object) -> None:
            keras.Model.compile(self, optimizer, **settings)

        def call(self, inputs: AnyTensor, training: bool = False) -> Any:
            own = self._inputs_of(inputs)
            return self._run_student(own) if training else self.student(own, training=False)

        @tf.autograph.experimental.do_not_convert
        def compute_loss(
            self,
            x: AnyTensor | None = None,
            y: AnyTensor | None = None,
            y_pred: Seen | AnyTensor | None = None,
            sample_weight: AnyTensor | None = None,
            training: bool = True,
        ) -> Any:
            own = self._inputs_of(x)
            if not isinstance(y_pred, Seen):
                return self.student.compute_loss(x=own, y=y, y_pred=y_pred, sample_weight=sample_weight)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            kept = tf.add_n([tf.reduce_sum(tf.cast(one, tf.float32)) for one in self.student.losses] or [0.0])
            on_labels, share = kept / replicas, 0.0
            if y is not None:
                on_labels = self.student.compute_loss(x=own, y=y, y_pred=y_pred.outputs, sample_weight=sample_weight)
                share = self.student_loss_weight
            teacher = self._run_teacher(x)
            values = [term.weight * term.value(teacher, y_pred, sample_weight) for term in self._terms]
            after_teacher = tf.add_n(values) / (1 if keras_3 else replicas)
            loss = share * on_labels + (1 - share) * (after_teacher + kept / replicas)
            count = tf.shape(tf.nest.flatten(x)[0])[0]
            for tracker, value in (
                (self.student_loss_tracker, on_labels),
                (self.distillation_loss_tracker, after_teacher),
                (self.total_loss_tracker, loss),
            ):
                tracker.update_state(value * replicas, sample_weight=count)
            return loss

        def compute_metrics(
            self, x: AnyTensor, y: AnyTensor | None, y_pred: Seen | AnyTensor, sample_weight: AnyTensor | None = None
        ) -> dict[str, Any]:
            figures = {
                "loss": self.total_loss_tracker.result(),
                "student_loss": self.student_loss_tracker.result(),
                "distillation_loss": self.distillation_loss_tracker.result(),
            }
            if y is None:
                return figures
            outputs = y_pred.outputs if isinstance(y_pred, Seen) else y_pred
            of_student = self.student.compute_metrics(self._inputs_of(x), y, outputs, sample_weight)
            return {**figures, **{name: value for name, value in of_student.items() if name != "loss"}}

        def reset_metrics(self) -> None:
            super().reset_metrics()
            self.student.reset_metrics()

        # What a callback saves is the student; the arguments are those of `Model.save`.
        def save(self, *arguments: Any, **named: Any) -> None:
            self.student.save(*arguments, **named)

        def save_weights(self, *arguments: object, **named: object) -> None:
            self.student.save_weights(*arguments, **named)

        def load_weights(self, *arguments: object, **named: object) -> Any:
            return self.student.load_weights(*arguments, **named)

    return StudentTrainer


def build_compiled(model: Model, y: Any, outputs: Any) -> None:
    """Make the variables of a model's compiled metrics and losses, as Keras 3 does for a model that `fit` is called on.

    Under a `tf.distribute` strategy those that a step makes cannot be set up on every replica.

    Args:
        model: a compiled model; for one of `tf_keras` there is nothing to do.
        y: labels of a few samples, in the model's structure.
        outputs: what it computes for them.
    """
    for part in (getattr(model, "_compile_metrics", None), getattr(model, "_compile_loss", None)):
        if part is not None and not part.built:
            part.build(y, outputs)


@contextlib.contextmanager
def frozen(model: Model) -> Iterator[None]:
    """While the body runs, nothing of a model is trained; afterwards each layer is as it was."""
    before = [(layer, layer.trainable) for layer in model._flatten_layers()]
    model.trainable = False
    try:
        yield
    finally:
        for layer, trainable in before:  # a model before the layers inside it, whose flags it sets
            layer.trainable = trainable
