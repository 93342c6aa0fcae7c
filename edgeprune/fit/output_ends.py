"""What the values of a model's outputs are: classes, yes or no, or real numbers; logits or probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeprune import flavor
from edgeprune.data.labels import by_output
from edgeprune.data.losses import kind_of_loss, setting
from edgeprune.types import Layer, Model

# One class of several, yes or no for each value, or real numbers.
Meaning = Literal["classes", "yes_or_no", "numbers"]
_MEANING: dict[str, Meaning] = {
    "sparse": "classes",
    "categorical": "classes",
    "softmax": "classes",
    "binary": "yes_or_no",
    "sigmoid": "yes_or_no",
    "regression": "numbers",
}


@dataclass(frozen=True)
class OutputEnd:
    """What is known of an output: the activation it ends with, and what its loss makes of it.

    Attributes:
        name: the output's name.
        shape: its shape, the samples included; None for a size that is unknown.
        activation: the name of the last activation; None where it is unknown.
        loss_kind: what kind of targets its loss compares it with, as `kind_of_loss` returns it.
        takes_logits: whether the loss takes logits; None without a loss.
    """

    name: str
    shape: tuple[int | None, ...]
    activation: str | None
    loss_kind: str | None
    takes_logits: bool | None

    @property
    def meaning(self) -> Meaning | None:
        """What its values are: what the loss makes of them, else what the activation says; None where neither does."""
        return meaning_of(self.loss_kind) or meaning_of(self.activation)

    @property
    def is_known(self) -> bool:
        """Whether it is known if its values are logits."""
        return self.activation is not None or self.takes_logits is not None

    @property
    def gives_logits(self) -> bool:
        """An activation says it of itself; behind another layer the loss does."""
        if self.activation is not None:
            return self.activation not in ("softmax", "sigmoid")
        return self.takes_logits is not False


def meaning_of(kind: str | None) -> Meaning | None:
    """What values are by the kind of their loss, or by the name of the activation they come from; None if unknown."""
    return None if kind is None else _MEANING.get(kind)


def output_ends(model: Model) -> list[OutputEnd]:
    """What is known of each output of a model, in their order."""
    shapes, compiled = shapes_of_outputs(model), flavor.compilation_of(model)
    losses = by_output(shapes, compiled and compiled.loss, "losses")
    layers = flavor.output_layers(model)
    return [
        OutputEnd(
            name,
            shape,
            activation=_activation(layers.get(name)),
            loss_kind=None if losses[name] is None else kind_of_loss(losses[name], (1,) * (len(shape) - 1), shape),
            takes_logits=None if losses[name] is None else bool(setting(losses[name], "from_logits")),
        )
        for name, shape in shapes.items()
    ]


def shapes_of_outputs(model: Model) -> dict[str, tuple[int | None, ...]]:
    """The shape of each output by its name; a subclassed model is called to see them."""
    if flavor.is_graph_model(model):
        return {name: tuple(tensor.shape) for name, tensor in flavor.output_tensors(model).items()}
    import tensorflow as tf

    inputs = flavor.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), flavor.call_specs(model), model)
    outputs = flavor.named_outputs(model, model(inputs, training=False))
    return {name: (None, *tuple(tensor.shape)[1:]) for name, tensor in outputs.items()}


def _activation(layer: Layer | None) -> str | None:
    """The name of the activation that a layer ends with; None where it is unknown."""
    while layer is not None:
        inside = flavor.model_inside(layer)[0]
        if inside is not None:
            layers = list(flavor.output_layers(inside).values())
            layer = layers[0] if len(layers) == 1 else None
        elif hasattr(layer, "layer"):  # a wrapper, as TF-MOT's
            layer = layer.layer
        else:
            break
    if layer is None:
        return None
    if flavor.is_layer(layer) and isinstance(layer, flavor.keras_of(layer).layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", None) or flavor.function_name(layer)
