"""The bits of each layer's weights: 4 where little is lost, 8 where it pays, under a limit on the file's size.

plan = ep.plan_quantization(model, x[:200], max_size="40 kB")
print(plan)
ep.export_tflite(model, "model.tflite", plan.scheme, x[:200])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.plan.limits import parse_bytes
from edgeprune.conversion.plain import converted
from edgeprune.data.batches import samples_of
from edgeprune.data.named_arrays import named_arrays
from edgeprune.data.ports import input_shapes
from edgeprune.depth.bypass import walkable
from edgeprune.latency.allocation import Knapsack, Limit, allocate
from edgeprune.latency.cost import CostTerm
from edgeprune.progress import status
from edgeprune.quantization.fake_quantize import QuantizedLayerLogic, quantized_layers
from edgeprune.quantization.kinds import reads_four_bits
from edgeprune.quantization.simulated_file import SimulatedFile, outputs_of
from edgeprune.schemes import Scheme
from edgeprune.text_table import text_table
from edgeprune.tflite.four_bits import with_four_bit_weights
from edgeprune.types import DataLike, Model

_MORE = 0.1  # of the bytes of all weights in 4 bits, for layers that keep 8 where no size is passed


@dataclass(frozen=True)
class PlannedLayer:
    """The bits of a layer's weights.

    Attributes:
        name: its path name.
        weights: how many it has.
        bits: what was chosen, 4 or 8.
        added_error: what the error of the model's outputs grows by where this layer alone has 4 bits, as a share of
            their variance; None where no operator reads its weights in 4 bits.
    """

    name: str
    weights: int
    bits: int
    added_error: float | None


@dataclass(frozen=True)
class QuantizationPlan:
    """What `plan_quantization` returns.

    Attributes:
        scheme: what `export_tflite`, `round_weights` and `quantize_aware` accept.
        layers: the layers with kernels, in the order of the graph.
        size: the bytes of the file as the converter writes it; an export may differ by some hundred.
        sizes: the bytes with all weights in 4 bits, where operators read them, and in 8.
        max_size: the limit.
        error: of the simulated file's outputs, the mean squared error over their variance, weights at their nearest
            steps.
        errors: the same with all weights in 4 bits, and in 8.
        num_samples: how many samples it was measured on.
    """

    scheme: Scheme
    layers: tuple[PlannedLayer, ...]
    size: int
    sizes: tuple[int, int]
    max_size: int
    error: float
    errors: tuple[float, float]
    num_samples: int

    def __str__(self) -> str:
        """A table of the layers, and what the file comes to."""
        rows = [
            (one.name, f"{one.weights:,}", str(one.bits), "" if one.added_error is None else f"{one.added_error:.2%}")
            for one in self.layers
        ]
        table = text_table(("layer", "weights", "bits", "error added by 4 bits"), rows)
        files = [
            (name, f"{size:,}", f"{error:.2%}")
            for name, size, error in (
                ("all 4 bits", self.sizes[0], self.errors[0]),
                ("this plan", self.size, self.error),
                ("all 8 bits", self.sizes[1], self.errors[1]),
            )
        ]
        totals = text_table(("file", "bytes", "error of the outputs"), files)
        return "\n".join([f"{self.scheme}, at most {self.max_size:,} bytes", table, totals])

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        own = {name: value for name, value in vars(self).items() if name not in ("scheme", "layers")}
        return {"scheme": self.scheme.to_dict(), "layers": [vars(one) for one in self.layers], **own}


def plan_quantization(
    model: Model,
    data: DataLike,
    *,
    max_size: int | float | str | None = None,
    num_samples: int = 64,
) -> QuantizationPlan:
    """Choose the bits of each layer's weights, 4 or 8, by what 4 bits cost the model's outputs.

    Each layer is rounded to 4 bits alone, all others to 8, on a simulation of the file, and the error of the outputs is
    measured. Then the layers that gain most for their bytes keep 8 bits, as many as the size allows: a knapsack.
    Activations have 8 bits; the converter makes no files in which some have 16.

    Args:
        model: a built model of `keras` 3 or `tf_keras`, in floats. It is not changed.
        data: samples as the model meets them, in any form that `model.fit` accepts. Labels are not looked at.
        max_size: the bytes that the file may have: a number, a text such as `"256 kB"`, or a fraction below 1 of the
            file with 8 bits. Left out, the weights may have a tenth more bytes than with 4 bits each.
        num_samples: how many samples to use at most.

    Returns:
        The plan; pass `plan.scheme` to `export_tflite`.

    Raises:
        TypeError: `model` is no Keras model, the data are in no known form, or `max_size` is neither number nor text.
        ValueError: the model is not built, under pruning or quantization-aware, or cannot be followed or converted; the
            data do not fit it; or the file is larger than `max_size` with all weights in 4 bits.

    Example:
        >>> plan = plan_quantization(model, x)
        >>> sorted({layer.bits for layer in plan.layers}), plan.sizes[0] <= plan.size <= plan.max_size
        ([4, 8], True)
    """
    flavor.check_built_model(model)
    samples = samples_of(data, num_samples, inputs=input_shapes(model), source="The data")
    named = named_arrays("the model", input_shapes(model), samples)
    with status(f"Quantization of {model.name}") as say:
        measured = _Measured(model, named)
        added = measured.added_errors(say)
        say("Converting")
        wide = converted(model, "int8")
        sizes = len(with_four_bit_weights(wide, nearest=True)[0]), len(wide)
        most = _most(max_size, sizes, int(_MORE * measured.saved.sum()))
        keeps = _kept(added, measured.saved, most - sizes[0])
        error = measured.error(~keeps)
    return QuantizationPlan(
        scheme=measured.scheme(keeps),
        layers=measured.layers(keeps, added),
        size=sizes[0] + int(measured.saved[keeps].sum()),
        sizes=sizes,
        max_size=most,
        error=error,
        errors=(measured.all_four, measured.all_eight),
        num_samples=len(next(iter(named.values()))),
    )


def with_wider_layers(model: Model, samples: Mapping[str, np.ndarray]) -> Scheme:
    """A scheme of 4 bits in which the layers that gain most by it keep 8, as many as add a tenth to the weights.

    Args:
        model: a float model.
        samples: input name to samples `(samples, ...)`.

    Raises:
        ValueError: as `plan_quantization`.
    """
    measured = _Measured(model, samples)
    keeps = _kept(measured.added_errors(), measured.saved, int(_MORE * measured.saved.sum()))
    return measured.scheme(keeps)


class _Measured:
    """A simulated file, layers of which have 4 bits or 8.

    Attributes:
        all_eight, all_four: the errors of the outputs where all have 8 bits, and where all have 4 that can.
        saved: int array, the bytes that each layer that can have 4 bits has less by them.
    """

    def __init__(self, model: Model, samples: Mapping[str, np.ndarray]) -> None:
        self._samples, self._wanted = samples, outputs_of(walkable(model), samples)
        self._file = SimulatedFile(model, Scheme(4, 8), samples)
        self._all = quantized_layers(self._file.model)
        self._free = [one for one in self._all if reads_four_bits(one.layer)]
        self._names = _names(self._file.model, self._all)
        self.saved = np.array([_count(one) // 2 for one in self._free], int)
        self.all_eight, self.all_four = (self.error(np.full(len(self._free), one)) for one in (False, True))

    def error(self, narrow: np.ndarray) -> float:
        """The error of the outputs where these layers have 4 bits: bool array, for each that can."""
        for one in self._all:
            one.num_bits = 8
        for one, is_narrow in zip(self._free, narrow, strict=True):
            one.num_bits = 4 if is_narrow else 8
        return self._file.error(self._samples, self._wanted)

    def added_errors(self, say: Callable[[str], None] = lambda text: None) -> np.ndarray:
        """What the error grows by where one layer alone has 4 bits, for each that can."""
        added = []
        for number in range(len(self._free)):
            say(f"Measuring layer {number + 1} of {len(self._free)}")
            added.append(max(self.error(np.arange(len(self._free)) == number) - self.all_eight, 0.0))
        return np.array(added)

    def scheme(self, keeps: np.ndarray) -> Scheme:
        """4 bits, but for the layers that keep 8: bool array, for each that can have 4."""
        kept = (one for one, is_kept in zip(self._free, keeps, strict=True) if is_kept)
        return Scheme(4, 8, layers={self._names[id(one)]: 8 for one in kept})

    def layers(self, keeps: np.ndarray, added: np.ndarray) -> tuple[PlannedLayer, ...]:
        """All layers with kernels."""
        errors = dict(zip(map(id, self._free), added.tolist(), strict=True))
        narrow = {id(one) for one, is_kept in zip(self._free, keeps, strict=True) if not is_kept}
        return tuple(
            PlannedLayer(self._names[id(one)], _count(one), 4 if id(one) in narrow else 8, errors.get(id(one)))
            for one in self._all
        )


def _names(model: Model, wrappers: Sequence[QuantizedLayerLogic]) -> dict[int, str]:
    """By `id` of a layer that rounds kernels the path name of the layer in it, in the float model."""
    names = flavor.layer_names(model)
    return {id(one): names[id(one)].removesuffix(one.name) + one.layer.name for one in wrappers}


def _count(wrapper: QuantizedLayerLogic) -> int:
    return sum(int(np.prod(getattr(wrapper.layer, name).shape)) for name in wrapper.kernel_axes)


def _most(max_size: int | float | str | None, sizes: tuple[int, int], more: int) -> int:
    """The limit in bytes."""
    if max_size is None:
        most = sizes[0] + more
    elif isinstance(max_size, float) and 0 < max_size < 1:
        most = int(max_size * sizes[1])
    else:
        most = parse_bytes("max_size", max_size) or 0
    if most < sizes[0]:
        raise ValueError(
            f"max_size={max_size!r} cannot be held: with all weights in 4 bits the file has {sizes[0]:,} bytes, in 8 "
            f"bits {sizes[1]:,}. Raise it, or remove channels first (plan_channels(max_flash=...))."
        )
    return most


def _kept(added: np.ndarray, saved: np.ndarray, spare: int) -> np.ndarray:
    """Which layers keep 8 bits: those whose 4 bits would add most error, for so many bytes more.

    Args:
        added: (layers,), the errors.
        saved: int array (layers,), the bytes that 4 bits save.
        spare: the bytes that may be kept of them.
    """
    lines = range(len(added))
    terms = [CostTerm((line,), lambda counts: np.asarray(counts, float)) for line in lines]
    chosen = allocate(
        Knapsack(
            values=[np.array([0.0, one]) for one in added],
            adds=[{line: np.array([0, saved[line]])} for line in lines],
            fixed=np.zeros(len(added), int),
            limits=[Limit(max(spare, 0.5), terms)],  # a limit of zero has no ratio to it
        )
    )
    return np.asarray(chosen) == 1
