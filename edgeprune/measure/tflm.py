"""Run a .tflite file on TensorFlow Lite for Microcontrollers, as built for this machine, and measure its arena.

The host's kernels are the reference ones, so an integer file computes here what it computes on the device.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeprune.measure.integer_reference import integer_reference
from edgeprune.measure.tflm_process import reason
from edgeprune.progress import track
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.runtime import Runtime

ALIGNMENT = 16
_FIRST_ARENA = 1 << 18
_LARGEST_ARENA = 1 << 30
_NO_ROOM = re.compile(r"[Ff]ailed to (allocate|resize)|missing: \d+|Arena size is too small|Unable to allocate")
_FAILED_NODE = re.compile(r"Node \S+ \(number (\d+)f?\) failed to \w+")


class MicroError(ValueError):
    """TensorFlow Lite for Microcontrollers cannot run a file.

    Attributes:
        reason: its own words.
        operator: number of the operator it failed at, `None` where it is unknown.
        no_room: whether a larger arena may help.
    """

    def __init__(self, message: str, reason: str = "", operator: int | None = None, no_room: bool = False) -> None:
        """Keep the interpreter's words beside the message."""
        super().__init__(message)
        self.reason, self.operator, self.no_room = reason, operator, no_room


@dataclass(frozen=True)
class Arena:
    """The memory that the interpreter needs for one inference.

    Attributes:
        bytes: the smallest arena with which the file runs, a multiple of 16.
        head: what of it holds activations and scratch buffers, used again and again.
        tail: what of it the interpreter itself needs: its own structures, most of it pointers, which need half of
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
    """The outputs of a file on microcontrollers' kernels beside those of LiteRT's.

    Differences are in steps of an integer output, or as they are where outputs are floats.

    Attributes:
        samples: how many samples were run.
        values: how many output values were compared.
        mismatches: how many of them differ from the reference kernels', which compute in integers alone.
        largest: the largest difference from them.
        litert_mismatches: how many differ from what LiteRT makes of the file on a computer or phone, whose kernels
            (XNNPACK) round otherwise.
        litert_largest: the largest difference from that.
    """

    samples: int
    values: int
    mismatches: int
    largest: float
    litert_mismatches: int = 0
    litert_largest: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether every value is the same."""
        return self.mismatches == 0

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return asdict(self)


class MicroRuntime:
    """A .tflite file in the interpreter for microcontrollers, which runs in a process of its own.

    Args:
        path: the .tflite file.
        arena_bytes: the size of its memory; by default as much as it needs.

    Attributes:
        path: the file.
        arena_bytes: the size of its memory.

    Raises:
        ImportError: tflite-micro is not installed.
        FileNotFoundError: there is no such file.
        MicroError: an operator or a type is not supported, or the arena is too small.
        ValueError: it is no readable .tflite file.
    """

    def __init__(self, path: str | Path, arena_bytes: int | None = None) -> None:
        """Open the file and allocate its tensors."""
        require_tflite_micro()
        self.path = Path(path)
        self._output_count = len(read_tflite(self.path).outputs)  # says what is wrong with a file that is none
        self._content = self.path.read_bytes()
        self._process: _Process | None = None
        if arena_bytes is not None:
            self.open_arena(arena_bytes)
            return
        arena_bytes = _FIRST_ARENA
        while True:
            try:
                return self.open_arena(arena_bytes)
            except MicroError as error:
                if not error.no_room or arena_bytes >= _LARGEST_ARENA:
                    raise
                arena_bytes *= 4

    def open_arena(self, arena_bytes: int) -> None:
        """Begin again with an arena of this size."""
        if self._process is None or not self._process.alive:
            self._process = _Process()
            self._ask("load", self._content)
        self.arena_bytes = arena_bytes
        self._ask("open_arena", arena_bytes)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once.

        Args:
            inputs: the encoded values of each input, in the file's order, of exactly its shape and type.

        Returns:
            The outputs in the file's order, as the file encodes them.
        """
        return self._ask("run", list(inputs), self._output_count)[0]

    def allocations(self) -> str:
        """The interpreter's own report on its arena, after a run."""
        return self._ask("print_allocations")[1]

    def _ask(self, command: str, *arguments: object) -> tuple[Any, str]:
        """What the process answers, and what it says meanwhile."""
        assert self._process is not None, "an arena has been opened"
        succeeded, value, said = self._process.ask(command, arguments)
        if succeeded:
            return value, said
        node = _FAILED_NODE.search(said)
        why = reason(said) or str(value)
        no_room = bool(_NO_ROOM.search(said)) and not re.search("Didn't find op|not support", said)
        fits = f"does not fit into an arena of {self.arena_bytes:,} bytes" if no_room else "does not run"
        raise MicroError(
            f"{self.path} {fits} on TensorFlow Lite for Microcontrollers: {why}",
            reason=why,
            operator=int(node[1]) if node else None,
            no_room=no_room,
        )


class _Process:
    """`micro_process`, running."""

    def __init__(self) -> None:
        # Appending, so that reading from the start does not move the place where the process writes.
        self._said = tempfile.TemporaryFile("ab+", buffering=0)
        self._read = 0
        package = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeprune.measure.tflm_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
        )
        weakref.finalize(self, _end, self._process, self._said)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, command: str, arguments: tuple) -> tuple[bool, Any, str]:
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        try:
            pickle.dump((command, arguments), self._process.stdin)
            self._process.stdin.flush()
            succeeded, value = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = self._process.wait()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            succeeded, value = (
                False,
                f"its interpreter was ended by {name}, as a kernel did not expect its input; a model that was "
                "never trained, whose values are all nearly 0, can do that",
            )
        said = os.pread(self._said.fileno(), 1 << 20, self._read).decode(errors="replace")
        self._read += len(said.encode(errors="replace"))
        return succeeded, value, said


def _end(process: subprocess.Popen, said: IO[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None, "both are pipes"
    process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    said.close()


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
    report = runtime.allocations()
    total, head, tail = (
        int(re.findall(rf"Arena allocation {part} (\d+)", report)[0]) for part in ("total", "head", "tail")
    )

    def runs(arena_bytes: int) -> bool:
        try:
            runtime.open_arena(arena_bytes)
            runtime.run(zeros)
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
    """Run a file on microcontrollers' kernels and on LiteRT's, and compare every output value.

    Args:
        path: the .tflite file.
        samples: input name to real values `(samples, ...)`.

    Returns:
        How many values differ, and by how much: from the reference kernels, which compute in integers alone as
        microcontrollers' do (see `edgeprune.measure.integer_reference`), and from LiteRT as it runs on a phone.

    Raises:
        ImportError: tflite-micro is not installed.
        MicroError: the file does not run on microcontrollers.
    """
    micro, litert = MicroRuntime(path), Runtime(path)
    encoded = [port.encode(samples[name]) for name, port in litert.inputs.items()]
    count = len(encoded[0])
    exact, phone = _Differences(), _Differences()
    with integer_reference(path) as reference:
        for number in track(range(count), "Comparing with the reference kernels"):
            inputs = [array[number : number + 1] for array in encoded]
            given = micro.run(inputs)
            exact.add(given, reference.run(inputs))
            phone.add(given, litert.run(inputs))
    return MicroParity(
        samples=count,
        values=exact.values,
        mismatches=exact.mismatches,
        largest=exact.largest,
        litert_mismatches=phone.mismatches,
        litert_largest=phone.largest,
    )


@dataclass
class _Differences:
    """What is counted while values are compared."""

    values: int = 0
    mismatches: int = 0
    largest: float = 0.0

    def add(self, given: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
        for ours, theirs in zip(given, expected, strict=True):
            difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
            self.values += difference.size
            self.mismatches += int(np.count_nonzero(difference))
            self.largest = max(self.largest, float(difference.max(initial=0)))


def align(source: str | Path, destination: str | Path) -> None:
    """Rewrite a .tflite file with each buffer at a multiple of 16 bytes, as microcontrollers' kernels want it.

    Raises:
        ImportError: tflite-micro is not installed.
    """
    require_tflite_micro()
    from tflite_micro.tensorflow.lite.micro.tools.tflite_flatbuffer_align_wrapper import align_tflite_model

    align_tflite_model(os.fsencode(source), os.fsencode(destination))
