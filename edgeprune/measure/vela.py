"""Compile a .tflite file for an Arm Ethos-U NPU with Vela, and read what it says about its speed and memory.

Vela runs as a process of its own: some files end it.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.measure.macs import count_macs_of_file
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.graph import type_name, unpacked

NPU_OPERATOR = "ethos-u"
TIMEOUT_SECONDS = 600
# The systems and memories, from those that come with Vela, that an accelerator is estimated in.
_SYSTEMS = {
    "ethos-u55-32": ("Ethos_U55_Deep_Embedded", "Shared_Sram"),
    "ethos-u55-64": ("Ethos_U55_Deep_Embedded", "Shared_Sram"),
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85-128": ("Ethos_U85_SYS_Flash_Low", "Shared_Sram"),
    "ethos-u85-256": ("Ethos_U85_SYS_Flash_High", "Shared_Sram"),
    "ethos-u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}


class VelaError(ValueError):
    """Vela cannot compile a file."""


@dataclass(frozen=True)
class NpuReport:
    """What Vela estimates of a file on an accelerator. These are a compiler's estimates, not a measurement.

    Attributes:
        accelerator: such as `"ethos-u55-128"`.
        system_config: the system that was assumed, its clock and memories, by Vela's name.
        memory_mode: where tensors and weights lie, by Vela's name.
        path: the compiled file.
        cycles: cycles of one inference.
        milliseconds: their time at the system's clock.
        sram_bytes: memory for activations and what is cached.
        arena_bytes: what the interpreter's arena holds of tensors, by the offsets that Vela wrote into the file. With
            a dedicated SRAM the same number of bytes may lie there, and the arena elsewhere.
        weight_bytes: the weights as the NPU has them, compressed.
        cpu_operators: operators left on the CPU, as `(number in the compiled file, name)`.
        cpu_macs: their MACs.
        macs: the MACs of the whole file.
        operator_cycles: cycles by the name of what an operator computes, where Vela says it.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    path: Path
    cycles: int
    milliseconds: float
    sram_bytes: int
    arena_bytes: int
    weight_bytes: int
    cpu_operators: tuple[tuple[int, str], ...]
    cpu_macs: int
    macs: int
    operator_cycles: Mapping[str, int] = field(default_factory=dict)

    @property
    def cpu_share(self) -> float:
        """The share of the MACs that is left on the CPU, 0 to 1."""
        return self.cpu_macs / self.macs if self.macs else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        names = [name for _, name in self.cpu_operators]
        figures = {name: value for name, value in asdict(self).items() if name != "operator_cycles"}
        return figures | {"path": str(self.path), "cpu_operators": names, "cpu_share": self.cpu_share}


def require_vela() -> None:
    """Say what to install where Vela is missing.

    Raises:
        ImportError: it is missing.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise ImportError("NPU bundles are compiled by Vela: pip install 'edgeprune[npu]'")


def compile_for_npu(path: str | Path, accelerator: str, output: str | Path) -> NpuReport:
    """Compile a .tflite file for an accelerator.

    Args:
        path: an int8 or int16x8 file.
        accelerator: as Vela names it: `"ethos-u55-128"`.
        output: the file to write.

    Returns:
        The estimates, and the operators that run on the CPU.

    Raises:
        ImportError: Vela is not installed.
        FileNotFoundError: there is no such file.
        VelaError: Vela fails, or nothing of the file would run on the NPU.
        ValueError: it is no readable .tflite file.

    Example:
        >>> compile_for_npu("model.tflite", "ethos-u55-128", "vela.tflite").milliseconds  # doctest: +SKIP
        0.352
    """
    require_vela()
    path = Path(path)
    read_tflite(path)  # says what is wrong with a file that is none
    system, memory = _system(accelerator)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ethosu.vela", str(path), "--accelerator-config", accelerator]
        command += ["--config", "Arm/vela.ini", "--system-config", system, "--memory-mode", memory]
        command += ["--output-dir", folder, "--verbose-performance"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, cwd=folder
            )
        except subprocess.TimeoutExpired as error:
            raise VelaError(f"Vela did not finish {path} in {TIMEOUT_SECONDS} seconds.") from error
        compiled = next(Path(folder).glob("*_vela.tflite"), None)
        summary = next(Path(folder).glob("*_summary_*.csv"), None)
        if done.returncode or compiled is None:
            raise VelaError(f"Vela cannot compile {path} for {accelerator}: {_reason(done)}")
        operators = read_tflite(compiled).operators
        if not any(operator.name == NPU_OPERATOR for operator in operators) or summary is None:
            names = ", ".join(dict.fromkeys(operator.name for operator in operators))
            raise VelaError(
                f"Nothing of {path} would run on {accelerator}: all its operators run on the CPU ({names})."
            )
        with summary.open(newline="") as file:
            row = next(csv.DictReader(file))
        cycles: Counter[str] = Counter()
        for by_operator in Path(folder).glob("*_per-layer.csv"):
            with by_operator.open(newline="") as file:
                for line in csv.DictReader(file):
                    cycles[line["Name"]] += round(float(line["Op Cycles"]))
        Path(output).write_bytes(compiled.read_bytes())
    left = tuple((n, operator.name) for n, operator in enumerate(operators) if operator.name != NPU_OPERATOR)
    return NpuReport(
        accelerator=accelerator,
        system_config=system,
        memory_mode=memory,
        path=Path(output),
        cycles=round(float(row["cycles_total"])),
        milliseconds=1000 * float(row["inference_time"]),
        sram_bytes=round(1024 * float(row["sram_memory_used"])),
        arena_bytes=_planned(Path(output).read_bytes()),
        weight_bytes=round(float(row["total_npu_encoded_weights"])),
        cpu_operators=left,
        cpu_macs=count_macs_of_file(output).total if left else 0,
        macs=count_macs_of_file(path).total,
        operator_cycles=dict(cycles),
    )


def _system(accelerator: str) -> tuple[str, str]:
    family = accelerator.rpartition("-")[0]
    found = _SYSTEMS.get(accelerator) or _SYSTEMS.get(family)
    if found is None:
        raise VelaError(f"Vela has no accelerator {accelerator!r}; it has ethos-u55-*, ethos-u65-* and ethos-u85-*.")
    return found


def _planned(content: bytes) -> int:
    """The end of the last tensor in the arena, by the plan that lies in a compiled file.

    The plan is a row of int32: version, subgraph, count, and an offset for each tensor, -1 for those that are
    constant, or that the interpreter places itself.
    """
    model = unpacked(content)
    plan = next(entry for entry in model.metadata if entry.name == b"OfflineMemoryAllocation")
    offsets = model.buffers[plan.buffer].data.view("<i4")[3:].tolist()
    end = by_interpreter = 0
    for tensor, offset in zip(model.subgraphs[0].tensors, offsets, strict=False):
        shape = () if tensor.shape is None or np.isscalar(tensor.shape) else tensor.shape  # a scalar has none
        size = math.prod(map(int, shape)) * np.dtype(type_name(tensor)).itemsize
        if offset >= 0:
            end = max(end, offset + size)
        elif model.buffers[tensor.buffer].data is None:
            by_interpreter += size
    return end + by_interpreter


def _reason(done: subprocess.CompletedProcess) -> str:
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines[-3:]
    return " ".join(errors)[:400] or f"exit code {done.returncode}"
