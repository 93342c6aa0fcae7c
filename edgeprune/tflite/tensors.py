"""The constant tensors of a .tflite file: how their values are stored, which of them mean zero, and what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.graph import type_name

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

# How the bytes of a tensor are laid out, by the schema's type name. Several values share a byte below 8 bits,
# the first in the low bits.
_NUMPY: dict[str, Any] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "bfloat16": np.dtype("<u2"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("?"),
}
_PACKED_BITS = {"int2": 2, "int4": 4, "uint4": 4}
_FLOATS = {"float16", "float32", "float64", "bfloat16"}


@dataclass(frozen=True)
class ConstantTensor:
    """A tensor whose values are stored in the file.

    Attributes:
        name: the tensor's name in the file.
        shape: its dense shape.
        dtype: `"float32"`, `"int8"`, `"int4"`, ... as the file stores it.
        elements: number of values of the dense shape.
        zeros: how many of them mean zero: 0 for floats, the zero point for quantized values. A value that a
            sparse encoding leaves out counts as the 0 it is read as.
        bytes: bytes in the file, a sparse encoding's index included.
        sparse: whether only some of the values are stored, with their places.
        is_weight: whether the values are a model's parameters, rather than shapes, axes and the like.
        buffer: number of the buffer; two tensors of one buffer share their bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    elements: int
    zeros: int
    bytes: int
    sparse: bool
    is_weight: bool
    buffer: int
    _stored: np.ndarray = field(repr=False, compare=False)
    _raw: Any = field(repr=False, compare=False)

    @property
    def sparsity(self) -> float:
        """The share of zeros, 0 to 1."""
        return self.zeros / self.elements if self.elements else 0.0

    def values(self) -> np.ndarray:
        """The dense values as float32, dequantized: shape `self.shape`."""
        stored = _expand_sparse(self._stored, self._raw.sparsity, self.shape) if self.sparse else self._stored
        values = stored.reshape(self.shape)
        if self.dtype == "bfloat16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        scale, zero_point = quantization_of(self._raw, self.shape)
        if scale is None:
            return values.astype(np.float32)
        return ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "elements": self.elements,
            "zeros": self.zeros,
            "bytes": self.bytes,
            "sparse": self.sparse,
        }


def tensor_shape(tensor: schema.TensorT) -> tuple[int, ...]:
    """The shape of a tensor in the file."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def buffer_bytes(buffer: schema.BufferT, content: bytes) -> np.ndarray:
    """A buffer's bytes: inside the flatbuffer, or behind it where the model passes 2 GB."""
    if buffer.offset > 1:
        if buffer.offset + buffer.size > len(content):
            raise ValueError("a buffer reaches past the end of the file")
        return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    # The generated reader returns 0 for an empty vector.
    return np.zeros(0, np.uint8) if buffer.data is None or np.isscalar(buffer.data) else buffer.data


def constant_tensor(tensor: schema.TensorT, shape: tuple[int, ...], data: np.ndarray) -> ConstantTensor:
    """A tensor whose values are in the file.

    Args:
        tensor: the schema's `TensorT`.
        shape: its shape.
        data: the bytes of its buffer.

    Raises:
        ValueError: they contradict each other.
    """
    name = (tensor.name or b"").decode(errors="replace")
    dtype = type_name(tensor)
    if any(size < 0 for size in shape):
        raise ValueError(f"constant tensor {name!r} has the shape {shape}")
    elements = math.prod(shape)
    sparse = tensor.sparsity is not None
    stored = _stored_values(name, dtype, data, None if sparse else elements)
    quantized = quantization_of(tensor, shape)[0] is not None
    return ConstantTensor(
        name=name,
        shape=shape,
        dtype=dtype,
        elements=elements,
        zeros=_count_zeros(stored, dtype, tensor, shape),
        bytes=len(data) + (_index_bytes(tensor.sparsity) if sparse else 0),
        sparse=sparse,
        is_weight=dtype in _FLOATS or quantized,
        buffer=tensor.buffer,
        _stored=stored,
        _raw=tensor,
    )


def _stored_values(name: str, dtype: str, data: np.ndarray, elements: int | None) -> np.ndarray:
    """The values as the file stores them; `elements` is their number, `None` where the encoding is sparse."""
    if dtype in _PACKED_BITS:
        values = _unpack_bits(data, dtype)[:elements]
    elif dtype in _NUMPY:
        values = np.frombuffer(data.tobytes(), _NUMPY[dtype])
    else:  # strings and the rare types: no numbers to count
        return data
    if elements is not None and len(values) != elements:
        raise ValueError(f"tensor {name!r} has {len(data)} bytes, which is not {elements} x {dtype}")
    return values


def _unpack_bits(data: np.ndarray, dtype: str) -> np.ndarray:
    """Spread values of 2 or 4 bits out to one byte each."""
    bits = _PACKED_BITS[dtype]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((data[:, None] >> shifts) & (2**bits - 1)).ravel().astype(np.int8)
    return values if dtype.startswith("u") else np.where(values >= 2 ** (bits - 1), values - 2**bits, values)


def quantization_of(tensor: schema.TensorT, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Scale and zero point, shaped to broadcast against the tensor; `(None, 0)` if it is not quantized."""
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or np.isscalar(parameters.scale):
        return None, 0
    scale = np.asarray(parameters.scale, np.float64)
    zero_point = parameters.zeroPoint
    zero_point = np.zeros(1) if zero_point is None or np.isscalar(zero_point) else np.asarray(zero_point, np.int64)
    axis = [1] * len(shape)
    if scale.size > 1:
        axis[parameters.quantizedDimension] = -1
    scales, zero_points = (x.reshape(axis) if x.size > 1 else x[0] for x in (scale, zero_point))
    return scales, zero_points


def _count_zeros(stored: np.ndarray, dtype: str, tensor: schema.TensorT, shape: tuple[int, ...]) -> int:
    if dtype not in _NUMPY and dtype not in _PACKED_BITS:
        return 0
    zero_point = quantization_of(tensor, shape)[1]
    if dtype == "bfloat16":  # its sign bit is no value
        stored = stored & np.uint16(0x7FFF)
    if tensor.sparsity is None:
        return int(np.count_nonzero(stored.reshape(shape) == zero_point))
    if np.any(zero_point):
        raise ValueError("a sparse tensor has a zero point other than 0")
    return math.prod(shape) - int(np.count_nonzero(stored))


def _index_bytes(sparsity: schema.SparsityParametersT) -> int:
    vectors = [x for d in sparsity.dimMetadata for x in (d.arraySegments, d.arrayIndices) if x is not None]
    return sum(np.asarray(vector.values).nbytes for vector in vectors)


def _expand_sparse(stored: np.ndarray, sparsity: schema.SparsityParametersT, shape: tuple[int, ...]) -> np.ndarray:
    """Put the stored values of a sparse tensor at their places in a dense one.

    The format is a tree with one level per entry of `traversalOrder`: a dense level holds every index, a CSR
    level those its segments name. Entries from `len(shape)` on are blocks inside the dimension that
    `blockMap` names (`SparsityParameters` in schema.fbs).
    """
    block_size = np.ones(len(shape), np.int64)
    for order, level in zip(sparsity.traversalOrder, sparsity.dimMetadata, strict=True):
        if order >= len(shape):
            block_size[sparsity.blockMap[order - len(shape)]] = level.denseSize
    index = np.zeros((1, len(shape)), np.int64)
    for order, level in zip(sparsity.traversalOrder, sparsity.dimMetadata, strict=True):
        parent, position = _descend(level, len(index))
        if len(parent) > max(len(stored), math.prod(shape)):
            raise ValueError("the index of a sparse tensor names more values than the tensor has")
        index = index[parent]
        if order < len(shape):
            index[:, order] += position * block_size[order]
        else:
            index[:, sparsity.blockMap[order - len(shape)]] += position
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(index.T)] = stored
    return dense


def _descend(level: schema.DimensionMetadataT, parents: int) -> tuple[np.ndarray, np.ndarray]:
    """The children of one level of the tree: for each, its parent's number and its own position."""
    from ai_edge_litert.schema_py_generated import DimensionType

    if level.format == DimensionType.DENSE:
        return np.repeat(np.arange(parents), level.denseSize), np.tile(np.arange(level.denseSize), parents)
    segments = np.asarray(level.arraySegments.values, np.int64)
    return np.repeat(np.arange(parents), np.diff(segments)), np.asarray(level.arrayIndices.values, np.int64)
