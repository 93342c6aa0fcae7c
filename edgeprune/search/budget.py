"""What a model may cost and lose: limits in the device's own units, and which of them measurements break.

budget = Budget(max_accuracy_drop="1%", max_flash="256 KiB", max_latency_ms="20 ms")
budget.exceeded({"accuracy_drop": 0.004, "flash": 270_000, "latency_ms": 12.5})
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import final

from edgeprune.channels.plan.limits import parse_bytes
from edgeprune.number_checks import check_number
from edgeprune.targets import KIB, Target
from edgeprune.targets import target as target_of

_BYTES = ("max_flash", "max_ram", "max_size", "max_gzip_size")
# By limit the units that a text may have, and an example.
_UNITS: dict[str, tuple[Mapping[str, float], str]] = {
    "max_accuracy_drop": ({"%": 0.01}, "0.01 or '1%'"),
    "max_latency_ms": ({"us": 1e-3, "ms": 1.0, "s": 1e3}, "20 or '20 ms'"),
}
# Limits that are on the bytes of a file, of whatever else.
FILE_SIZES = ("max_flash", "max_size", "max_gzip_size")
LIMITS = ("max_accuracy_drop", "max_flash", "max_ram", "max_latency_ms", "max_size", "max_gzip_size")
_AMOUNT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*([a-zµ%]*)\s*")


@dataclass(frozen=True)
class Excess:
    """A limit that does not hold.

    Attributes:
        limit: its name, such as `"max_flash"`.
        allowed: its value, in bytes, milliseconds or the metric's own unit.
        measured: what was measured; None where nothing was, so that the limit is not shown to hold.
    """

    limit: str
    allowed: float
    measured: float | None

    @property
    def by(self) -> float:
        """How much is too much; NaN where it is not known."""
        return math.nan if self.measured is None else self.measured - self.allowed

    def __str__(self) -> str:
        """The limit in one line."""
        allowed = amount_text(self.limit, self.allowed)
        if self.measured is None or math.isnan(self.measured):
            return f"{self.limit} of {allowed}: not measured, so that it is not known to hold"
        share = f" ({self.by / self.allowed:.0%})" if self.allowed else ""
        over = amount_text(self.limit, self.by)
        return f"{self.limit} of {allowed}: {amount_text(self.limit, self.measured)}, {over}{share} over"


@final
@dataclass(frozen=True)
class Budget:
    """Limits that a model has to hold. What is left out is not limited.

    Texts have a unit: `"256 KiB"`, `"20 ms"`, `"1%"`. A KiB is 1,024 bytes, a kB 1,000, as in `plan_channels`.

    Attributes:
        max_accuracy_drop: how much worse the figure may be than the original's, in the figure's own unit: 0.01 or
            `"1%"` is one point of accuracy. Of a figure where less is better, how much it may rise.
        max_flash: bytes of flash for the model with its code.
        max_ram: bytes of RAM for the arena.
        max_latency_ms: milliseconds of one run.
        max_size: bytes of the file.
        max_gzip_size: bytes of the file after gzip, as it travels.

    Raises:
        TypeError: a limit is neither a number nor a text.
        ValueError: nothing is limited, a text has another unit, or a limit cannot be held by any model.

    Example:
        >>> Budget(max_accuracy_drop="1%", max_flash="256 KiB").max_flash
        262144
    """

    max_accuracy_drop: float | str | None = None
    max_flash: float | str | None = None
    max_ram: float | str | None = None
    max_latency_ms: float | str | None = None
    max_size: float | str | None = None
    max_gzip_size: float | str | None = None

    def __post_init__(self) -> None:
        """Read the texts and refuse what no model holds."""
        for name in LIMITS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _amount(name, value))
        if not self.limits:
            raise ValueError(f"Nothing is limited: pass at least one of {', '.join(LIMITS)}.")
        for name, limit in self.limits.items():
            if limit < 0 or (limit == 0 and name != "max_accuracy_drop"):
                raise ValueError(f"{name} of {limit:g} is held by no model: pass more than 0.")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that there are, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: float(value) for name, value in values.items() if value is not None}

    @property
    def costs(self) -> list[str]:
        """The names of the limits on what a file costs."""
        return [name for name in self.limits if name != "max_accuracy_drop"]

    def with_memories(self, target: Target) -> Budget:
        """The budget, and the memories of a microcontroller where they are known and not limited further."""
        if target.kind != "microcontroller":
            return self
        flash, ram = self.max_flash or target.flash_bytes, self.max_ram or target.ram_bytes
        return replace(self, max_flash=flash, max_ram=ram)

    def check_target(self, target: Target) -> None:
        """Refuse limits that a device cannot have, or whose figures cannot be measured for it.

        Raises:
            ValueError: a limit is beyond the device's memory, or is none of its kind.
        """
        for name, memory, what in (
            ("max_flash", target.flash_bytes, "flash"),
            ("max_ram", target.ram_bytes, "RAM"),
        ):
            limit = self.limits.get(name)
            if limit is not None and target.kind in ("phone", "computer"):
                raise ValueError(f"{name} limits a microcontroller or an NPU; for {target.name!r} pass max_size.")
            if limit is not None and memory is not None and limit > memory:
                raise ValueError(
                    f"{name} of {amount_text(name, limit)} is more than the {amount_text(name, memory)} of {what} that "
                    f"{target.name!r} has: lower it, or leave it out for all of it."
                )
        if "max_latency_ms" in self.limits and target.kind == "microcontroller":
            raise ValueError(
                f"The latency on {target.name!r} cannot be measured on this machine: leave max_latency_ms out."
            )

    def exceeded(self, measured: Mapping[str, float | None]) -> tuple[Excess, ...]:
        """The limits that measurements break, the most broken one first.

        Args:
            measured: figures by the limits' names without `max_`, such as `"flash"` and `"accuracy_drop"`; a figure
                that is missing, None or NaN is not known to hold.

        Example:
            >>> print(*Budget(max_flash="256 KiB").exceeded({"flash": 300 * 1024}))
            max_flash of 256 KiB: 300 KiB, 44 KiB (17%) over
        """
        found = []
        for name, allowed in self.limits.items():
            value = measured.get(name.removeprefix("max_"))
            if value is None or not value <= allowed:
                found.append(Excess(name, allowed, value))
        return tuple(sorted(found, key=lambda one: -_overshoot(one)))

    def bytes_left(self, measured: Mapping[str, float]) -> int | None:
        """How much a file may grow until one of the limits on its bytes breaks; None where they are not limited.

        Args:
            measured: its figures, as `exceeded` accepts them.

        Example:
            >>> Budget(max_size="30 kB").bytes_left({"size": 28_400})
            1600
        """
        names = [name for name in FILE_SIZES if name in self.limits]
        return min((int(self.limits[name] - measured[name.removeprefix("max_")]) for name in names), default=None)

    def overshoot(self, measured: Mapping[str, float | None]) -> float:
        """How far the most broken limit is exceeded, as a fraction of it: 0 where all hold."""
        return max(map(_overshoot, self.exceeded(measured)), default=0.0)


def device_and_budget(target: str | Target | None, *limits: float | str | None) -> tuple[Target | None, Budget | None]:
    """A device and limits, of which either may be left out, as they are held against files.

    Args:
        target: the device, by its name or as a `Target`.
        *limits: the arguments of `Budget`, in their order.

    Raises:
        ValueError: there is no such device, or no model on it holds the limits.
    """
    device = None if target is None else target_of(target)
    budget = Budget(*limits) if any(limit is not None for limit in limits) else None
    if device is not None and budget is not None:
        budget.check_target(device)
    return device, budget


def _overshoot(excess: Excess) -> float:
    return math.inf if not math.isfinite(excess.by) else excess.by / (excess.allowed or 0.01)


def _amount(name: str, value: float | str) -> float:
    """A number, or a text with a unit, in the limit's own unit."""
    if name in _BYTES:
        return parse_bytes(name, value) or 0
    units, example = _UNITS[name]
    if not isinstance(value, str):
        check_number(name, value)
        return float(value)
    match = _AMOUNT.fullmatch(value)
    unit = match[2].replace("µ", "u") if match else ""
    if match is None or (unit and unit not in units):
        raise ValueError(f"{name}={value!r} is no amount; pass {example}.")
    return float(match[1]) * units.get(unit, 1.0)


def amount_text(name: str, value: float) -> str:
    """A figure as a user writes it: bytes with a unit, milliseconds, points.

    Args:
        name: the limit, with or without `max_`.
        value: the figure.

    Example:
        >>> amount_text("max_flash", 300 * 1024), amount_text("latency_ms", 12.5)
        ('300 KiB', '12.5 ms')
    """
    name = name.removeprefix("max_")
    if f"max_{name}" in _BYTES:
        unit, count = ("MiB", KIB**2) if abs(value) >= 10 * KIB**2 else ("KiB", KIB) if abs(value) >= KIB else ("B", 1)
        return f"{value / count:.4g} {unit}"
    return f"{value:.4g} ms" if name == "latency_ms" else f"{value:.4g}"
