"""Put right in a file what the converter writes wrong, or so that fewer devices can read it than could."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edgeprune.types import Model

# Places among an LSTM operator's inputs and intermediates.
_LSTM_OUTPUT_STATE, _LSTM_CELL_STATE, _LSTM_HIDDEN = 18, 19, 4
_SMALLEST_CELL_STEP = 2.0**-15
_LONGEST_NAME = 1000  # bytes


def repaired(content: bytes) -> bytes:
    """The content of a .tflite file, with scales that its kernels compute with and operators that more devices have."""
    from ai_edge_litert import schema_py_generated as schema

    file = _File(schema.ModelT.InitFromPackedBuf(content), schema)
    changed = [
        file.repair_lstms(),
        file.repair_reversals(),
        file.use_select_v2(),
        file.shorten_names(),
    ]
    return file.content() if any(changed) else content


class _File:
    """A .tflite file in memory, as the schema's objects."""

    def __init__(self, model: Model, schema: Any):
        self._model, self._schema = model, schema

    def content(self) -> bytes:
        """The file's bytes."""
        import flatbuffers

        builder = flatbuffers.Builder()
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def repair_lstms(self) -> bool:
        """Give the states of int8 LSTM operators scales for which the kernels are right; whether there are any.

        A kernel writes a step's output into the state and copies it from there, so that both have the output's scale;
        the converter gives the state another. And a cell that remains below 0.5 in calibration gets a step below 2^-15,
        for which the kernels have no tanh. Neither is an error: the values are wrong.
        Source: tensorflow/lite/kernels/lstm_eval.cc and internal/reference/portable_tensor_utils.cc
        """
        found = False
        for graph in self._model.subgraphs:
            for operator in self._operators(graph, "UNIDIRECTIONAL_SEQUENCE_LSTM"):
                output = graph.tensors[operator.outputs[0]].quantization
                if not _has_scale(output):
                    continue
                for place in (operator.inputs[_LSTM_OUTPUT_STATE], operator.intermediates[_LSTM_HIDDEN]):
                    graph.tensors[place].quantization = copy.copy(output)
                cell = graph.tensors[operator.inputs[_LSTM_CELL_STATE]].quantization
                cell.scale = np.maximum(cell.scale, np.float32(_SMALLEST_CELL_STEP))
                found = True
        return found

    def repair_reversals(self) -> bool:
        """Have what is reversed keep its scale, and be brought to the result's afterwards; whether any had another.

        The kernels of REVERSE_V2 copy the values, whatever the scales of their input and output are.
        """
        found = False
        for graph in self._model.subgraphs:
            for operator in self._operators(graph, "REVERSE_V2"):
                source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
                if _has_scale(source.quantization) and not _same_scale(source.quantization, result.quantization):
                    reversed_only = copy.copy(result)
                    reversed_only.name, reversed_only.quantization = result.name + b"/reversed", source.quantization
                    graph.tensors.append(reversed_only)
                    rescaling = self._quantize(len(graph.tensors) - 1, operator.outputs[0])
                    operator.outputs = np.array([len(graph.tensors) - 1], np.int32)
                    graph.operators.insert(graph.operators.index(operator) + 1, rescaling)
                    found = True
        return found

    def use_select_v2(self) -> bool:
        """Replace SELECT by SELECT_V2, which microcontrollers have, where both are the same; whether there is one.

        They differ in a condition of another shape than the values: SELECT takes it for one value a row.
        """
        selections = [
            (graph, operator) for graph in self._model.subgraphs for operator in self._operators(graph, "SELECT")
        ]
        for graph, operator in selections:
            condition, values = (graph.tensors[index].shape for index in operator.inputs[:2])
            if not np.array_equal(condition, values):
                return False
        for _, operator in selections:
            code = self._model.operatorCodes[operator.opcodeIndex]
            code.builtinCode = code.deprecatedBuiltinCode = self._schema.BuiltinOperator.SELECT_V2
            code.version = 1
            operator.builtinOptionsType = self._schema.BuiltinOptions.SelectV2Options
            operator.builtinOptions = self._schema.SelectV2OptionsT()
        return bool(selections)

    def shorten_names(self) -> bool:
        """Cut very long names of tensors down to their first part; whether there were any.

        Each output of an UNPACK is named after all of them, which makes most of the file of a long unrolled sequence.
        """
        found = False
        for graph in self._model.subgraphs:
            for tensor in graph.tensors or ():
                if tensor.name is not None and len(tensor.name) > _LONGEST_NAME:
                    tensor.name, found = tensor.name.split(b";")[0], True
        return found

    def _operators(self, graph: Any, name: str) -> list[Any]:
        number = getattr(self._schema.BuiltinOperator, name)
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in self._model.operatorCodes]
        return [operator for operator in graph.operators or () if codes[operator.opcodeIndex] == number]

    def _quantize(self, source: int, target: int) -> Any:
        """An operator that brings a quantized tensor to another scale."""
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = self._schema.BuiltinOperator.QUANTIZE
        code.version = 2
        self._model.operatorCodes.append(code)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
        return operator


def _has_scale(quantization: Any) -> bool:
    return quantization is not None and quantization.scale is not None and np.size(quantization.scale) > 0


def _same_scale(one: Any, other: Any) -> bool:
    return np.array_equal(one.scale, other.scale) and np.array_equal(one.zeroPoint, other.zeroPoint)
