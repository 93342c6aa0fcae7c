"""What a time was measured on: the processor of this machine and the runtime's version.

print(this_machine())
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_LARGEST_KILOHERTZ = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
_BOARD = Path("/proc/device-tree/model")  # an Arm board's name, where its processor has none
# The sets of vector instructions that XNNPACK has kernels for, by the flags of x86 and of Arm in Linux.
_SIMD = {
    "avx": "AVX",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX",
    "neon": "NEON",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "sve": "SVE",
}


@dataclass(frozen=True)
class Machine:
    """A processor, and what runs models on it.

    Attributes:
        cpu: the processor's name, or the board's where the processor has none.
        cores: how many logical cores this process may use.
        gigahertz: the highest frequency, or today's where that is unknown; None where neither is known.
        simd: the sets of vector instructions it has, as far as the system names them.
        runtime: the interpreter and its version.
    """

    cpu: str
    cores: int
    gigahertz: float | None
    simd: tuple[str, ...]
    runtime: str

    def __str__(self) -> str:
        """The processor, its cores and its frequency; its vector instructions on a second line."""
        frequency = "" if self.gigahertz is None else f" at {self.gigahertz:.2f} GHz"
        simd = f"\nwith {', '.join(self.simd)}" if self.simd else ""
        return f"{self.cpu}, {self.cores} core{'s' if self.cores > 1 else ''}{frequency}{simd}"


@cache
def this_machine() -> Machine:
    """The processor this process runs on.

    Returns:
        Its description.

    Example:
        >>> this_machine().cores >= 1
        True
    """
    fields = _cpuinfo(_CPUINFO.read_text(errors="replace")) if _CPUINFO.exists() else {}
    return Machine(
        cpu=_name(fields),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        gigahertz=_gigahertz(fields),
        simd=_simd((fields.get("flags") or fields.get("features") or "").split()),
        runtime=f"LiteRT {importlib.metadata.version('ai-edge-litert')}",
    )


def _cpuinfo(text: str) -> dict[str, str]:
    """The fields of the first processor, and those that stand once for all, by their names in lower case."""
    fields: dict[str, str] = {}
    for name, value in re.findall(r"^(\S[^:\n]*?)\s*:[ \t]*(.*)$", text, re.M):
        fields.setdefault(name.lower(), value.strip())
    return fields


def _name(fields: dict[str, str]) -> str:
    if name := fields.get("model name") or fields.get("hardware"):
        return " ".join(name.split())
    if _BOARD.exists():
        return _BOARD.read_text(errors="replace").strip("\0\n ")
    if platform.system() == "Darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if name := asked.stdout.strip():
            return name
    return platform.processor() or platform.machine()


def _gigahertz(fields: dict[str, str]) -> float | None:
    try:
        return int(_LARGEST_KILOHERTZ.read_text()) / 1e6
    except (OSError, ValueError):  # virtual machines have no such file
        megahertz = fields.get("cpu mhz")
        return float(megahertz) / 1000 if megahertz else None


def _simd(flags: Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for flag, name in _SIMD.items() if flag in flags))
