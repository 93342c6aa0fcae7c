"""Operators that a file computes in floats between integers, and that integers can compute as well.

The converter has no rule for them: it turns their values into floats and back. Each is rewritten as an operator of int8
that makes the same values of the same steps: a negation is a product with -1, a square one with itself, and ELU has a
kernel of int8. All of LayerNormalization is in integers by that, and every transformer is.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.edit import edited, new_operator
from edgeprune.tflite.graph import OperatorCall, operators, scales, type_name

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

_VERSIONS = {"MUL": 2, "ELU": 1}  # those of int8


def in_integers(content: bytes) -> bytes:
    """The content of a .tflite file, with operators of int8 where a float one stands alone between two conversions."""
    return edited(content, _rewrite)


def _rewrite(model: schema.ModelT) -> bool:
    found = [call for call in operators(model, "NEG", "SQUARE", "ELU") if _rewrite_one(model, call)]
    return bool(found)


def _rewrite_one(model: schema.ModelT, call: OperatorCall) -> bool:
    """Rewrite an operator, with the conversions around it; whether it stands between two."""
    graph, operator = call.graph, call.operator
    names = {id(one.operator): one.name for one in operators(model)}
    makers, readers = _makers_and_readers(graph)
    source, result = operator.inputs[0], operator.outputs[0]
    before, behind = makers.get(source), readers[result]
    if before is None or names[id(before)] != "DEQUANTIZE" or not _is_int8(graph, before.inputs[0]):
        return False
    if not behind or result in graph.outputs:
        return False
    if not all(names[id(one)] == "QUANTIZE" and _is_int8(graph, one.outputs[0]) for one in behind):
        return False
    for one in behind:
        graph.operators[_place(graph, one)] = _of_integers(model, call, before.inputs[0], one.outputs[0])
    graph.operators.pop(_place(graph, operator))
    if readers[source] == [operator] and source not in graph.outputs:
        graph.operators.pop(_place(graph, before))
    return True


def _of_integers(model: schema.ModelT, call: OperatorCall, source: int, result: int) -> Any:
    """The operator that computes the same from one tensor of int8 into another."""
    from ai_edge_litert import schema_py_generated as schema

    if call.name == "ELU":
        return new_operator(model, "ELU", [source], [result], _VERSIONS["ELU"])
    factor = source if call.name == "SQUARE" else _minus_one(model, call.graph)
    made = new_operator(model, "MUL", [source, factor], [result], _VERSIONS["MUL"])
    made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    return made


def _minus_one(model: schema.ModelT, graph: schema.SubGraphT) -> int:
    """The number of a constant tensor of int8 that is -1: its least integer, by steps of 1/128."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.array([-128], np.int8).view(np.uint8)
    model.buffers.append(buffer)
    steps = schema.QuantizationParametersT()
    steps.scale, steps.zeroPoint = np.array([1 / 128], np.float32), np.array([0], np.int64)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = b"minus_one", np.array([1], np.int32), schema.TensorType.INT8
    tensor.buffer, tensor.quantization = len(model.buffers) - 1, steps
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _makers_and_readers(graph: schema.SubGraphT) -> tuple[dict[int, Any], dict[int, list[Any]]]:
    """By the number of a tensor the operator that computes it, and those that read it."""
    makers: dict[int, Any] = {}
    readers: dict[int, list[Any]] = defaultdict(list)
    for operator in graph.operators:
        makers |= dict.fromkeys(operator.outputs, operator)
        for number in operator.inputs:
            readers[number].append(operator)
    return makers, readers


def _is_int8(graph: schema.SubGraphT, number: int) -> bool:
    tensor = graph.tensors[number]
    return type_name(tensor) == "int8" and scales(tensor) is not None


def _place(graph: schema.SubGraphT, operator: Any) -> int:
    return next(place for place, one in enumerate(graph.operators) if one is operator)
