"""The bits of each layer's weights: 4 where little is lost, 8 or floats where it pays, within the file's size and time.

plan = ep.plan_quantization(model, x[:200], max_size="40 kB")
print(plan)
ep.export_tflite(model, "model.tflite", plan.scheme, x[:200])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.plan.limits import parse_bytes, parse_time
from edgeprune.conversion.plain import converted
from edgeprune.data.batches import samples_of
from edgeprune.data.named_arrays import named_arrays
from edgeprune.data.ports import input_shapes
from edgeprune.depth.bypass import walkable
from edgeprune.latency.measured import MeasuredCosts
from edgeprune.latency.table import table_of_this_machine
from edgeprune.number_checks import check_number
from edgeprune.progress import status
from edgeprune.quantization.bit_choice import NothingFitsError, best_choice
from edgeprune.quantization.layer_choices import LayerChoices
from edgeprune.quantization.layer_times import LayerTimes, layer_times
from edgeprune.schemes import FLOAT_BITS, Scheme
from edgeprune.targets import Target
from edgeprune.targets import target as target_named
from edgeprune.text_table import text_table
from edgeprune.tflite.compact import compact
from edgeprune.tflite.four_bits import READ_FOUR_BITS, with_four_bit_weights
from edgeprune.types import DataLike, Model

_READERS = frozenset(READ_FOUR_BITS)  # of LiteRT
_MORE = 0.1  # of the bytes of all weights in 4 bits, for layers that keep 8 where no size is passed


@dataclass(frozen=True)
class PlannedLayer:
    """The bits of a layer's weights.

    Attributes:
        name: its path name.
        weights: how many it has.
        bits: what was chosen: 4, 8, or 32 for a layer in floats.
        added_error: what the error of the model's outputs grows by where this layer alone has 4 bits, as a share of
            their variance; None where no operator reads its weights in 4 bits.
        removed_error: what it falls by where this layer alone is in floats, and all others have 8 bits; None where that
            was not asked for.
    """

    name: str
    weights: int
    bits: int
    added_error: float | None
    removed_error: float | None = None


@dataclass(frozen=True)
class QuantizationPlan:
    """What `plan_quantization` returns.

    Attributes:
        scheme: what `export_tflite`, `round_weights` and `quantize_aware` accept.
        layers: the layers with kernels, in the order of the graph.
        size: the bytes of the file as the converter writes it; an export may differ by some hundred, and by some
            more for each layer in floats, which has operators around it.
        sizes: the bytes with all weights in 4 bits, where operators read them, and in 8.
        max_size: the limit; None without one.
        latency: the milliseconds of the file, its layers' operators timed in 4 and 8 bits; None where no limit on the
            time was passed.
        latencies: the same with all weights in 4 bits, and in 8.
        max_latency: the limit in milliseconds.
        error: of the simulated file's outputs, the mean squared error over their variance, weights at their nearest
            steps.
        errors: the same with all weights in 4 bits, and in 8.
        num_samples: how many samples it was measured on.
    """

    scheme: Scheme
    layers: tuple[PlannedLayer, ...]
    size: int
    sizes: tuple[int, int]
    max_size: int | None
    error: float
    errors: tuple[float, float]
    num_samples: int
    latency: float | None = None
    latencies: tuple[float, float] | None = None
    max_latency: float | None = None

    def __str__(self) -> str:
        """A table of the layers, and what the file comes to."""
        columns = ["layer", "weights", "bits", "error added by 4 bits", "removed by floats"]
        errors = [(one.added_error, one.removed_error) for one in self.layers]
        rows = [
            (one.name, f"{one.weights:,}", str(one.bits), *("" if error is None else f"{error:.2%}" for error in own))
            for one, own in zip(self.layers, errors, strict=True)
        ]
        shown = 5 if any(removed is not None for _, removed in errors) else 4
        table = text_table(columns[:shown], [row[:shown] for row in rows])
        files = [
            (name, f"{size:,}", *([] if time is None else [f"{time:.3g}"]), f"{error:.2%}")
            for name, size, time, error in zip(
                ("all 4 bits", "this plan", "all 8 bits"),
                (self.sizes[0], self.size, self.sizes[1]),
                (None,) * 3 if self.latencies is None else (self.latencies[0], self.latency, self.latencies[1]),
                (self.errors[0], self.error, self.errors[1]),
                strict=True,
            )
        ]
        timed = ("milliseconds",) if self.latencies is not None else ()
        totals = text_table(("file", "bytes", *timed, "error of the outputs"), files)
        limits = [] if self.max_size is None else [f"at most {self.max_size:,} bytes"]
        limits += [] if self.max_latency is None else [f"at most {self.max_latency:.3g} ms"]
        return "\n".join([", ".join([str(self.scheme), *limits]), table, totals])

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        own = {name: value for name, value in vars(self).items() if name not in ("scheme", "layers")}
        return {"scheme": self.scheme.to_dict(), "layers": [vars(one) for one in self.layers], **own}


def plan_quantization(
    model: Model,
    data: DataLike,
    *,
    max_size: int | float | str | None = None,
    max_latency: float | str | None = None,
    target: str | Target | None = None,
    num_samples: int = 64,
    num_threads: int = 1,
) -> QuantizationPlan:
    """Choose the bits of each layer's weights, 4 or 8, or floats, by what they cost the model's outputs.

    Each layer is rounded to 4 bits alone, all others to 8, on a simulation of the file, and the error of the outputs is
    measured. Then the layers are chosen that keep 8 bits, so that the error is least within the limits: a knapsack.
    Not every operator is faster in 4 bits: on LiteRT dense layers may be, and convolutions are slower, as XNNPACK
    computes none of them. Activations have 8 bits; the converter makes no files in which some have 16.

    For a target that computes floats, each layer is left in floats alone too. One that breaks in integers is then so
    where its bytes, 4 for each weight, are within the size. Values between two layers are rounded unless both are in
    floats; where it is their range that is too wild, name both in a `Scheme`.

    Args:
        model: a built model of `keras` 3 or `tf_keras`, in floats. It is not changed.
        data: samples as the model meets them, in any form that `model.fit` accepts. Labels are not looked at.
        max_size: the bytes that the file may have: a number, a text such as `"256 kB"`, or a fraction below 1 of the
            file with 8 bits, or with a target that computes floats one below 4. Where neither limit is passed, the
            weights may have a tenth more bytes than with 4 bits.
        max_latency: the time that the file may take on LiteRT on this machine, whose operators are measured: a text
            such as `"4 ms"`, or a number, relative to the file with 8 bits.
        target: the device, by name or a `Target`; left out, no layer is in floats.
        num_samples: how many samples to use at most.
        num_threads: threads of the interpreter that operators are timed with.

    Returns:
        The plan; pass `plan.scheme` to `export_tflite`.

    Raises:
        TypeError: `model` is no Keras model, the data are in no known form, or a limit is neither number nor text.
        ValueError: the model is not built, under pruning or quantization-aware, or cannot be followed or converted; the
            data do not fit it; no choice of bits holds the limits; or the target has no choice, as it neither reads
            weights of 4 bits nor computes floats, or computes floats, whose time is not known, and `max_latency` is
            passed.

    Example:
        >>> plan = plan_quantization(model, x)
        >>> sorted({layer.bits for layer in plan.layers}), plan.sizes[0] <= plan.size <= plan.max_size
        ([4, 8], True)
    """
    flavor.check_built_model(model)
    time_limit = None if max_latency is None else _parsed(max_latency)
    with_floats = target is not None and _computes_floats(target_named(target), time_limit is not None)
    model = walkable(model)
    samples = samples_of(data, num_samples, inputs=input_shapes(model), source="The data")
    named = named_arrays("the model", input_shapes(model), samples)
    with status(f"Quantization of {model.name}") as say:
        choices = LayerChoices(model, named, with_floats)
        added = choices.added_errors(say)
        say("Converting")
        wide = converted(model, "int8")
        narrow = with_four_bit_weights(wide, nearest=True)[0]
        sizes = len(compact(narrow, model.name)), len(wide)
        times = None
        if time_limit is not None:
            say("Timing operators")
            times = layer_times(wide, choices.kernels, _READERS, MeasuredCosts(table_of_this_machine(num_threads)))
        more = int(_MORE * choices.more_bytes[:, 1].sum())
        limits = _Limits.of(max_size, time_limit, sizes, times, more, with_floats)
        chosen = limits.chosen(added, choices.more_bytes)
        error = choices.error(chosen)
    rows, every = np.arange(len(chosen)), np.ones(len(chosen), bool)
    return QuantizationPlan(
        scheme=choices.scheme(chosen),
        layers=_planned_layers(choices, chosen, added),
        size=sizes[0] + int(choices.more_bytes[rows, chosen].sum()),
        sizes=sizes,
        max_size=limits.size,
        error=error,
        errors=(choices.all_four, choices.all_eight),
        num_samples=len(next(iter(named.values()))),
        latency=None if times is None else times.total(chosen == 0),
        latencies=None if times is None else (times.total(every), times.whole),
        max_latency=limits.time,
    )


def with_wider_layers(model: Model, samples: Mapping[str, np.ndarray], more_bytes: int | None = None) -> Scheme:
    """A scheme of 4 bits in which the layers that gain most by it keep 8.

    Args:
        model: a float model.
        samples: input name to samples `(samples, ...)`.
        more_bytes: what that may add to the file; None for a tenth of the weights.

    Raises:
        ValueError: as `plan_quantization`.
    """
    choices = LayerChoices(model, samples)
    more = int(_MORE * choices.more_bytes[:, 1].sum()) if more_bytes is None else more_bytes
    return choices.scheme(_Limits(0, more).chosen(choices.added_errors(), choices.more_bytes))


def _computes_floats(device: Target, is_timed: bool) -> bool:
    """Whether layers may be in floats; a device that leaves no choice is refused."""
    if not device.computes_floats and not device.four_bit_operators():
        raise ValueError(
            f"Target {device.name!r} neither reads weights of 4 bits nor computes floats: every layer has 8 bits, pass "
            "'int8'."
        )
    if device.computes_floats and is_timed:
        raise ValueError(
            f"Target {device.name!r} computes floats, and the time of layers in floats between integers is not "
            "known: pass max_size instead of max_latency, or leave target out for a choice of 4 and 8 bits."
        )
    return device.computes_floats


def _planned_layers(choices: LayerChoices, chosen: np.ndarray, added: np.ndarray) -> tuple[PlannedLayer, ...]:
    """All layers with kernels."""
    free = {id(one): number for number, one in enumerate(choices.free)}
    planned = []
    for one in choices.wrappers:
        bits, four, floats = 8, None, None
        if (number := free.get(id(one))) is not None:
            of_bits = dict(zip(choices.bits[number].tolist(), added[number].tolist(), strict=True))
            bits, four, floats = int(choices.bits[number, chosen[number]]), of_bits.get(4), of_bits.get(FLOAT_BITS)
        removed = None if floats is None else abs(floats)
        planned.append(PlannedLayer(choices.name(one), choices.count(one), bits, four, removed))
    return tuple(planned)


@dataclass(frozen=True, eq=False)
class _Limits:
    """What a plan must hold.

    Attributes:
        least: the bytes of the file with all weights in 4 bits.
        size: the bytes that it may have; None without a limit.
        times: what layers take; None where the time has no limit.
        time: the milliseconds that it may take.
    """

    least: int
    size: int | None
    times: LayerTimes | None = None
    time: float | None = None

    @staticmethod
    def of(
        max_size: int | float | str | None,
        time_limit: tuple[float, bool] | None,
        sizes: tuple[int, int],
        times: LayerTimes | None,
        more: int,
        with_floats: bool,
    ) -> _Limits:
        """The limits that a user passes; `more` bytes are allowed where there are none."""
        if max_size is None:
            size = sizes[0] + more if times is None else None
        elif isinstance(max_size, float) and 0 < max_size < (4 if with_floats else 1):
            size = int(max_size * sizes[1])
        else:
            size = parse_bytes("max_size", max_size) or 0
        if size is not None and size < sizes[0]:
            raise ValueError(
                f"max_size={max_size!r} cannot be held: with all weights in 4 bits the file has {sizes[0]:,} bytes, in "
                f"8 bits {sizes[1]:,}. Raise it, or remove channels first (plan_channels(max_flash=...))."
            )
        if times is None or time_limit is None:
            return _Limits(sizes[0], size)
        number, is_relative = time_limit
        return _Limits(sizes[0], size, times, number * times.whole if is_relative else number)

    def chosen(self, added: np.ndarray, more_bytes: np.ndarray) -> np.ndarray:
        """The numbers of the layers' choices, so that the error is least.

        Args:
            added: (layers, choices), the error that each adds.
            more_bytes: int array (layers, choices), the bytes above those of the first.

        Returns:
            int array (layers,).

        Raises:
            ValueError: none hold the limits.
        """
        costs, most = [], []
        if self.size is not None:
            costs.append(more_bytes)
            most.append(max(self.size - self.least, 0.5))  # a limit of zero has no ratio to it
        if self.times is not None and self.time is not None:
            costs.append(np.stack([self.times.four, self.times.eight], axis=1))
            most.append(self.time - self.times.whole + float(self.times.eight.sum()))
        try:
            if min(most) <= 0:
                raise NothingFitsError
            return best_choice(added, np.array(costs), np.array(most))
        except NothingFitsError as error:
            assert self.times is not None, "with all weights in 4 bits the size holds"
            times, bytes_left = costs[-1], np.array(most[:1])
            fastest = times.argmin(axis=1) if self.size is None else best_choice(times, costs[0][None], bytes_left)
            within = "" if self.size is None else " within max_size"
            raise ValueError(
                f"max_latency, {self.time:.3g} ms, cannot be held{within}: the file takes {self.times.whole:.3g} ms "
                f"with all weights in 8 bits, and {self.times.total(fastest == 0):.3g} ms with the bits that are "
                f"fastest{within}. Raise it, or remove channels first (plan_channels(target_latency=...))."
            ) from error


def _parsed(max_latency: float | str) -> tuple[float, bool]:
    """A limit on the time: milliseconds, or a share of the file in 8 bits; and which of these."""
    try:
        if isinstance(max_latency, str):
            number, unit = parse_time(max_latency) or (0.0, "")
            is_valid = unit == "ms"
        else:
            check_number("max_latency", max_latency)
            number, is_valid = float(max_latency), max_latency > 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError(
            "max_latency must be a time such as '4 ms', or a number above 0, relative to the file with 8 bits; got "
            f"{max_latency!r}."
        )
    return number, not isinstance(max_latency, str)
