"""Change a .tflite file: unpack it, change the schema's objects, pack it again; or write over a few of its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.graph import unpacked

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema


def edited(content: bytes, change: Callable[[Any], bool]) -> bytes:
    """Change the graph of a .tflite file.

    Args:
        content: the content of the file.
        change: changes the schema's `ModelT` that it is passed, and returns whether it did.

    Returns:
        The content of the changed file; the same content where nothing was changed.
    """
    import flatbuffers

    model = unpacked(content)
    if not change(model):
        return content
    return packed(model, flatbuffers.Builder(len(content)))


def packed(model: schema.ModelT, builder: Any) -> bytes:
    """The content of a .tflite file of the schema's `ModelT`, by a builder of `flatbuffers`."""
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def new_operator(model: schema.ModelT, name: str, inputs: list[int], outputs: list[int], version: int = 1) -> Any:
    """An operator without options (`OperatorT`), which the caller puts into a subgraph.

    Args:
        model: the schema's `ModelT`; it gets the operator's code.
        name: the builtin's name.
        inputs: the numbers of the tensors that it reads.
        outputs: the numbers of those that it computes.
        version: the operator's version.
    """
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = version
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    return operator


def prefix(content: bytes, operators: int) -> bytes:
    """Cut a file behind one of its operators, to find the operator at which two runtimes part.

    Args:
        content: the content of a .tflite file.
        operators: how many to keep, 1 or more.

    Returns:
        The content of a file of the same inputs, whose outputs are those of the last operator; it has no signature.
    """

    def cut(model: schema.ModelT) -> bool:
        graph = model.subgraphs[0]
        graph.operators = graph.operators[:operators]
        graph.outputs = graph.operators[-1].outputs
        model.signatureDefs = None
        return True

    return edited(content, cut)


def segment(content: bytes, given: set[int], wanted: int) -> tuple[bytes, list[int]]:
    """Cut out of a file what computes one tensor from others.

    Args:
        content: the content of a .tflite file.
        given: the numbers of tensors that are not to be computed.
        wanted: the number of the tensor that is.

    Returns:
        The content of a file without signature, whose inputs are those of `given` and of the file's inputs that are
        needed; and their numbers, in the order of its inputs.
    """
    inputs: list[int] = []

    def cut(model: schema.ModelT) -> bool:
        graph = model.subgraphs[0]
        makers = {int(number): operator for operator in graph.operators for number in operator.outputs}
        kept: list[Any] = []
        waiting = [wanted]
        while waiting:
            operator = makers[waiting.pop()]
            if any(operator is one for one in kept):
                continue
            kept.append(operator)
            for number in map(int, operator.inputs):
                if number in given or number in graph.inputs:
                    inputs.append(number)
                elif number in makers:
                    waiting.append(number)
        inputs[:] = dict.fromkeys(inputs)
        graph.operators = [operator for operator in graph.operators if any(operator is one for one in kept)]
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array([wanted], np.int32)
        model.signatureDefs = None
        return True

    return edited(content, cut), inputs


def in_order(content: bytes, inputs: list[str], outputs: list[str]) -> bytes:
    """Put a file's inputs and outputs, which the converter sorts by name, into the model's own order.

    Callers that use numbers rather than names, as microcontrollers do, then find them where the model has them.
    """
    edited, model = _in_place(content)
    signature, graph = model.SignatureDefs(0), model.Subgraphs(0)
    for names, count, entry, tensors in (
        (inputs, signature.InputsLength(), signature.Inputs, graph.InputsAsNumpy()),
        (outputs, signature.OutputsLength(), signature.Outputs, graph.OutputsAsNumpy()),
    ):
        tensor_of = {entry(number).Name().decode(): entry(number).TensorIndex() for number in range(count)}
        # The array is a view of the content. An input that the model does not use may be missing in the file.
        tensors[:] = [tensor_of[name] for name in names if name in tensor_of]
    return bytes(edited)


def with_names(content: bytes, traced: Mapping[str, str]) -> bytes:
    """Put the inputs' own names into a file's signature, over stand-ins of as many bytes.

    Args:
        content: the content of a .tflite file with one signature.
        traced: the inputs' names to their stand-ins.
    """
    edited, model = _in_place(content)
    signature = model.SignatureDefs(0)
    own = {made.encode(): name.encode() for name, made in traced.items()}
    for number in range(signature.InputsLength()):
        entry = signature.Inputs(number)
        # The first field of the table is where its string lies: a length in four bytes, then the bytes themselves.
        field = entry._tab.Pos + entry._tab.Offset(4)
        start = entry._tab.Indirect(field) + 4
        edited[start : start + len(entry.Name())] = own[entry.Name()]
    return bytes(edited)


def _in_place(content: bytes) -> tuple[bytearray, Any]:
    """A copy of the content, and the schema's `Model` that reads it where it lies."""
    from ai_edge_litert.schema_py_generated import Model

    copied = bytearray(content)
    return copied, Model.GetRootAs(copied)
