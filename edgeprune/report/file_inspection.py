"""What a .tflite file holds, read from its bytes: nothing is run, so nothing is said of whether it works.

print(inspect_tflite("model.tflite"))
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.measure.macs import MacCount, count_macs_of_file
from edgeprune.measure.size import FileSize, file_size
from edgeprune.text_table import text_table
from edgeprune.tflite.file import PortTensor, read_tflite, tflite_bytes
from edgeprune.tflite.float_islands import FloatIsland, float_islands
from edgeprune.tflite.metadata import ModelMetadata, TensorMetadata, read_metadata
from edgeprune.tflite.tensors import ConstantTensor


@dataclass(frozen=True)
class FileInspection:
    """What a .tflite file holds. Prints as tables.

    Attributes:
        path: the file.
        size: its bytes, raw and gzip'd.
        quantization: how it computes; None for float32.
        inputs: its inputs, in the file's order.
        outputs: its outputs.
        operators: how often each operator occurs, the most frequent first.
        custom_operators: those that are no builtins.
        float_islands: the float operators between integer ones.
        macs: multiply-accumulates of one run.
        stateful: whether it keeps values from one run to the next.
        weights: the tensors that hold parameters.
        metadata: the name, the author, the labels and so on; None where the file has none.
        metadata_problem: why the metadata cannot be read; empty where they can.
        associated_files: the names of the files packed behind it, such as labels, with their bytes.
    """

    path: Path
    size: FileSize
    quantization: str | None
    inputs: tuple[PortTensor, ...]
    outputs: tuple[PortTensor, ...]
    operators: dict[str, int]
    custom_operators: tuple[str, ...]
    float_islands: tuple[FloatIsland, ...]
    macs: MacCount
    stateful: bool
    weights: tuple[ConstantTensor, ...]
    metadata: ModelMetadata | None
    metadata_problem: str
    associated_files: dict[str, int]

    @property
    def parameters(self) -> int:
        """Number of values of all weights."""
        return sum(tensor.elements for tensor in self.weights)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(tensor.zeros for tensor in self.weights)

    def __str__(self) -> str:
        """Figures, inputs and outputs, operators, weights, metadata."""
        return "\n".join(_report(self))

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        return {
            "file": str(self.path),
            **self.size.to_dict(),
            "quantization": self.quantization,
            "inputs": [asdict(port) for port in self.inputs],
            "outputs": [asdict(port) for port in self.outputs],
            "operators": self.operators,
            "custom_operators": list(self.custom_operators),
            "float_islands": [asdict(island) for island in self.float_islands],
            "macs": self.macs.to_dict(),
            "stateful": self.stateful,
            "parameters": self.parameters,
            "zeros": self.zeros,
            "weights": [tensor.to_dict() for tensor in self.weights],
            "metadata": self.metadata and asdict(self.metadata),
            "metadata_problem": self.metadata_problem,
            "associated_files": self.associated_files,
        }


def inspect_tflite(path: str | Path) -> FileInspection:
    """List what a .tflite file holds: inputs, outputs, operators, weights and their zeros, sizes, metadata.

    Args:
        path: the file. It is treated as untrusted, and is read but not run: `verify_tflite` runs it.

    Returns:
        The file's description of itself.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `path` is neither text nor a path.
        ValueError: the file is no .tflite file, is cut short, or contradicts itself.

    Example:
        >>> inspect_tflite("model.tflite").inputs[0].shape
        (1, 8, 8, 1)
    """
    file = read_tflite(path)
    metadata, problem = None, ""
    try:
        metadata = read_metadata(path)
    except ValueError as error:
        problem = str(error)
    return FileInspection(
        path=file.path,
        size=file_size(path),
        quantization=file.quantization,
        inputs=file.inputs,
        outputs=file.outputs,
        operators=file.operator_counts,
        custom_operators=file.custom_operators,
        float_islands=float_islands(tflite_bytes(path)),
        macs=count_macs_of_file(path),
        stateful=file.stateful,
        weights=file.weights,
        metadata=metadata,
        metadata_problem=problem,
        associated_files=_associated_files(file.path),
    )


def _associated_files(path: Path) -> dict[str, int]:
    """The files of the archive behind a model, by their names; what is no archive has none."""
    with contextlib.suppress(zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry.file_size for entry in archive.infolist()}
    return {}


def _report(file: FileInspection) -> Iterator[str]:
    yield f"{file.path}"
    yield f"  size          {file.size}"
    yield f"  quantization  {file.quantization or 'none (float32)'}"
    uncounted = f" (not counted: {', '.join(file.macs.uncounted)})" if file.macs.uncounted else ""
    yield f"  MACs          {file.macs.total:,}{uncounted}"
    share = f", {file.zeros / file.parameters:.1%} zeros" if file.parameters else ""
    yield f"  parameters    {file.parameters:,}{share}"
    if file.stateful:
        yield "  state         kept from one run to the next"
    yield from (f"  float island  {island}" for island in file.float_islands)
    yield from _metadata_lines(file)
    yield ""
    rows = [("input", *_port_cells(port)) for port in file.inputs]
    rows += [("output", *_port_cells(port)) for port in file.outputs]
    yield text_table(("", "name", "shape", "type", "scale", "zero point"), rows, left=(0, 1, 2, 3))
    yield ""
    custom = set(file.custom_operators)
    counts = [(name, f"{count:,}", "custom" if name in custom else "") for name, count in file.operators.items()]
    yield text_table(("operator", "count", ""), counts, left=(0, 2))
    if file.weights:
        yield ""
        yield text_table(
            ("weights", "shape", "type", "bytes", "zeros"),
            [
                (tensor.name, _shape(tensor.shape), _type(tensor), f"{tensor.bytes:,}", f"{tensor.sparsity:.1%}")
                for tensor in file.weights
            ],
            left=(0, 1, 2),
        )


def _metadata_lines(file: FileInspection) -> Iterator[str]:
    if file.metadata_problem:
        yield f"  metadata      not readable: {file.metadata_problem}"
    elif file.metadata is None:
        yield "  metadata      none"
    else:
        for field in ("name", "description", "version", "author", "license"):
            if text := getattr(file.metadata, field):
                yield f"  {field:<12}  {text}"
        for kind, entries in (("input", file.metadata.inputs), ("output", file.metadata.outputs)):
            yield from (f"  {kind:<12}  {_tensor_words(entry)}" for entry in entries)
    if file.associated_files:
        files = (f"{name} ({size:,} bytes)" for name, size in file.associated_files.items())
        yield f"  files in it   {', '.join(files)}"


def _tensor_words(entry: TensorMetadata) -> str:
    """What metadata say of one input or output, in a line."""
    kinds = ("description", "units", "image", "mean", "std", "minimum", "maximum")
    said = [(kind, value) for kind in kinds if (value := getattr(entry, kind))]
    words = [f"{kind} {value if isinstance(value, str) else ' '.join(f'{n:g}' for n in value)}" for kind, value in said]
    labels = [f"{len(entry.labels)} labels"] if entry.labels else []
    return ", ".join([entry.name, *words, *labels])


def _port_cells(port: PortTensor) -> tuple[str, ...]:
    quantized = port.scale is not None
    figures = (f"{port.scale:.6g}", f"{port.zero_point}") if quantized else ("", "")
    return port.name, _shape(port.shape), port.dtype, *figures


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join("?" if size < 0 else str(size) for size in shape) or "one value"


def _type(tensor: ConstantTensor) -> str:
    return f"{tensor.dtype}{', sparse' if tensor.sparse else ''}"
