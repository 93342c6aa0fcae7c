"""What a report's figures were measured with: the machine, and the versions of what computed them."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import Any, final

from edgeprune.measure.machine import Machine, this_machine

_PACKAGES = (
    "edgeprune",
    "tensorflow",
    "keras",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "tflite-micro",
    "ethos-u-vela",
    "numpy",
)


@final
@dataclass(frozen=True)
class Environment:
    """Where figures were measured.

    Attributes:
        machine: the processor and the interpreter.
        system: the operating system.
        python: the version of Python.
        packages: versions by name, of those that are installed.
    """

    machine: Machine
    system: str
    python: str
    packages: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {**asdict(self), "machine": asdict(self.machine)}


def this_environment() -> Environment:
    """The machine and the packages of this process."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed, or a source tree
            continue
    return Environment(this_machine(), f"{platform.system()} {platform.machine()}", platform.python_version(), packages)
