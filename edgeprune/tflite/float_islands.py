"""Float operators in the middle of an integer file: values are turned into floats for them, and back again.

Such an island is silent: the file is valid and its outputs are right. It is slower, its values need four times the
memory, and a device without floats (an NPU, a microcontroller built for integers only) does not run it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.tflite.graph import OperatorCall, operators, tensor_numbers, type_name, unpacked

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema


@dataclass(frozen=True)
class FloatIsland:
    """Neighbouring float operators between integer ones.

    Attributes:
        operators: the names of the operators, in the order they run.
        locations: for each, the name of its first output in the file, which begins with the layers it is from.
    """

    operators: tuple[str, ...]
    locations: tuple[str, ...]

    def __str__(self) -> str:
        """The operators with the names of their outputs."""
        return "; ".join(f"{name} ({place})" for name, place in zip(self.operators, self.locations, strict=True))


def float_islands(content: bytes) -> tuple[FloatIsland, ...]:
    """Find the float operators of a .tflite file that lie between integer ones.

    An island is a connected set of operators that compute floats, at least one of which reads the output of a
    DEQUANTIZE and at least one of which is read by a QUANTIZE. Operators in floats at the end of a file, and weights
    that are stored in fewer bits, make none.

    Args:
        content: the .tflite file.

    Returns:
        The islands, in the order in which they are reached.
    """
    model = unpacked(content)
    calls = list(operators(model))
    found = []
    for number in range(len(model.subgraphs or ())):
        found += _islands_of([call for call in calls if call.subgraph == number])
    return tuple(found)


def _islands_of(calls: list[OperatorCall]) -> list[FloatIsland]:
    """The islands of one subgraph."""
    computed = {number for call in calls for number in tensor_numbers(call.operator.outputs)}
    given = computed.union(*(tensor_numbers(call.graph.inputs) for call in calls[:1]))  # what is not given is constant
    from_integers, to_integers = set(), set()
    floats = []
    for call in calls:
        if call.name == "DEQUANTIZE" and given.intersection(tensor_numbers(call.operator.inputs)):
            from_integers.update(tensor_numbers(call.operator.outputs))
        elif call.name == "QUANTIZE" and _is_float(call.input(0)):
            to_integers.update(tensor_numbers(call.operator.inputs))
        elif call.name != "DEQUANTIZE" and _is_float(call.output(0)):
            floats.append(call)
    islands = []
    for part in _connected(floats):
        read = {number for call in part for number in tensor_numbers(call.operator.inputs)}
        made = {number for call in part for number in tensor_numbers(call.operator.outputs)}
        if read & from_integers and made & to_integers:
            islands.append(FloatIsland(tuple(call.name for call in part), tuple(call.location for call in part)))
    return islands


def _connected(calls: list[OperatorCall]) -> list[list[OperatorCall]]:
    """The calls in sets that pass tensors to each other, each in the order they run."""
    parts: list[tuple[set[int], list[OperatorCall]]] = []
    for call in calls:
        tensors, own = set(tensor_numbers(call.operator.outputs)), [call]
        read = set(tensor_numbers(call.operator.inputs))
        for part in [part for part in parts if part[0] & read]:
            parts.remove(part)
            tensors, own = tensors | part[0], [*part[1], *own]
        parts.append((tensors, own))
    order = {id(call): place for place, call in enumerate(calls)}
    return sorted(
        (sorted(own, key=lambda call: order[id(call)]) for _, own in parts), key=lambda own: order[id(own[0])]
    )


def _is_float(tensor: schema.TensorT | None) -> bool:
    return tensor is not None and type_name(tensor) == "float32"
