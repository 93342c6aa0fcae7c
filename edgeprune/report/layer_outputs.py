"""What each layer of a Keras model returns, and which tensor of a .tflite file holds the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.export.diagnosis import paths_behind
from edgeprune.tflite.file import tflite_bytes
from edgeprune.tflite.graph import operators, unpacked
from edgeprune.tflite.runtime import Port, Runtime
from edgeprune.types import Model

_SURELY_THE_SAME = 0.95  # correlation, for a tensor whose name says no layer


@dataclass(frozen=True)
class LayerOutput:
    """One output of a call in a model's graph.

    Attributes:
        layer: the path name of the layer.
        kind: its class, or the name of the function.
        number: the position among all outputs, in the order in which they are computed.
    """

    layer: str
    kind: str
    number: int


@dataclass(frozen=True)
class ComputedTensor:
    """A tensor that an operator of a file computes.

    Attributes:
        operator: the operator's name.
        port: how its values are stored.
        layers: the path names of the layers that its name says.
        place: the position of the operator.
    """

    operator: str
    port: Port
    layers: tuple[str, ...]
    place: int


def run_recorded(walked: Model, inputs: Sequence[Any], names: dict[int, str]) -> list[tuple[LayerOutput, np.ndarray]]:
    """Every float that the layers of a model return, for a batch, in the order in which it is computed.

    Args:
        walked: a Functional or Sequential model.
        inputs: a tensor for each of its inputs.
        names: `id` of a layer to its path name.
    """
    seen: list[tuple[LayerOutput, np.ndarray]] = []

    def call(node: flavor.GraphNode, taken: list[Any]) -> list[Any]:
        given = flavor.call_layer(node, taken)
        name = names.get(id(node.layer), node.layer.name)
        kind = flavor.function_name(node.layer) or type(node.layer).__name__
        for tensor in given:
            if tensor is not None and tensor.dtype.is_floating:
                seen.append((LayerOutput(name, kind, len(seen)), np.asarray(tensor, np.float32)))
        return given

    flavor.run_model(walked, inputs, call)
    return seen


def computed_tensors(runtime: Runtime, model: Model) -> list[ComputedTensor]:
    """The tensors that the operators of a file compute from its inputs, in the order they run."""
    ports = runtime.tensors()
    found = []
    for place, call in enumerate(operators(unpacked(tflite_bytes(runtime.path)))):
        if call.subgraph == 0 and call.operator.outputs is not None:
            for number in call.operator.outputs:
                port = ports.get(int(number))
                if port is not None and (port.quantized or port.dtype.kind == "f"):
                    found.append(ComputedTensor(call.name, port, tuple(paths_behind(port.name, model)), place))
    return found


def paired(
    outputs: Sequence[tuple[LayerOutput, np.ndarray]], tensors: Sequence[tuple[ComputedTensor, np.ndarray]]
) -> list[tuple[LayerOutput, ComputedTensor]]:
    """Which tensor of a file holds what a layer returns, in the order of the layers.

    The converter names a tensor after the layers that it put into one operator. Of these the one is meant whose values
    are nearest; a tensor whose name says none is that of the layer whose values it has.

    Args:
        outputs: what the layers return for some samples.
        tensors: what the operators compute for the same samples, as real values.

    Returns:
        Layers whose output is inside an operator, and tensors between those of layers, are left out.
    """
    best: dict[int, tuple[float, LayerOutput, ComputedTensor]] = {}
    for tensor, values in tensors:
        alike = [(output, own) for output, own in outputs if own.size == values.size]
        named = [pair for pair in alike if pair[0].layer in tensor.layers]
        scored = [(_error(own, values), output) for output, own in named]
        if not scored:
            scored = [
                (_error(own, values), output) for output, own in alike if _correlation(own, values) > _SURELY_THE_SAME
            ]
        if scored:
            least = min(error for error, _ in scored)
            # A layer that changes nothing, such as a batch normalization before training, is as near as the one before.
            error, output = max((pair for pair in scored if pair[0] <= 1.5 * least), key=lambda pair: pair[1].number)
            if output.number not in best or error <= best[output.number][0]:
                best[output.number] = (error, output, tensor)
    return [(output, tensor) for _, (_, output, tensor) in sorted(best.items())]


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.reshape(-1) - b.reshape(-1), dtype=np.float64).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    sizes = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / sizes) if sizes else 0.0
