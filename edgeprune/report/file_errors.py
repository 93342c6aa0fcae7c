"""Where a quantized file departs from its Keras model: layer by layer, on the same samples.

report = ep.quantization_error(model, "model.tflite", x[:50])
print(report)
report.plot()
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeprune import flavor
from edgeprune.conversion.signature import signature_specs
from edgeprune.data.tensors import input_tensors
from edgeprune.export.convert import export_tflite
from edgeprune.export.representative import samples
from edgeprune.measure.predictions import samples_for_file
from edgeprune.number_checks import check_whole
from edgeprune.output_capture import captured_output
from edgeprune.progress import track
from edgeprune.report.layer_outputs import ComputedTensor, LayerOutput, computed_tensors, paired, run_recorded
from edgeprune.report.plots import plot_decibels
from edgeprune.schemes import QUANTIZATIONS, Scheme, scheme_of
from edgeprune.text_table import text_table
from edgeprune.tflite.edit import segment
from edgeprune.tflite.file import read_tflite, tflite_bytes
from edgeprune.tflite.runtime import Port, Runtime
from edgeprune.types import DataLike, Model, PathLike, Quantization

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BROKEN = 10.0  # dB: noise a tenth as strong as the signal
_TO_PAIR = 4  # samples


@dataclass(frozen=True)
class LayerComparison:
    """One layer: what it returns in Keras, beside the tensor of the file that holds the same.

    Attributes:
        layer: the path name of the layer.
        kind: its class, or the name of a function in the graph.
        operator: the operator of the file.
        tensor: the tensor's name in the file.
        dtype: the type that the file stores it in.
        signal_to_noise: dB; the power of Keras's values over that of the differences. None where they are equal. In
            int8 about 35 to 45 are usual; each 6 less are a bit lost.
        own_signal_to_noise: the same for the layer alone: the file's operators on Keras's values of the layers before.
            None where it was not asked for, or the values are equal.
        bias: the mean difference, file minus Keras, over the standard deviation of Keras's values.
        mean_error: the mean of the magnitudes of the differences.
        largest_error: the largest of them.
        range_used: how many of the steps that the type has lie between the smallest and the largest value that
            occurred, from 0 to 1; None where the file has floats.
        saturated: the share of Keras's values that are outside of what the file can store; None for floats.
    """

    layer: str
    kind: str
    operator: str
    tensor: str
    dtype: str
    signal_to_noise: float | None
    own_signal_to_noise: float | None
    bias: float
    mean_error: float
    largest_error: float
    range_used: float | None
    saturated: float | None


@dataclass(frozen=True)
class QuantizationErrorReport:
    """What `quantization_error` returns.

    Attributes:
        path: the file; None where it was made for the report alone.
        quantization: how it computes.
        samples: how many samples were compared.
        layers: the layers, in the order in which they are computed. Those that are inside an operator with the next
            one are left out, as a convolution before its ReLU.
    """

    path: Path | None
    quantization: str | None
    samples: int
    layers: tuple[LayerComparison, ...]

    @property
    def breaks_first(self) -> LayerComparison | None:
        """The first layer with a signal-to-noise ratio below 10 dB; None where there is none."""
        return next((row for row in self.layers if _decibels(row) < BROKEN), None)

    @property
    def largest_loss(self) -> LayerComparison | None:
        """The layer at which the signal-to-noise ratio falls most below the lowest before it; None without layers."""
        lowest, losses = 50.0, []  # what the input's own rounding in int8 leaves
        for row in self.layers:
            losses.append((lowest - _decibels(row), row))
            lowest = min(lowest, _decibels(row))
        return max(losses, key=lambda pair: pair[0])[1] if losses else None

    def __str__(self) -> str:
        """A table, a row for each layer, and the layer to look at."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.path or 'A file'} ({self.quantization or 'float32'}) beside Keras, {self.samples} samples"
        header = ("layer", "operator", "type", "dB", "own dB", "bias", "mean error", "largest", "range used", "outside")
        yield text_table(header, [_cells(row) for row in self.layers], left=(0, 1, 2))
        worst = self.breaks_first
        if worst is not None:
            yield f"First layer below {BROKEN:g} dB: {worst.layer!r} ({worst.kind}), {_decibels(worst):.1f} dB"
        elif self.largest_loss is not None:
            yield f"No layer is below {BROKEN:g} dB; most is lost at {self.largest_loss.layer!r}."

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        return {
            "file": None if self.path is None else str(self.path),
            "quantization": self.quantization,
            "samples": self.samples,
            "breaks_first": self.breaks_first and self.breaks_first.layer,
            "largest_loss": self.largest_loss and self.largest_loss.layer,
            "layers": [asdict(row) for row in self.layers],
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the signal-to-noise ratio of each layer.

        Args:
            ax: matplotlib axes to draw on; new ones where left out.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: no layer was compared.
        """
        title = f"{self.quantization or 'float32'} file beside Keras"
        rows = self.layers
        return plot_decibels([row.layer for row in rows], [row.signal_to_noise for row in rows], title, BROKEN, ax)


def quantization_error(
    model: Model,
    file_or_scheme: PathLike | Quantization | Scheme,
    data: DataLike,
    *,
    num_samples: int = 50,
    own: bool = False,
) -> QuantizationErrorReport:
    """Compare a .tflite file with its Keras model layer by layer, on the same samples.

    Each layer's output in Keras is held beside the tensor of the file, whose error has accumulated up to there.

    Args:
        model: the Keras model (`keras` 3 or `tf_keras`) that the file was converted from: Functional, Sequential, or
            subclassed with a call that can be made on symbolic inputs.
        file_or_scheme: the file; or a quantization, `"int8"`, `"int16x8"`, `"dynamic"`, `"float16"` or a `Scheme`, for
            which the model is converted, calibrated on the same data.
        data: samples, as `export_tflite` accepts them as `representative_data`.
        num_samples: how many to compare at most, 1 or more.
        own: whether each layer is also run alone, on Keras's values of the layers before, so that its own error is
            apart from what has accumulated. A file is cut for each layer, which takes long for large models.

    Returns:
        The figures of each layer; they print as a table and plot as bars.

    Raises:
        TypeError: an argument is of another type than stated.
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, does not run, or was converted from another model; the data do not fit; or the
            model's call cannot be followed.

    Example:
        >>> report = quantization_error(model, "int8", x)
        >>> [row.layer for row in report.layers]
        ['stem', 'conv', 'pool', 'head']
        >>> report.breaks_first is None
        True
    """
    from edgeprune import strip  # imports TensorFlow

    flavor.check_model(model)
    flavor.check_built(model)
    check_whole("num_samples", num_samples, 1)
    model = strip.without_pruning(model)
    scheme = _scheme_in(file_or_scheme)
    if scheme is None:
        return _compared(model, Path(cast(str, file_or_scheme)), data, num_samples, own)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        # The layers of an equalized model are others than the model's.
        export_tflite(
            model,
            path,
            scheme,
            data,
            num_samples=max(num_samples, 100),
            calibration="min-max",
            verify=False,
            verbose=False,
        )
        return _compared(model, path, data, num_samples, own, made=True)


def _scheme_in(file_or_scheme: PathLike | Quantization | Scheme) -> Scheme | None:
    """The scheme, where one was passed rather than a file."""
    if isinstance(file_or_scheme, Scheme):
        return file_or_scheme
    return scheme_of(str(file_or_scheme)) if file_or_scheme in QUANTIZATIONS else None


def _compared(
    model: Model, path: Path, data: DataLike, num_samples: int, alone: bool, made: bool = False
) -> QuantizationErrorReport:
    x = samples(data, signature_specs(model), num_samples)
    with captured_output():
        runtime = Runtime(path, keep_tensors=True)
    # The only input needs no name: a model that was rebuilt or loaded may have another than the file.
    given = samples_for_file(runtime, model, x if len(x) > 1 else next(iter(x.values())))
    encoded = {name: port.encode(given[name]) for name, port in runtime.inputs.items()}
    walked = model if flavor.is_graph_model(model) else flavor.functional_stand_in(model)
    names = flavor.layer_names(model)
    count = len(next(iter(x.values())))

    def in_keras(number: int) -> list[tuple[LayerOutput, np.ndarray]]:
        with flavor.computing_in_float32(model):
            return run_recorded(
                walked, input_tensors(walked, {name: x[name][number : number + 1] for name in x}), names
            )

    def in_file(number: int, tensors: Sequence[ComputedTensor]) -> list[tuple[ComputedTensor, np.ndarray]]:
        runtime.run([values[number : number + 1] for values in encoded.values()])
        return [(tensor, runtime.output(tensor.port)) for tensor in tensors]

    pairs = _pairs(model, runtime, in_keras, in_file, min(count, _TO_PAIR))
    if not pairs:
        raise ValueError(f"No layer of {model.name!r} is in {path}: it was converted from another model.")
    sums = [_Sums(tensor.port) for _, tensor in pairs]
    for number in track(range(count), f"Comparing {path.name}"):
        outputs = {output.number: values for output, values in in_keras(number)}
        stored = in_file(number, [tensor for _, tensor in pairs])
        for (output, _), (_, values), own in zip(pairs, stored, sums, strict=True):
            own.add(outputs[output.number], values)
    rows = [own.row(output, tensor) for own, (output, tensor) in zip(sums, pairs, strict=True)]
    if alone:
        noises = _alone(runtime, pairs, in_keras, encoded, count)
        rows = [dataclasses.replace(row, own_signal_to_noise=own) for row, own in zip(rows, noises, strict=True)]
    return QuantizationErrorReport(None if made else path, read_tflite(path).quantization, count, tuple(rows))


def _alone(
    runtime: Runtime,
    pairs: Sequence[tuple[LayerOutput, ComputedTensor]],
    in_keras: Callable[[int], list[tuple[LayerOutput, np.ndarray]]],
    encoded: Mapping[str, np.ndarray],
    count: int,
) -> list[float | None]:
    """Each layer's own signal-to-noise ratio: its operators on the values that Keras has before it."""
    content = tflite_bytes(runtime.path)
    of_tensor = {tensor.port.index: (output, tensor.port) for output, tensor in pairs}
    of_input = {port.index: encoded[name] for name, port in runtime.inputs.items()}
    sums = [_Sums(tensor.port) for _, tensor in pairs]
    with tempfile.TemporaryDirectory() as folder, captured_output():
        parts: list[tuple[Runtime, list[int]]] = []
        for _, tensor in pairs:
            cut, taken = segment(content, set(of_tensor) - {tensor.port.index}, tensor.port.index)
            path = Path(folder) / f"{len(parts)}.tflite"
            path.write_bytes(cut)
            # The file was tried out whole, on the same kernels.
            parts.append((Runtime(path, use_xnnpack=False, isolated=False), taken))
        for number in range(count):
            keras = {output.number: values for output, values in in_keras(number)}

            def value(index: int, number: int = number, keras: Mapping[int, np.ndarray] = keras) -> np.ndarray:
                if index in of_input:
                    return of_input[index][number : number + 1]
                output, port = of_tensor[index]
                return port.encode(keras[output.number].reshape(port.shape))

            for (part, taken), (output, _), own in zip(parts, pairs, sums, strict=True):
                (made,) = part.run([value(index) for index in taken])
                own.add(keras[output.number], made)
    return [own.row(output, tensor).signal_to_noise for own, (output, tensor) in zip(sums, pairs, strict=True)]


def _pairs(
    model: Model,
    runtime: Runtime,
    in_keras: Callable[[int], list[tuple[LayerOutput, np.ndarray]]],
    in_file: Callable[[int, Sequence[ComputedTensor]], list[tuple[ComputedTensor, np.ndarray]]],
    count: int,
) -> list[tuple[LayerOutput, ComputedTensor]]:
    """Which tensor belongs to which layer, by the names and by the values of a few samples."""
    tensors = computed_tensors(runtime, model)
    outputs = [in_keras(number) for number in range(count)]
    stored = [in_file(number, tensors) for number in range(count)]
    joined_outputs = [
        (output, np.concatenate([own[place][1].reshape(1, -1) for own in outputs]))
        for place, (output, _) in enumerate(outputs[0])
    ]
    joined_stored = [
        (tensor, np.concatenate([tensor.port.decode(own[place][1]).reshape(1, -1) for own in stored]))
        for place, tensor in enumerate(tensors)
    ]
    return paired(joined_outputs, joined_stored)


class _Sums:
    """The sums over all samples that the figures of one layer are made of."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._count = 0
        self._signal = self._noise = self._offset = self._magnitude = self._sum = self._largest = 0.0
        self._outside = 0
        self._smallest_step, self._largest_step = math.inf, -math.inf
        if port.quantized:
            limits = np.iinfo(port.dtype)
            self._low = (limits.min - port.zero_point - 0.5) * port.scale
            self._high = (limits.max - port.zero_point + 0.5) * port.scale
            self._steps = limits.max - limits.min

    def add(self, keras: np.ndarray, stored: np.ndarray) -> None:
        """Add one sample: the values in Keras and those that the file stores."""
        values = keras.reshape(-1).astype(np.float64)
        difference = self._port.decode(stored).reshape(-1).astype(np.float64) - values
        self._count += values.size
        self._sum += float(values.sum())
        self._signal += float(np.square(values).sum())
        self._noise += float(np.square(difference).sum())
        self._offset += float(difference.sum())
        self._magnitude += float(np.abs(difference).sum())
        self._largest = max(self._largest, float(np.abs(difference).max(initial=0.0)))
        if self._port.quantized:
            self._outside += int(np.count_nonzero((values < self._low) | (values > self._high)))
            self._smallest_step = min(self._smallest_step, float(stored.min()))
            self._largest_step = max(self._largest_step, float(stored.max()))

    def row(self, output: LayerOutput, tensor: ComputedTensor) -> LayerComparison:
        """The figures."""
        quantized = self._port.quantized
        spread = math.sqrt(max(self._signal / self._count - (self._sum / self._count) ** 2, 0.0))
        return LayerComparison(
            layer=output.layer,
            kind=output.kind,
            operator=tensor.operator,
            tensor=tensor.port.name,
            dtype=str(tensor.port.dtype),
            signal_to_noise=_ratio_in_decibels(self._signal, self._noise),
            own_signal_to_noise=None,
            bias=self._offset / self._count / spread if spread else 0.0,
            mean_error=self._magnitude / self._count,
            largest_error=self._largest,
            range_used=(self._largest_step - self._smallest_step) / self._steps if quantized else None,
            saturated=self._outside / self._count if quantized else None,
        )


def _ratio_in_decibels(signal: float, noise: float) -> float | None:
    """None where there is no noise; where there is no signal, as low as a figure is printed."""
    return None if noise == 0 else max(10 * math.log10(max(signal, 1e-300) / noise), -100.0)


def _decibels(row: LayerComparison) -> float:
    return math.inf if row.signal_to_noise is None else row.signal_to_noise


def _cells(row: LayerComparison) -> list[str]:
    return [
        f"{row.layer} ({row.kind})",
        row.operator,
        row.dtype,
        "equal" if row.signal_to_noise is None else f"{row.signal_to_noise:.1f}",
        "" if row.own_signal_to_noise is None else f"{row.own_signal_to_noise:.1f}",
        f"{row.bias:+.3f}",
        f"{row.mean_error:.3g}",
        f"{row.largest_error:.3g}",
        "" if row.range_used is None else f"{row.range_used:.0%}",
        "" if row.saturated is None else f"{row.saturated:.2%}",
    ]
