"""Run a .tflite file on TensorFlow Lite for Microcontrollers, as built for this machine, and measure its arena.

The host's kernels are the reference ones, so an integer file computes here what it computes on the device.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.measure.runtime import Runtime
from edgeprune.measure.tflite_file import read_tflite
from edgeprune.progress import track
from edgeprune.quiet import captured_output

ALIGNMENT = 16
# Below this the interpreter itself has no room, and ends the process instead of raising.
_LEAST_ARENA = 1024
_FIRST_ARENA = 1 << 18
_LARGEST_ARENA = 1 << 30
_NO_ROOM = re.compile(r"[Ff]ailed to (allocate|resize)|missing: \d+|Arena size is too small|Unable to allocate")
# What TFLM says of nearly every failure.
_EMPTY_WORDS = ("AllocateTensors() failed", "Failed starting model allocation")
_FAILED_NODE = re.compile(r"Node \S+ \(number (\d+)f?\) failed to \w+")


class MicroError(ValueError):
    """TensorFlow Lite for Microcontrollers cannot run a file.

    Attributes:
        operator: number of the operator it failed at, `None` where it does not tell.
        reason: its own words.
    """

    def __init__(self, message: str, reason: str = "", operator: int | None = None) -> None:
        """Keep the interpreter's words beside the message."""
        super().__init__(message)
        self.reason, self.operator = reason, operator


class _NoRoom(Exception):
    """The arena is too small."""


@dataclass(frozen=True)
class Arena:
    """The memory that the interpreter needs for one inference.

    Attributes:
        bytes: the smallest arena with which the file runs, a multiple of 16.
        head: what of it holds activations and scratch buffers, used again and again.
        tail: what of it the interpreter keeps for good: its own structures, most of it pointers, which take half of
            this on a device with 32 bits.
    """

    bytes: int
    head: int
    tail: int

    def to_dict(self) -> dict[str, int]:
        """The figures as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class MicroParity:
    """The outputs of a file on microcontrollers' kernels beside those of LiteRT's reference kernels.

    Attributes:
        samples: how many samples were run.
        values: how many output values were compared.
        mismatches: how many of them differ.
        largest: the largest difference, in steps of an integer output, or as it is where outputs are floats.
    """

    samples: int
    values: int
    mismatches: int
    largest: float

    @property
    def exact(self) -> bool:
        """Whether every value is the same."""
        return self.mismatches == 0

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return asdict(self)


class MicroRuntime:
    """A .tflite file in the interpreter for microcontrollers.

    Args:
        path: the .tflite file.
        arena_bytes: the size of its memory; by default as much as it needs.

    Attributes:
        path: the file.
        arena_bytes: the size of its memory.

    Raises:
        ImportError: tflite-micro is not installed.
        FileNotFoundError: there is no such file.
        MicroError: it is no readable .tflite file, an operator or a type is not supported, or the arena is too small.
    """

    def __init__(self, path: str | Path, arena_bytes: int | None = None) -> None:
        """Open the file and allocate its tensors."""
        require_tflite_micro()
        self.path = Path(path)
        read_tflite(self.path)  # the interpreter trusts the file: one that is damaged would end the process
        self._content = self.path.read_bytes()
        if arena_bytes is not None:
            if arena_bytes < _LEAST_ARENA:
                raise MicroError(f"{self.path}: an arena of {arena_bytes:,} bytes holds not even the interpreter.")
            try:
                self._interpreter = self._opened(arena_bytes)
            except _NoRoom as error:
                raise MicroError(f"{self.path} does not fit into an arena of {arena_bytes:,} bytes: {error}") from error
            self.arena_bytes = arena_bytes
            return
        self.arena_bytes = _FIRST_ARENA
        while True:
            try:
                self._interpreter = self._opened(self.arena_bytes)
                return
            except _NoRoom as error:
                if self.arena_bytes >= _LARGEST_ARENA:
                    raise MicroError(f"{self.path} needs an arena of over a gigabyte: {error}") from error
                self.arena_bytes *= 4

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once.

        Args:
            inputs: the encoded values of each input, in the file's order, of exactly its shape and type.

        Returns:
            The outputs in the file's order, as the file gives them.
        """
        with captured_output() as captured:
            failure = None
            try:
                self._interpreter.reset()  # recurrent operators would go on from the last run
                for number, array in enumerate(inputs):
                    self._interpreter.set_input(array, number)
                self._interpreter.invoke()
                return [self._interpreter.get_output(number) for number in range(self._output_count())]
            except (RuntimeError, ValueError) as error:
                failure = error
        raise self._error(failure, captured.text)

    def _output_count(self) -> int:
        from ai_edge_litert.schema_py_generated import Model

        return Model.GetRootAs(self._content).Subgraphs(0).OutputsLength()

    def _opened(self, arena_bytes: int) -> Any:
        from tflite_micro import runtime

        with captured_output() as captured:
            failure = None
            try:
                return runtime.Interpreter.from_bytes(self._content, arena_size=arena_bytes)
            except RuntimeError as error:
                failure = error
        if _NO_ROOM.search(captured.text) and not re.search("Didn't find op|not support", captured.text):
            raise _NoRoom(_reason(captured.text))
        raise self._error(failure, captured.text)

    def _error(self, failure: Exception | None, captured: str) -> MicroError:
        node = _FAILED_NODE.search(captured)
        reason = _reason(captured) or str(failure)
        return MicroError(
            f"{self.path} does not run on TensorFlow Lite for Microcontrollers: {reason}",
            reason,
            int(node[1]) if node else None,
        )


def require_tflite_micro() -> None:
    """Say what to install where the interpreter for microcontrollers is missing.

    Raises:
        ImportError: it is missing.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        raise ImportError("Microcontroller bundles are proven on tflite-micro: pip install 'edgeprune[mcu]'")


def measure_arena(path: str | Path) -> Arena:
    """Find the smallest arena with which a file runs on TensorFlow Lite for Microcontrollers, by bisection.

    The kernels of this machine ask for no scratch buffers; those made for a device (CMSIS-NN) do, so leave a margin.

    Args:
        path: a .tflite file whose operators and types microcontrollers support.

    Returns:
        The arena, exact to 16 bytes, with its two parts.

    Raises:
        ImportError: tflite-micro is not installed.
        FileNotFoundError: there is no such file.
        MicroError: it does not run at any size.

    Example:
        >>> measure_arena("model.tflite").bytes  # doctest: +SKIP
        44416
    """
    runtime = MicroRuntime(path)
    zeros = [np.zeros(port.shape, port.dtype) for port in Runtime(path).inputs.values()]
    runtime.run(zeros)
    with captured_output() as captured:
        runtime._interpreter.print_allocations()
    total, head, tail = (
        int(re.search(rf"Arena allocation {part} (\d+)", captured.text)[1]) for part in ("total", "head", "tail")
    )

    def runs(arena_bytes: int) -> bool:
        try:
            MicroRuntime(path, arena_bytes).run(zeros)
        except MicroError:
            return False
        return True

    # No arena smaller than what was used can do; temporary allocations may need more.
    too_small, enough = total // ALIGNMENT - 1, runtime.arena_bytes // ALIGNMENT
    probe = total // ALIGNMENT + (total % ALIGNMENT > 0)
    while enough - too_small > 1:
        if runs(probe * ALIGNMENT):
            enough = probe
        else:
            too_small = probe
        probe = (too_small + enough) // 2
    return Arena(enough * ALIGNMENT, head, tail)


def compare_with_reference(path: str | Path, samples: Mapping[str, np.ndarray]) -> MicroParity:
    """Run a file on microcontrollers' kernels and on LiteRT's reference kernels, and compare every output value.

    Args:
        path: the .tflite file.
        samples: input name to real values `(samples, ...)`.

    Returns:
        How many values differ, and by how much.

    Raises:
        ImportError: tflite-micro is not installed.
        MicroError: the file does not run on microcontrollers.
    """
    reference, micro = Runtime(path, reference=True), MicroRuntime(path)
    encoded = {name: port.encode(samples[name]) for name, port in reference.inputs.items()}
    count = len(next(iter(encoded.values())))
    values = mismatches = 0
    largest = 0.0
    for number in track(range(count), "Comparing with the reference kernels"):
        inputs = [encoded[name][number : number + 1] for name in reference.inputs]
        for port, array in zip(reference.inputs.values(), inputs, strict=True):
            reference.set_input(port, array)
        reference.invoke()
        for port, given in zip(reference.outputs.values(), micro.run(inputs), strict=True):
            expected = reference.output(port)
            difference = np.abs(given.astype(np.float64) - expected.astype(np.float64))
            values += expected.size
            mismatches += int(np.count_nonzero(difference))
            largest = max(largest, float(difference.max(initial=0)))
    return MicroParity(count, values, mismatches, largest)


def align(source: str | Path, destination: str | Path) -> None:
    """Write a .tflite file anew with each buffer at a multiple of 16 bytes, as microcontrollers' kernels want it.

    Raises:
        ImportError: tflite-micro is not installed.
    """
    require_tflite_micro()
    from tflite_micro.tensorflow.lite.micro.tools.tflite_flatbuffer_align_wrapper import align_tflite_model

    align_tflite_model(str(source), str(destination))


def _reason(captured: str) -> str:
    """The lines in which TFLM says what is wrong, without what other libraries log."""
    lines = [line.strip() for line in captured.splitlines()]
    ours = [line for line in lines if line and not re.match(r"[IWE]\d{4} |WARNING|INFO", line)]
    return " ".join(line for line in dict.fromkeys(ours) if not line.startswith(_EMPTY_WORDS))[:400]
