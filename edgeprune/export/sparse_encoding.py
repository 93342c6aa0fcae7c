"""Storing weights without their zeros: where runtimes compute that right, and what it gains over gzip.

The converter (`tf.lite.Optimize.EXPERIMENTAL_SPARSITY`) encodes any weight with 30 % zeros or more, and not every
runtime kernel can read what it writes. The combinations refused here were measured on LiteRT 2.3: some do not
load, others compute wrong values without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.export.diagnosis import ConversionError, origin
from edgeprune.measure.size import gzipped
from edgeprune.tflite.graph import OperatorCall, operators, schema_names, type_name, unpacked
from edgeprune.types import Model

_WAY_OUT = "Export without sparse=True and let gzip (an app store, a firmware update) compress the zeros."


@dataclass(frozen=True)
class _SparseWeight:
    """A weight that the file stores without its zeros, and the operator that uses it."""

    operator: str
    location: str
    dtype: str
    blocks: bool


def check_quantization(quantization: str | None) -> None:
    """Refuse the quantizations whose sparse files never work.

    Raises:
        ValueError: `quantization` is `"dynamic"` or `"int16x8"`.
    """
    if quantization == "dynamic":
        raise ValueError(
            "sparse=True does not support quantization='dynamic': LiteRT does not load such convolutions and computes "
            f"wrong values for such dense layers. Use 'int8' or no quantization. {_WAY_OUT}"
        )
    if quantization == "int16x8":
        raise ValueError(
            "sparse=True does not support quantization='int16x8': the converter then writes biases of a type that "
            f"LiteRT does not load. Use 'int8' or no quantization. {_WAY_OUT}"
        )


def check(sparse: bytes, dense: bytes, quantization: str | None, model: Model) -> list[str]:
    """Refuse a sparse file that some runtime would not load or compute wrong, and weigh it against a dense one.

    Args:
        sparse: the file with sparse encoding.
        dense: the same without.
        quantization: `None`, `"float16"` or `"int8"`.
        model: the Keras model, for the names of layers.

    Returns:
        Notes: what the encoding gains or loses in bytes, raw and gzip'd.

    Raises:
        ValueError: no weight is sparse, or the file holds a combination that is known not to work.
    """
    graph = _Graph(sparse)
    weights = list(graph.sparse_weights())
    if not weights:
        raise ConversionError(
            f"sparse=True: no weight of model {model.name!r} has enough zeros to be stored without them (about 30 % "
            "are needed). Prune the model first, or export without sparse=True."
        )
    _refuse_dense_layers(weights, quantization, model)
    if quantization != "int8":
        _refuse_stride_2_depthwise(graph, model)
    return [_comparison(sparse, dense)]


def _refuse_dense_layers(weights: list[_SparseWeight], quantization: str | None, model: Model) -> None:
    dense = [weight for weight in weights if weight.operator == "FULLY_CONNECTED"]
    unreadable = [weight for weight in dense if weight.dtype == "int8" and not weight.blocks]
    if unreadable:
        raise ConversionError(
            f"sparse=True with quantization='int8': {_origins(unreadable, model)} has zeros that are not in blocks, "
            "and LiteRT does not load such a file. Prune dense layers in blocks of 16 inputs "
            f"(block_size=(16, 1)), or not at all. {_WAY_OUT}"
        )
    wrong = [weight for weight in dense if quantization == "float16" and weight.blocks]
    if wrong:
        raise ConversionError(
            f"sparse=True with quantization='float16': {_origins(wrong, model)} has zeros in blocks, and LiteRT "
            f"computes NaN from such a file. Use no quantization, or prune dense layers without blocks. {_WAY_OUT}"
        )


def _refuse_stride_2_depthwise(graph: _Graph, model: Model) -> None:
    """XNNPACK's sparse path treats SAME padding of a strided depthwise convolution as symmetric."""
    depthwise = next(graph.same_padded_stride_2_depthwise(), None)
    if depthwise is None or not graph.has_sparse_path_stem():
        return
    raise ConversionError(
        f"sparse=True: on Arm, and on x86 without AVX, XNNPACK would compute wrong values from this file: its first "
        f"convolution turns XNNPACK's sparse kernels on, and they misplace padding='same' of the stride-2 "
        f"{origin(depthwise, model)}. Put ZeroPadding2D(1) before that layer and set its padding='valid' "
        f"(the model must then be retrained). {_WAY_OUT}"
    )


def _comparison(sparse: bytes, dense: bytes) -> str:
    sparse_gzip, dense_gzip = (len(gzipped(content)) for content in (sparse, dense))
    figures = (
        f"sparse {len(sparse):,} bytes ({sparse_gzip:,} gzip'd), dense {len(dense):,} bytes ({dense_gzip:,} gzip'd)"
    )
    smaller = ["dense"] if len(dense) < len(sparse) else []
    smaller += ["dense + gzip"] if dense_gzip < sparse_gzip else []
    if smaller:
        return f"{' and '.join(smaller)} would be smaller: {figures}."
    return f"Sparse encoding makes the file smaller: {figures}."


def _origins(weights: list[_SparseWeight], model: Model) -> str:
    return ", ".join(dict.fromkeys(origin(weight.location, model) for weight in weights))


class _Graph:
    """The operators of a .tflite file's first subgraph."""

    def __init__(self, content: bytes):
        self._file = unpacked(content)
        self._calls = [call for call in operators(self._file) if call.subgraph == 0]
        self._tensors = self._file.subgraphs[0].tensors
        self._producer = {output: call for call in self._calls for output in call.operator.outputs}

    def sparse_weights(self) -> Iterator[_SparseWeight]:
        """Every weight stored without its zeros."""
        for call in self._calls:
            for index in call.operator.inputs:
                tensor = self._source(index)
                # An empty block map may be read as an array or as nothing.
                if tensor is not None and tensor.sparsity is not None:
                    blocks = tensor.sparsity.blockMap is not None and len(tensor.sparsity.blockMap) > 0
                    yield _SparseWeight(call.name, call.location, type_name(tensor), blocks)

    def has_sparse_path_stem(self) -> bool:
        """Whether some convolution is one with which XNNPACK's sparse path begins.

        It is 3x3 with stride 2 on 3 channels, with an explicit padding of 1 on each side.
        Source: XNNPACK, src/subgraph.c, the conditions for rewriting a subgraph from NHWC to NCHW.
        """
        return any(self._begins_sparse_path(call) for call in self._calls if call.name == "CONV_2D")

    def same_padded_stride_2_depthwise(self) -> Iterator[str]:
        """The location of each depthwise convolution with stride 2 and padding 'same'."""
        for call in self._calls:
            options = call.operator.builtinOptions
            if call.name == "DEPTHWISE_CONV_2D" and options.strideH == 2 and _padding(call) == "SAME":
                yield call.location

    def _begins_sparse_path(self, call: OperatorCall) -> bool:
        options = call.operator.builtinOptions
        return (
            tuple(self._tensors[call.operator.inputs[1]].shape[1:]) == (3, 3, 3)
            and (options.strideH, options.strideW) == (2, 2)
            and _padding(call) == "VALID"
            and self._padding_before(call) == [[0, 0], [1, 1], [1, 1], [0, 0]]
        )

    def _padding_before(self, call: OperatorCall) -> list | None:
        pad = self._producer.get(call.operator.inputs[0])
        if pad is None or pad.name not in ("PAD", "PADV2"):
            return None
        data = self._file.buffers[self._tensors[pad.operator.inputs[1]].buffer].data
        return np.asarray(data, np.uint8).view(np.int32).reshape(-1, 2).tolist()

    def _source(self, index: int) -> Any | None:
        """A tensor, or the constant behind it where it is unpacked at run time, as float16 weights are."""
        if index == -1:
            return None
        while (call := self._producer.get(index)) is not None and call.name in ("DEQUANTIZE", "DENSIFY"):
            index = call.operator.inputs[0]
        return self._tensors[index]


def _padding(call: OperatorCall) -> str:
    return schema_names("Padding")[call.operator.builtinOptions.padding]
