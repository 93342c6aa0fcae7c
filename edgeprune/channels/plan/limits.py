"""What a plan must hold: fractions of the channels, MACs, parameters and time, and bytes of memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.latency.table import LatencyTable
from edgeprune.number_checks import check_number, check_target, check_whole
from edgeprune.schemes import QUANTIZATIONS
from edgeprune.targets import Target, target
from edgeprune.types import PathLike, Quantization

_TIMES = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}
BYTES = ("max_ram", "max_flash")
FRACTIONS = ("pruning_ratio", "target_macs", "target_params")


@dataclass(frozen=True)
class Limits:
    """The targets and limits that are passed to `plan_channels`, each of which a plan holds.

    Attributes:
        pruning_ratio: fraction of the channels to remove.
        target_macs: fraction of the MACs to keep at most.
        target_params: fraction of the parameters to keep at most.
        target_latency: fraction of the time to keep at most, or a time such as `"4 ms"`.
        max_ram: bytes of the activations at most.
        max_flash: bytes of the file at most.
        device: what the time and the memory are for.
        quantization: what the model will be converted to.
        latency_table: times of operators measured on the device; None to measure on this machine.
        num_threads: threads of the interpreter.

    Raises:
        TypeError: one is of the wrong type.
        ValueError: one is out of its range.
    """

    pruning_ratio: float | None = None
    target_macs: float | None = None
    target_params: float | None = None
    target_latency: float | str | None = None
    max_ram: int | str | None = None
    max_flash: int | str | None = None
    device: str | Target = "phone"
    quantization: Quantization | None = None
    latency_table: LatencyTable | PathLike | None = None
    num_threads: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be held."""
        for kind in FRACTIONS:
            if getattr(self, kind) is not None:
                _check_one_number(kind, getattr(self, kind))
                check_target(kind, getattr(self, kind))
        if self.target_latency is not None and not isinstance(self.target_latency, str):
            check_target("target_latency", self.target_latency)
        parse_time(self.target_latency)
        for kind in BYTES:
            parse_bytes(kind, getattr(self, kind))
        check_whole("num_threads", self.num_threads, 1)
        if self.quantization not in QUANTIZATIONS:
            known = ", ".join(map(repr, QUANTIZATIONS))
            raise ValueError(f"quantization must be one of {known}; got {self.quantization!r}.")
        if self.quantization not in self.target.quantizations and self.needs_file:
            runs = ", ".join(map(repr, self.target.quantizations))
            raise ValueError(
                f"{self.target.name} does not run models in {self.quantization or 'float32'}: pass quantization= as "
                f"one of {runs}."
            )

    @property
    def target(self) -> Target:
        """The device."""
        return target(self.device)

    @property
    def needs_file(self) -> bool:
        """Whether what is to be held can be read from a .tflite file only."""
        return not (self.target_latency is self.max_ram is self.max_flash is None)

    @property
    def alone(self) -> tuple[str, float] | None:
        """The one fraction of the channels, MACs or parameters that is all there is to hold; None where there is more.

        Raises:
            ValueError: nothing is passed.
        """
        names = [*self.given]
        if not names:
            raise ValueError(
                "Pass one or more of pruning_ratio=, target_macs=, target_params=, target_latency=, max_ram= and "
                "max_flash=."
            )
        return (names[0], self.given[names[0]]) if len(names) == 1 and names[0] in FRACTIONS else None

    @property
    def given(self) -> dict[str, Any]:
        """The limits that are passed, by name."""
        names = (*FRACTIONS, "target_latency", *BYTES)
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class PlannedLatency:
    """The time that a plan is made for.

    Attributes:
        device: the target's name.
        quantization: what the model will be converted to; None for float32.
        unit: `"ms"`, or `"cycles"`.
        source: where the times of operators are from.
        before: the time of the original.
        requested: the time to keep at most.
        predicted: the plan's, by its operators.
        measured: that of a file with the plan's shapes, timed in turns with the original's; None where a device's
            table is all there is.
        sum_of_operators: what the original's operators alone add up to, relative to its whole file.
        estimated: whether nothing was measured, as for a microcontroller without a table.
    """

    device: str
    quantization: str | None
    unit: str
    source: str
    before: float
    requested: float
    predicted: float
    measured: float | None
    sum_of_operators: float
    estimated: bool

    @property
    def after(self) -> float:
        """The plan's time, measured where it could be."""
        return self.predicted if self.measured is None else self.measured

    @property
    def requested_share(self) -> float:
        """The fraction of the time to keep at most."""
        return self.requested / self.before

    @property
    def kept(self) -> float:
        """The fraction of the time that is left."""
        return self.after / self.before

    def __str__(self) -> str:
        known = "estimated" if self.estimated else "predicted" if self.measured is None else "measured"
        figures = f"{self.before:,.4g} -> {self.after:,.4g} {self.unit} ({self.kept:.1%})"
        return (
            f"{figures} {known} for {self.device} in {self.quantization or 'float32'} (requested "
            f"{self.requested_share:.4g}; {self.source})"
        )


@dataclass(frozen=True)
class HeldLimit:
    """One limit of a plan.

    Attributes:
        kind: its name: `"target_macs"`, ..., `"max_flash"`.
        requested: the limit: a fraction, or bytes.
        reached: what the plan comes to.
    """

    kind: str
    requested: float
    reached: float

    def __str__(self) -> str:
        what = {
            "pruning_ratio": "channels removed",
            "target_macs": "MACs kept",
            "target_params": "parameters kept",
            "max_ram": "bytes of activations",
            "max_flash": "bytes of the file",
        }[self.kind]
        shown = f"{self.reached:,.0f}" if self.kind in BYTES else f"{self.reached:.4f}"
        bound = "at least" if self.kind == "pruning_ratio" else "at most"
        return f"{what}: {shown} (requested {bound} {self.requested:,g})"


def one_target(
    *, pruning_ratio: float | None, target_macs: float | None, target_params: float | None
) -> tuple[str, float]:
    """The one target that is passed, with its name.

    Raises:
        ValueError: none is passed, or more than one.
    """
    given = [
        (kind, value)
        for kind, value in (
            ("pruning_ratio", pruning_ratio),
            ("target_macs", target_macs),
            ("target_params", target_params),
        )
        if value is not None
    ]
    if len(given) != 1:
        found = " and ".join(f"{kind}={value}" for kind, value in given) or "none of them"
        raise ValueError(f"Pass exactly one of pruning_ratio=, target_macs= and target_params=; got {found}.")
    _check_one_number(*given[0])
    return given[0]


def _check_one_number(kind: str, value: object) -> None:
    if isinstance(value, Mapping):
        raise ValueError(f"{kind}= must be one number; for ratios of single groups pass ratios=.")


def parse_time(value: object) -> tuple[float, str] | None:
    """A time with a unit as milliseconds or cycles, and which of these; None for a fraction.

    Raises:
        ValueError: the text is neither.

    Example:
        >>> parse_time("1.5 ms"), parse_time("2e6 cycles"), parse_time(0.5)
        ((1.5, 'ms'), (2000000.0, 'cycles'), None)
    """
    if not isinstance(value, str):
        return None
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*(us|µs|ms|s|cycles)\s*", value)
    number = _number(match[1]) if match else None
    if match is None or not number:
        raise ValueError(f"target_latency must be a fraction, a time such as '4 ms', or '2e6 cycles'; got {value!r}.")
    return (number, "cycles") if match[2] == "cycles" else (number * _TIMES[match[2]], "ms")


def parse_bytes(name: str, value: float | str | None) -> int | None:
    """A number of bytes, with or without a unit.

    Raises:
        TypeError: it is neither a number nor a text.
        ValueError: it is not positive, or has no such unit.

    Example:
        >>> parse_bytes("max_ram", "256 KiB"), parse_bytes("max_ram", 1000)
        (262144, 1000)
    """
    if value is None:
        return None
    if not isinstance(value, str):
        check_number(name, value)
        check_whole(name, value, 1)
        return int(value)
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", value)
    number = _number(match[1]) if match else None
    unit = _BYTES.get(match[2] or "B") if match else None
    if not number or unit is None:
        raise ValueError(f"{name} must be a number of bytes, or a text such as '256 kB' or '1 MiB'; got {value!r}.")
    return int(number * unit)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
