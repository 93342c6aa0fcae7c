"""A .tflite file whose dense layers LiteRT's reference kernels compute in integers alone, as microcontrollers do.

The reference kernel of FULLY_CONNECTED in LiteRT scales its sums with a floating-point number, rounding halves away
from zero. Every other reference kernel, those for microcontrollers, and CMSIS-NN scale with an integer and a shift,
which rounds twice. So about one value in a thousand of a dense layer differs by a step. A convolution with a window of
1x1 computes the same as a dense layer, and its kernel is in integers on both sides.

Of some operators (TILE in its third version) there is no reference kernel; a file that holds one runs on LiteRT's fast
kernels, without XNNPACK, which may differ by a step.

Source: https://github.com/google-ai-edge/LiteRT/issues/8567
"""

from __future__ import annotations

import contextlib
import copy
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.edit import edited, new_operator
from edgeprune.tflite.four_bits import with_eight_bit_weights
from edgeprune.tflite.graph import operators
from edgeprune.tflite.runtime import Runtime

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

_NO_KERNEL = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


@contextlib.contextmanager
def integer_reference(path: str | Path) -> Iterator[Runtime]:
    """Open a .tflite file on LiteRT's reference kernels, with dense layers in integers too.

    Weights of 4 bits, which these kernels do not read, are the same integers in 8.

    Where an operator has no reference kernel, see `lacking_kernel`, the fast kernels run it all.

    Args:
        path: the .tflite file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the interpreter cannot load it.

    Example:
        >>> with integer_reference("model.tflite") as reference:
        ...     (scores,) = reference.run([np.zeros((1, 8, 8, 1), np.int8)])
        >>> scores.shape, scores.dtype
        ((1, 10), dtype('int8'))
    """
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / "model.tflite"
        rewritten.write_bytes(with_integer_dense(with_eight_bit_weights(Path(path).read_bytes())))
        yield Runtime(rewritten, reference=lacking_kernel(rewritten) is None, use_xnnpack=False)


def lacking_kernel(path: str | Path) -> str | None:
    """The operator of a file that LiteRT has no reference kernel for, `None` where it has all.

    Args:
        path: the .tflite file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        Runtime(path, reference=True)
    except ValueError as error:
        lacking = _NO_KERNEL.search(str(error))
        return lacking and lacking[1]
    return None


def with_integer_dense(content: bytes) -> bytes:
    """Rewrite a file so that convolutions of 1x1 stand for its quantized dense layers.

    Args:
        content: the content of a .tflite file.

    Returns:
        The content of a file of the same inputs, outputs and weights, for comparisons; the same content where there
        is nothing to rewrite. A dense layer whose weights are computed is not changed.
    """
    return edited(content, _use_convolutions)


def _use_convolutions(model: schema.ModelT) -> bool:
    dense = [call for call in operators(model, "FULLY_CONNECTED") if _is_integer(model, call.graph, call.operator)]
    for call in dense:
        place = call.graph.operators.index(call.operator)
        call.graph.operators[place : place + 1] = _as_convolution(model, call.graph, call.operator)
    return bool(dense)


def _is_integer(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT) -> bool:
    from ai_edge_litert.schema_py_generated import TensorType

    given, weights = (graph.tensors[number] for number in operator.inputs[:2])
    stored = model.buffers[weights.buffer].data is not None and weights.sparsity is None
    return stored and given.type in (TensorType.INT8, TensorType.INT16) and weights.type == TensorType.INT8


def _as_convolution(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT) -> list[Any]:
    """The three operators that stand for a dense layer: each sample as one pixel, a convolution, the shape restored."""
    from ai_edge_litert import schema_py_generated as schema

    given, weights, *bias = (int(number) for number in operator.inputs if number >= 0)
    made = int(operator.outputs[0])
    units, depth = (int(size) for size in graph.tensors[weights].shape)
    samples = int(np.prod(graph.tensors[given].shape)) // depth
    if not bias:  # which a convolution needs
        bias = [_zeros(model, graph, given, weights)]
    pixels, sums = _like(graph, given, [samples, 1, 1, depth]), _like(graph, made, [samples, 1, 1, units])
    window = _like(graph, weights, [units, 1, 1, depth])

    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    options.padding = schema.Padding.VALID
    options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
    convolution = new_operator(model, "CONV_2D", [pixels, window, *bias], [sums])
    convolution.builtinOptionsType, convolution.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    return [_reshape(model, graph, given, pixels), convolution, _reshape(model, graph, sums, made)]


def _like(graph: schema.SubGraphT, number: int, shape: list[int]) -> int:
    """A tensor like another one, of another shape; the number it gets."""
    tensor = copy.copy(graph.tensors[number])
    tensor.shape, tensor.shapeSignature = shape, None
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _zeros(model: schema.ModelT, graph: schema.SubGraphT, given: int, weights: int) -> int:
    """A bias of nothing for a dense layer without one; the number of its tensor."""
    from ai_edge_litert import schema_py_generated as schema

    wide = graph.tensors[given].type == schema.TensorType.INT16
    buffer, bias, quantization = schema.BufferT(), schema.TensorT(), schema.QuantizationParametersT()
    units = graph.tensors[weights].shape[0]
    buffer.data = np.zeros(units, np.int64 if wide else np.int32).view(np.uint8)
    model.buffers.append(buffer)
    step = graph.tensors[given].quantization.scale[0]
    quantization.scale = [float(step * scale) for scale in graph.tensors[weights].quantization.scale]
    quantization.zeroPoint = [0] * len(quantization.scale)
    bias.shape, bias.quantization, bias.buffer = [units], quantization, len(model.buffers) - 1
    bias.type = schema.TensorType.INT64 if wide else schema.TensorType.INT32
    graph.tensors.append(bias)
    return len(graph.tensors) - 1


def _reshape(model: schema.ModelT, graph: schema.SubGraphT, given: int, made: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    options = schema.ReshapeOptionsT()
    options.newShape = list(graph.tensors[made].shape)
    operator = new_operator(model, "RESHAPE", [given], [made])
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.ReshapeOptions, options
    return operator
