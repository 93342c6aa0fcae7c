"""Put right the ranges of activations that TensorFlow's calibrator measures.

The interpreter it runs writes the result of an operator over its input, where nothing else reads that, and the
calibrator looks at inputs once the operator has run. The input of a sum has the range of the sum then, which may be a
hundred times its own. Such tensors are measured again, by an interpreter that keeps them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeprune.tflite.edit import edited
from edgeprune.tflite.graph import operators, tensor_numbers, type_name, unpacked


def measured_again(calibrated: bytes, samples: Mapping[str, np.ndarray]) -> bytes:
    """The content of a calibrated file in floats, with the ranges that its tensors have.

    Args:
        calibrated: the content of a .tflite file in floats, with a range for each tensor.
        samples: input name to array `(samples, ...)`, one or more: what it was calibrated on.
    """
    model = unpacked(calibrated)
    numbers = _written_over(model)
    if not numbers or any(call.custom for call in operators(model)):  # whose kernels may be elsewhere
        return calibrated
    found = _ranges(calibrated, samples, numbers)

    def set_ranges(model: Any) -> bool:
        for number, (low, high) in found.items():
            quantization = model.subgraphs[0].tensors[number].quantization
            quantization.min, quantization.max = np.array([low], np.float32), np.array([high], np.float32)
        return True

    return edited(calibrated, set_ranges)


def _written_over(model: Any) -> list[int]:
    """The numbers of the tensors that an operator may write its result over: nothing else reads them."""
    graph = model.subgraphs[0]
    all_operators = graph.operators or ()
    readers = Counter(number for operator in all_operators for number in set(tensor_numbers(operator.inputs)))
    computed = {number for operator in all_operators for number in tensor_numbers(operator.outputs)}
    kept = set(tensor_numbers(graph.outputs))
    found = []
    for call in operators(model):
        result = call.output(0)
        if call.subgraph or result is None:
            continue
        for number in tensor_numbers(call.operator.inputs):
            tensor = graph.tensors[number]
            is_alone = number in computed - kept and readers[number] == 1
            if is_alone and _is_measured(tensor) and np.prod(tensor.shape) == np.prod(result.shape):
                found.append(number)
    return found


def _is_measured(tensor: Any) -> bool:
    quantization = tensor.quantization
    return type_name(tensor) == "float32" and quantization is not None and np.size(quantization.min) == 1


def _ranges(content: bytes, samples: Mapping[str, np.ndarray], numbers: list[int]) -> dict[int, tuple[float, float]]:
    """The least and the largest value of each tensor, by its number."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    run = interpreter.get_signature_runner()
    ends = {number: (np.inf, -np.inf) for number in numbers}
    for place in range(len(next(iter(samples.values())))):
        run(**{name: values[place : place + 1] for name, values in samples.items()})
        for number, (low, high) in ends.items():
            values = interpreter.get_tensor(number)
            ends[number] = min(low, float(values.min())), max(high, float(values.max()))
    return ends
