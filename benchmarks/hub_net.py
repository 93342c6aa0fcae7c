"""How a small configuration of one of KerasHub's architectures is written down, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SIDE = 64
IMAGE = (SIDE, SIDE, 3)
WORDS = 32


@dataclass(frozen=True)
class HubNet:
    """One architecture.

    Attributes:
        kind: what it is for, such as `"text encoder"`.
        build: makes the model, of Keras 3.
        shapes: by the name of an input the sizes of a sample of it, where they are open and not just any will do.
    """

    kind: str
    build: Callable[[], Any]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


NETS: dict[str, HubNet] = {}


def of_fixed_length(model: Any, length: int, shapes: dict[str, tuple[int, ...]]) -> Any:
    """The same model for texts of one length, as LiteRT wants it; `shapes` are those of other inputs that are open."""
    import keras

    if not any(None in tensor.shape[1:] for tensor in model.inputs):
        return model
    inputs = {}
    for tensor in model.inputs:
        shape = shapes.get(tensor.name) or tuple(size or length for size in tensor.shape[1:])
        inputs[tensor.name] = keras.Input(shape, dtype=tensor.dtype, name=tensor.name)
    given = inputs if isinstance(model.input, dict) else next(iter(inputs.values()))
    return keras.Model(given, model(given), name=f"{model.name}_of_fixed_length")


def net(name: str, kind: str, **shapes: tuple[int, ...]) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add the model that the function makes."""

    def add(build: Callable[[], Any]) -> Callable[[], Any]:
        NETS[name] = HubNet(kind, build, shapes)
        return build

    return add


def made(name: str, *args: Any, **arguments: Any) -> Any:
    """An instance of one of KerasHub's models (or layers, `"layers.Name"`)."""
    import keras_hub

    place, _, name = name.rpartition(".")
    return getattr(keras_hub.layers if place == "layers" else keras_hub.models, name)(*args, **arguments)


def table(kind: str, task: str | None, rows: dict[str, tuple[str, dict[str, Any]]], **of_task: Any) -> None:
    """Add one net for each row: name to the backbone's class and arguments; `task` is put on it, by its class's stem.

    Args:
        kind: of all of them.
        task: the end of the name of the task's class, `"ImageClassifier"`; None for the backbone alone.
        rows: name to class of the backbone and its arguments.
        of_task: arguments of the task.
    """
    for name, (backbone, arguments) in rows.items():

        def build(backbone: str = backbone, arguments: dict[str, Any] = arguments) -> Any:
            made_backbone = made(backbone, **arguments)
            if task is None:
                return made_backbone
            return made(backbone.removesuffix("Backbone") + task, made_backbone, **of_task)

        net(name, kind)(build)
