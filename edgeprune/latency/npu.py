"""Costs in cycles of an Ethos-U, as Vela estimates them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprune.latency.template import FileTemplate
from edgeprune.measure.vela import NpuReport, VelaError, compile_for_npu, require_vela
from edgeprune.progress import track

_OPERATORS_A_FILE = 64


class VelaCosts:
    """Cycles of an accelerator: of operators side by side in one file, and of whole files.

    Args:
        accelerator: as Vela names it: `"ethos-u55-128"`.

    Raises:
        ImportError: Vela is not installed.
    """

    unit = "cycles"
    estimated = False

    def __init__(self, accelerator: str) -> None:
        require_vela()
        self.accelerator = accelerator
        self.source = f"Vela's cycles on {accelerator}"

    def of_nothing(self) -> float:
        """No cycles."""
        return 0.0

    def of_operators(self, template: FileTemplate, wanted: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
        """Cycles of each operator; those that the NPU leaves to the CPU have none."""
        firsts: dict[str, int] = {}
        keys = [template.key(place, counts) for place, counts in wanted]
        for number, key in enumerate(keys):
            firsts.setdefault(key, number)
        cycles: dict[str, float] = {}
        unknown = list(firsts.items())
        batches = range(0, len(unknown), _OPERATORS_A_FILE)
        for start in track(batches, "Compiling operators"):
            batch = unknown[start : start + _OPERATORS_A_FILE]
            found = self._compiled(template.beside([wanted[number] for _, number in batch]))
            cycles |= {key: 0.0 for key, _ in batch}
            for name, spent in found.operator_cycles.items() if found is not None else ():
                match = re.match(r"op(\d+)(?!\d)", name)
                if match:
                    cycles[batch[int(match[1])][0]] += spent
        return np.array([cycles[key] for key in keys])

    def of_model(self, template: FileTemplate, counts: Sequence[np.ndarray]) -> np.ndarray:
        """Cycles of whole files.

        Raises:
            VelaError: Vela cannot compile one, or nothing of it would run on the NPU.
        """
        reports = [self._report(template.resized(row)) for row in counts]
        return np.array([float(report.cycles) for report in reports])

    def _compiled(self, content: bytes) -> NpuReport | None:
        try:
            return self._report(content)
        except VelaError:  # none of them runs on the NPU
            return None

    def _report(self, content: bytes) -> NpuReport:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sizes.tflite"
            path.write_bytes(content)
            return compile_for_npu(path, self.accelerator, path.with_name("compiled.tflite"))
