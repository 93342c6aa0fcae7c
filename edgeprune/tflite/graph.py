"""The graph in a .tflite file as the schema's own objects: the one walk over its subgraphs and operators.

    for call in operators(unpacked(content), "CONV_2D"):
        print(call.location, call.input(1).shape)

Nothing is checked here: `read_tflite` is for files from elsewhere.
The layout is that of `tensorflow/lite/schema/schema.fbs`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema


@dataclass(frozen=True)
class OperatorCall:
    """An operator in its subgraph.

    Attributes:
        name: the builtin's name (`"CONV_2D"`), or the custom operator's own.
        custom: whether it is no builtin.
        graph: the schema's `SubGraphT` that holds it.
        operator: the schema's `OperatorT`.
        subgraph: the number of the subgraph; 0 is the one that runs.
    """

    name: str
    custom: bool
    graph: Any
    operator: Any
    subgraph: int

    def input(self, place: int) -> Any:
        """The tensor (`TensorT`) at a place among the inputs; None where it is left out."""
        return self._tensor(self.operator.inputs, place)

    def output(self, place: int) -> Any:
        """The tensor at a place among the outputs; None where there is none."""
        return self._tensor(self.operator.outputs, place)

    @property
    def input_type(self) -> str:
        """The type of its first input, such as `"int8"`; empty where it has none."""
        tensor = self.input(0)
        return "" if tensor is None else type_name(tensor)

    @property
    def location(self) -> str:
        """The name of its first output, or input where it has none, which says what layer it is from."""
        tensor = self.output(0) or self.input(0)
        return (tensor.name or b"").decode() if tensor is not None else ""

    def _tensor(self, numbers: Sequence[int] | None, place: int) -> Any:
        if numbers is None or place >= len(numbers) or numbers[place] == -1:
            return None
        return self.graph.tensors[numbers[place]]


def unpacked(content: bytes) -> Any:
    """The content of a .tflite file as the schema's `ModelT`."""
    from ai_edge_litert.schema_py_generated import ModelT

    return ModelT.InitFromPackedBuf(content)


def operators(model: schema.ModelT, *names: str) -> Iterator[OperatorCall]:
    """The operators of all subgraphs, in the order they run.

    Args:
        model: what `unpacked` returned.
        names: only operators of these names; all without.
    """
    kinds = [_operator_name(code) for code in model.operatorCodes or ()]
    for number, graph in enumerate(model.subgraphs or ()):
        for operator in list(graph.operators or ()):
            name, custom = kinds[operator.opcodeIndex]
            if not names or name in names:
                yield OperatorCall(name, custom, graph, operator, number)


def tensors(model: schema.ModelT) -> Iterator[Any]:
    """The tensors (`TensorT`) of all subgraphs."""
    return (tensor for graph in model.subgraphs or () for tensor in graph.tensors or ())


def tensor_numbers(numbers: Any) -> list[int]:
    """The numbers of an operator's or a subgraph's tensors, without those that are left out."""
    return [] if numbers is None else [int(number) for number in numbers if number != -1]


def type_name(tensor: schema.TensorT) -> str:
    """The type of a tensor's values in small letters, such as `"float32"`."""
    return schema_names("TensorType")[tensor.type].lower()


def has_unit_scales(content: bytes) -> bool:
    """Whether a dense layer of a .tflite file has more than one scale, which older interpreters cannot compute."""
    return any(
        scales(call.input(1)) is not None and len(scales(call.input(1))) > 1
        for call in operators(unpacked(content), "FULLY_CONNECTED")
    )


def scales(tensor: schema.TensorT | None) -> Any:
    """The scales of a quantized tensor, one or one for each channel; None where it is not quantized."""
    parameters = None if tensor is None else tensor.quantization
    if parameters is None or parameters.scale is None or not hasattr(parameters.scale, "__len__"):
        return None  # the generated reader returns 0 for an empty vector
    return parameters.scale if len(parameters.scale) else None


@functools.cache
def schema_names(enumeration: str) -> dict[int, str]:
    """Number to name, for one of the schema's enumerations."""
    from ai_edge_litert import schema_py_generated as schema

    members = vars(getattr(schema, enumeration)).items()
    return {number: name for name, number in members if isinstance(number, int)}


def _operator_name(code: schema.OperatorCodeT) -> tuple[str, bool]:
    # Files older than TensorFlow 2.4 know only the first field; newer ones write both.
    builtin = schema_names("BuiltinOperator")[max(code.deprecatedBuiltinCode, code.builtinCode)]
    if builtin == "CUSTOM":
        return (code.customCode or b"CUSTOM").decode(), True
    return builtin, False
