"""What each operator of a .tflite file costs: its time alone on this machine, and the memory while it runs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from edgeprune.crash_guard import try_out
from edgeprune.latency.footprint import alive_tensors, item_bytes
from edgeprune.latency.template import FileTemplate
from edgeprune.latency.timing import Stopwatch
from edgeprune.tflite.file import tflite_bytes

_AS_IT_IS = np.zeros(0, np.int64)  # the counts of a file without lines


@final
@dataclass(frozen=True)
class OperatorCost:
    """One operator of a file.

    Attributes:
        operator: the builtin's name.
        tensor: the name of the first tensor that it computes, which says the layers it came from.
        shape: that tensor's shape.
        dtype: the type of its values.
        weight_bytes: bytes of the constants that it reads.
        output_bytes: bytes of what it computes.
        alive_bytes: bytes of all computed tensors that are needed while it runs.
        milliseconds: the median time of a file of this operator alone; None where it cannot run alone.
    """

    operator: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    weight_bytes: int
    output_bytes: int
    alive_bytes: int
    milliseconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return asdict(self)


def operator_costs(path: str | Path, *, num_threads: int = 1) -> tuple[OperatorCost, ...]:
    """Time each operator of a file alone, and count its bytes.

    Args:
        path: the .tflite file; it is tried out in a process of its own, and its operators are timed in another.
        num_threads: threads of the interpreter.

    Returns:
        The operators of the graph that runs, in their order. Times alone do not add up to that of the file: an
        interpreter fuses some operators, and calls each at a cost of its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or does not run.

    Example:
        >>> [row.operator for row in operator_costs("model.tflite")]
        ['CONV_2D', 'CONV_2D', 'MEAN', 'FULLY_CONNECTED', 'SOFTMAX']
    """
    try_out(path)
    template = FileTemplate([tflite_bytes(path)], _AS_IT_IS[None])
    alone = [place for place, operator in enumerate(template.operators) if operator.alone]
    with Stopwatch(num_threads) as stopwatch:
        timed = stopwatch.times(template.alone(place, _AS_IT_IS) for place in alone)
        times = dict(zip(alone, timed, strict=True))

    def bytes_of(number: int) -> int:
        tensor = template.tensors[number]
        return len(tensor.data) if tensor.data is not None else math.prod(shape_of(number)) * item_bytes(tensor)

    def shape_of(number: int) -> tuple[int, ...]:
        return template.shape(number, _AS_IT_IS)

    rows = []
    for place, (operator, alive) in enumerate(zip(template.operators, alive_tensors(template), strict=True)):
        constants = {n for n in operator.inputs if n >= 0 and template.tensors[n].data is not None}
        first = next(iter(operator.outputs), None)
        milliseconds = times.get(place, math.nan)
        rows.append(
            OperatorCost(
                operator=operator.name,
                tensor="" if first is None else _name(template, first),
                shape=() if first is None else shape_of(first),
                dtype="" if first is None else template.tensors[first].dtype,
                weight_bytes=sum(map(bytes_of, constants)),
                output_bytes=sum(map(bytes_of, operator.outputs)),
                alive_bytes=sum(map(bytes_of, alive)),
                milliseconds=None if math.isnan(milliseconds) else milliseconds,
            )
        )
    return tuple(rows)


def _name(template: FileTemplate, number: int) -> str:
    return (template.tensors[number].tensor.name or b"").decode("utf-8", errors="replace")
