"""ELU, which the converter computes in floats between integers, and which has a kernel of int8.

The converter has no rule for it: it turns the values into floats and back. Several may follow one another, and
operators that only move values may follow them, which it leaves in floats as well: all are rewritten for int8. Where
the file has no steps between two, they are those that the values get further on, or follow from what comes in.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.edit import edited, new_operator
from edgeprune.tflite.graph import operators, scales, tensor_numbers, type_name

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

# Operators that return values of their first input, or 0, and the versions that do so in int8.
_MOVES = {
    **dict.fromkeys(("RESHAPE", "EXPAND_DIMS"), 1),
    **dict.fromkeys(("TRANSPOSE", "SQUEEZE", "STRIDED_SLICE", "MAX_POOL_2D", "PAD"), 2),
}

_Steps = tuple[float, int]  # scale and zero point of int8


def in_integers(content: bytes) -> bytes:
    """The content of a .tflite file, with ELU of int8 where one of floats stands between two conversions."""
    return edited(content, _rewrite)


def _rewrite(model: schema.ModelT) -> bool:
    names = {id(call.operator): call.name for call in operators(model)}
    return any([_Graph(model, graph, names).rewrite() for graph in model.subgraphs or ()])


class _Graph:
    """A subgraph, whose operators are rewritten in the order they run.

    Args:
        model: the schema's `ModelT`.
        graph: one of its subgraphs.
        names: of its operators, by their ids.
    """

    def __init__(self, model: schema.ModelT, graph: schema.SubGraphT, names: dict[int, str]) -> None:
        self._model, self._graph, self._names = model, graph, names
        self._readers: dict[int, list[Any]] = defaultdict(list)
        for operator in graph.operators or ():
            for number in tensor_numbers(operator.inputs):
                self._readers[number].append(operator)
        self._in_int8: dict[int, int] = {}  # the number of a tensor of floats to that of the same values in int8
        self._replaced: set[int] = set()  # the ids of operators that others stand for

    def rewrite(self) -> bool:
        """Rewrite what can be; whether something was."""
        made = [one for operator in self._graph.operators or () for one in self._standing_for(operator)]
        left = [one for one in made if id(one) not in self._replaced]
        read = {number for one in left for number in tensor_numbers(one.inputs)} | set(
            tensor_numbers(self._graph.outputs)
        )
        self._graph.operators = [one for one in left if self._name(one) != "DEQUANTIZE" or one.outputs[0] in read]
        return bool(self._replaced)

    def _standing_for(self, operator: Any) -> list[Any]:
        """The operators that take an operator's place, which may be itself."""
        if self._name(operator) == "DEQUANTIZE" and self._is_quantized(operator.inputs[0], "int8"):
            self._in_int8[operator.outputs[0]] = operator.inputs[0]
        if not self._can_be_rewritten(operator) or operator.inputs[0] not in self._in_int8:
            return [operator]
        targets = self._targets(operator)
        self._in_int8[operator.outputs[0]] = targets[0]
        self._replaced.add(id(operator))
        return [self._of_integers(operator, target) for target in targets]

    def _can_be_rewritten(self, operator: Any) -> bool:
        """Whether integers can compute an operator, and all that reads its values is quantized or can be rewritten."""
        if self._name(operator) not in {"ELU", *_MOVES}:
            return False
        result = operator.outputs[0]
        readers = self._readers[result]
        return (
            bool(readers)
            and result not in self._graph.outputs
            and all(self._quantizes(one) or self._can_be_rewritten(one) for one in readers)
        )

    def _quantizes(self, operator: Any) -> bool:
        return self._name(operator) == "QUANTIZE" and self._is_quantized(operator.outputs[0], "int8", "uint8")

    def _targets(self, operator: Any) -> list[int]:
        """The tensors of int8 that are computed in place of one of floats: those that are there, or a new one."""
        result = operator.outputs[0]
        moved = self._steps(self._in_int8[operator.inputs[0]]) if self._name(operator) in _MOVES else None
        quantizing = [one for one in self._readers[result] if self._quantizes(one)]
        direct = [
            one
            for one in quantizing
            if self._is_quantized(one.outputs[0], "int8") and moved in (None, self._steps(one.outputs[0]))
        ]
        self._replaced |= {id(one) for one in direct}
        targets = [one.outputs[0] for one in direct]
        if not targets:
            targets = [self._like(result, moved or self._steps_further_on(result) or self._steps_of_all(operator))]
        for one in quantizing:
            if id(one) not in self._replaced:  # to uint8, or to other steps than those of what is moved
                one.inputs = np.array(targets[:1], np.int32)
        return targets

    def _steps_further_on(self, number: int) -> _Steps | None:
        """The steps of int8 by which a tensor's values are quantized in the end, where they are the same everywhere."""
        found = {self._steps_behind(one) for one in self._readers[number]}
        return found.pop() if len(found) == 1 else None

    def _steps_behind(self, reader: Any) -> _Steps | None:
        """The steps that what an operator reads has, if its result has those by which that is quantized."""
        result = reader.outputs[0]
        if self._quantizes(reader):
            scale, zero = self._steps(result)
            return scale, zero if self._is_quantized(result, "int8") else zero - 128
        return self._steps_further_on(result) if self._name(reader) in _MOVES else None

    def _steps_of_all(self, elu: Any) -> _Steps:
        """The steps that hold all that ELU can make of the values that its input's steps hold."""
        scale, zero = self._steps(self._in_int8[elu.inputs[0]])
        low, high = math.expm1((-128 - zero) * scale), (127 - zero) * scale
        made = (high - low) / 255
        return made, round(-128 - low / made)

    def _of_integers(self, operator: Any, target: int) -> Any:
        """The operator that computes the same from one tensor of int8 into another."""
        name, source = self._name(operator), self._in_int8[operator.inputs[0]]
        if name == "ELU":
            return new_operator(self._model, "ELU", [source], [target])
        version = max(_MOVES[name], self._model.operatorCodes[operator.opcodeIndex].version)
        made = new_operator(self._model, name, [source, *operator.inputs[1:]], [target], version)
        made.builtinOptionsType, made.builtinOptions = operator.builtinOptionsType, operator.builtinOptions
        return made

    def _like(self, number: int, steps: _Steps) -> int:
        """The number of a new tensor of int8, of the shape of one of floats."""
        from ai_edge_litert import schema_py_generated as schema

        tensor = copy.copy(self._graph.tensors[number])
        tensor.name = (tensor.name or b"") + b"_int8"
        tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale = np.array(steps[:1], np.float32)
        tensor.quantization.zeroPoint = np.array(steps[1:], np.int64)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _is_quantized(self, number: int, *types: str) -> bool:
        """Whether a tensor is of one of these types, with one scale for all its values."""
        tensor = self._graph.tensors[number]
        found = scales(tensor)
        return type_name(tensor) in types and found is not None and len(found) == 1

    def _steps(self, number: int) -> _Steps:
        quantization = self._graph.tensors[number].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def _name(self, operator: Any) -> str:
        return self._names.get(id(operator), "")
