"""Models with loops, on whose calibration TensorFlow's converter would end the whole process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.conversion.converter_run import ConverterSettings, run_converter
from edgeprune.export import diagnosis
from edgeprune.types import Model

if TYPE_CHECKING:
    import tensorflow as tf


def refuse_loops(
    function: tf.types.experimental.ConcreteFunction, saved_model: str, recipe: ConverterSettings, model: Model
) -> None:
    """Refuse to calibrate a model with a loop.

    Some loops are gone once converted (a `tf_keras` LSTM becomes one operator), so the float file decides.

    Args:
        function: the traced model.
        saved_model: the folder that it was saved in.
        recipe: what to make of it.
        model: the Keras model, for the names of layers.

    Raises:
        LoopError: the file would have a loop, and the recipe is calibrated.
    """
    if not (recipe.calibrated and _has_loop(function)):
        return
    content = run_converter(saved_model, ConverterSettings(allow_flex=True, allow_custom=True))
    if loops := diagnosis.loops(content, model):
        raise diagnosis.LoopError(loops, recipe.quantization)


def _has_loop(function: tf.types.experimental.ConcreteFunction) -> bool:
    """Whether the traced function, or one that it calls, holds a loop."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return any(node.op in ("While", "StatelessWhile") for node in nodes)
