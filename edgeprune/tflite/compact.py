"""Write a .tflite file in fewer bytes that says the same: equal scales once, and names without what they repeat."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.edit import packed
from edgeprune.tflite.graph import tensor_numbers, unpacked

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema


def compact(content: bytes, model_name: str) -> bytes:
    """Leave out of a .tflite file what says nothing more.

    Each filter of a convolution has a scale of 4 bytes and a zero point of 8, which is always 0, and so has its bias;
    and the converter names each tensor after all operations that it put into its operator, one by one. In a file of
    narrow layers these are a third of the bytes. Inputs and outputs keep their names; of the others there remains
    which layers they are from: `"stem_relu/Relu;stem_bn/batchnorm/add_1;stem/convolution"`.

    Args:
        content: the content of a .tflite file, which is not changed in place afterwards.
        model_name: the name of the Keras model, with which the names in the file begin.
    """
    model = unpacked(content)
    if any(buffer.offset > 1 for buffer in model.buffers):  # weights behind the tables: a file of over 2 GB
        return content
    for graph in model.subgraphs:
        _shorten_names(graph, re.compile(rf"{re.escape(model_name)}(_\d+)?/"))
    return packed(model, _sharing_builder(len(content)))


def _shorten_names(graph: schema.SubGraphT, scope: re.Pattern[str]) -> None:
    """Give the tensors inside a graph names that say which layers they are from, and no more."""
    ports = {*tensor_numbers(graph.inputs), *tensor_numbers(graph.outputs)}
    computed = {number for operator in graph.operators or () for number in tensor_numbers(operator.outputs)}
    taken = {graph.tensors[number].name for number in ports}
    for number, tensor in enumerate(graph.tensors):
        if number in ports or not tensor.name:
            continue
        parts = _first_of_each_scope(tensor.name.decode(errors="replace").split(";"))
        kept = [scope.sub("", part, count=1) if scope.match(part) else part for part in parts]
        name = ";".join(kept if number in computed else kept[:1])
        numbered = (f"{name}_{count}" if count else name for count in itertools.count())
        tensor.name = next(one for one in map(str.encode, numbered) if one not in taken)
        taken.add(tensor.name)


def _first_of_each_scope(operations: list[str]) -> list[str]:
    """Of `["net/norm/add", "net/norm/mul", "net/conv/Conv2D"]` the first and the last."""
    first: dict[str, str] = {}
    for operation in operations:
        first.setdefault(operation.rpartition("/")[0], operation)
    return list(first.values())


def _sharing_builder(size: int) -> Any:
    """A builder that writes an array of int64 or float32 once: of those types are zero points and scales alone."""
    import flatbuffers

    class SharingBuilder(flatbuffers.Builder):  # the base class is imported late
        def CreateNumpyVector(self, x: np.ndarray) -> int:
            if x.dtype not in (np.int64, np.float32):
                return super().CreateNumpyVector(x)
            key = (x.dtype.str, x.tobytes())
            if key not in written:
                written[key] = super().CreateNumpyVector(x)
            return written[key]

    written: dict[tuple[str, bytes], int] = {}
    return SharingBuilder(size)
