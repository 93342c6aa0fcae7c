"""The terms of a distillation loss: outputs compared by what they stand for, features by their squared error.

Keras's `LogitsDistillation` treats all outputs as logits of classes. A softmax that it is applied to a second time
teaches next to nothing, and of a single sigmoid nothing at all, so probabilities become logits first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edgeprune import flavor
from edgeprune.data.labels import by_output
from edgeprune.fit.output_ends import Meaning, meaning_of, output_ends, shapes_of_outputs
from edgeprune.layer_patterns import similar
from edgeprune.types import AnyTensor, Layer, Model

_TINY = 1.2e-38  # the least normal float32, below which a logarithm has no gradient


@dataclass(frozen=True)
class OutputTerm:
    """How far an output is from the teacher's: divergence of probabilities, or squared error of real numbers.

    Attributes:
        keras: the Keras of both models.
        name: the student's name for the output.
        teacher_name: the teacher's.
        meaning: what its values are.
        student_gives_logits: whether the student's are logits; else they are probabilities.
        teacher_gives_logits: the same of the teacher.
        temperature: what logits are divided by.
        weight: what the term counts.
    """

    keras: ModuleType
    name: str
    teacher_name: str
    meaning: Meaning
    student_gives_logits: bool
    teacher_gives_logits: bool
    temperature: float
    weight: float

    def loss(self, sample_weight: AnyTensor | None = None) -> flavor.DistillationLoss:
        """Keras's loss that computes the term."""
        if self.meaning == "numbers":
            return flavor.feature_distillation(self.keras, sample_weight)
        return flavor.logits_distillation(self.keras, self.temperature, sample_weight)

    def value(self, teacher: flavor.Seen, student: flavor.Seen, sample_weight: AnyTensor | None) -> Any:
        """The term of a batch, a scalar."""
        import tensorflow as tf

        weights = by_output(student.by_name, sample_weight, "sample weights")[self.name]
        of_teacher = tf.stop_gradient(teacher.by_name[self.teacher_name])
        pair = (
            self._comparable(of_teacher, self.teacher_gives_logits),
            self._comparable(student.by_name[self.name], self.student_gives_logits),
        )
        return self.loss(_spread(weights, len(pair[1].shape) - 1)).compute_loss(*pair)

    def _comparable(self, values: AnyTensor, are_logits: bool) -> Any:
        """What the loss compares: real numbers as they are, logits of classes along a last axis."""
        import tensorflow as tf

        values = tf.cast(values, tf.float32)
        if self.meaning == "numbers":
            return values
        if self.meaning == "classes":
            return values if are_logits else _log(values)
        logits = values if are_logits else _log(values) - _log(1 - values)
        return tf.stack([logits, tf.zeros_like(logits)], axis=-1)


@dataclass(frozen=True)
class FeatureTerm:
    """How far what a layer computes is from what one of the teacher's does: the mean squared error.

    Attributes:
        keras: the Keras of both models.
        number: the place of the layers among those that are compared.
        channel_axis: where the channels are.
        projection: a layer that makes the student's channels as many as the teacher's; None where they are.
        weight: what the term counts.
    """

    keras: ModuleType
    number: int
    channel_axis: int
    projection: Layer | None
    weight: float

    def loss(self, sample_weight: AnyTensor | None = None) -> flavor.DistillationLoss:
        """Keras's loss that computes the term."""
        return flavor.feature_distillation(self.keras, sample_weight)

    def value(self, teacher: flavor.Seen, student: flavor.Seen, sample_weight: AnyTensor | None) -> Any:
        """The term of a batch, a scalar."""
        import tensorflow as tf

        target = tf.stop_gradient(tf.cast(teacher.features[self.number], tf.float32))
        features = tf.cast(student.features[self.number], tf.float32)
        if self.projection is not None:
            axes = list(range(len(features.shape)))
            axes.append(axes.pop(self.channel_axis))
            back = [axes.index(axis) for axis in range(len(axes))]
            features = tf.transpose(self.projection(tf.transpose(features, axes)), back)
        weights = sample_weight if len(getattr(sample_weight, "shape", ())) == 1 else None  # not of positions
        return self.loss(_spread(weights, len(features.shape) - 1)).compute_loss(target, features)


def output_terms(student: Model, teacher: Model, temperature: float) -> list[OutputTerm]:
    """A term for each output; it counts as much as the student's loss of that output does.

    Raises:
        ValueError: the outputs of the models differ in number or in shape.
    """
    keras = flavor.keras_of(student)
    shapes, of_teacher = shapes_of_outputs(student), shapes_of_outputs(teacher)
    if [shape[1:] for shape in shapes.values()] != [shape[1:] for shape in of_teacher.values()]:
        raise ValueError(
            f"The student {student.name!r} and the teacher {teacher.name!r} must return the same: their outputs are of "
            f"shape {_listed(shapes)} and {_listed(of_teacher)}."
        )
    compiled = flavor.compilation_of(student)
    weights = by_output(shapes, compiled and compiled.loss_weights, "loss weights")
    terms = []
    for end, teacher_end in zip(output_ends(student), output_ends(teacher), strict=True):
        terms.append(
            OutputTerm(
                keras,
                end.name,
                teacher_end.name,
                end.meaning or meaning_of(teacher_end.activation) or "numbers",
                end.gives_logits,
                teacher_end.gives_logits if teacher_end.is_known else end.gives_logits,
                temperature,
                1.0 if weights[end.name] is None else float(weights[end.name]),
            )
        )
    return terms


def feature_terms(
    student: Model, teacher: Model, layers: Mapping[str, str] | Sequence[str], weight: float
) -> tuple[list[FeatureTerm], list[AnyTensor], list[AnyTensor]]:
    """A term for each pair of layers whose outputs are compared.

    Args:
        student: a Functional or Sequential model.
        teacher: the same.
        layers: names of layers of the teacher to those of the student, or names that both have.
        weight: what all terms together count.

    Returns:
        The terms, and the symbolic outputs of the layers in the student and in the teacher.

    Raises:
        ValueError: a layer is not there or is called several times, or the outputs differ in more than channels.
    """
    pairs = dict(layers) if isinstance(layers, Mapping) else {name: name for name in layers}
    terms, of_student, of_teacher = [], [], []
    for number, (teacher_name, student_name) in enumerate(pairs.items()):
        source, axis = _layer_output(teacher, teacher_name, "teacher")
        own, _ = _layer_output(student, student_name, "student")
        terms.append(_feature_term(flavor.keras_of(student), number, student_name, own, source, axis, weight, pairs))
        of_student.append(own)
        of_teacher.append(source)
    return terms, of_student, of_teacher


def _feature_term(
    keras: ModuleType,
    number: int,
    name: str,
    own: AnyTensor,
    source: AnyTensor,
    axis: int,
    weight: float,
    pairs: Mapping[str, str],
) -> FeatureTerm:
    shape, wanted = tuple(own.shape), tuple(source.shape)
    axis = axis % len(wanted)
    if shape[1:axis] + shape[axis + 1 :] != wanted[1:axis] + wanted[axis + 1 :]:
        raise ValueError(
            f"Layer {name!r} of the student returns {shape}, and that of the teacher {wanted}: features may differ in "
            "their channels alone."
        )
    projection = None
    if shape[axis] != wanted[axis]:
        projection = keras.layers.Dense(wanted[axis], name=f"project_{number}", dtype="float32")
        projection.build((*shape[:axis], *shape[axis + 1 :], shape[axis]))
    return FeatureTerm(keras, number, axis, projection, weight / len(pairs))


def _layer_output(model: Model, name: str, what: str) -> tuple[AnyTensor, int]:
    """The symbolic output of a layer of a model's graph, and where its channels are."""
    if not flavor.is_graph_model(model):
        raise ValueError(
            f"The {what} {model.name!r} is subclassed, so that the outputs of its layers are unknown: leave features= "
            "out, or pass a Functional or Sequential model."
        )
    calls = flavor.graph_nodes(model)[1]
    found = [call for call in calls if call.layer.name.removeprefix("prune_low_magnitude_") == name]
    if not found:
        raise ValueError(
            f"The {what} {model.name!r} has no layer {name!r} in its own graph."
            + similar(name, [call.layer.name for call in calls])
        )
    if len(found) > 1 or len(found[0].outputs) != 1 or len(found[0].outputs[0].shape) < 2:
        raise ValueError(
            f"Layer {name!r} of the {what} {model.name!r} is called {len(found)} times and returns "
            f"{len(found[0].outputs)} tensors: features are the one output of a layer that is called once."
        )
    axis = 1 if getattr(found[0].layer, "data_format", None) == "channels_first" else -1
    return found[0].outputs[0], axis


def _listed(shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    return " and ".join(map(str, shapes.values()))


def _log(probabilities: AnyTensor) -> Any:
    import tensorflow as tf

    return tf.math.log(tf.maximum(probabilities, _TINY))


def _spread(weights: AnyTensor | None, rank: int) -> Any:
    """Weights with as many axes as the losses of samples and positions have."""
    import tensorflow as tf

    if weights is None:
        return None
    if len(weights.shape) > rank and weights.shape[-1] == 1:
        weights = tf.squeeze(weights, axis=-1)
    for _ in range(rank - len(weights.shape)):
        weights = tf.expand_dims(weights, axis=-1)
    return weights
