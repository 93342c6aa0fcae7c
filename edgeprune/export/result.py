"""What `export_tflite` returns: the file that was written, and what was measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.export.verify import Verification


@dataclass(frozen=True)
class ExportResult:
    """A .tflite file that was written.

    Attributes:
        path: the file.
        quantization: `None` (float32), `"dynamic"`, `"float16"`, `"int8"`, `"int16x8"` or `"int4"`.
        sparse: whether weights are stored without their zeros.
        bytes: the file's size.
        gzip_bytes: its size after gzip at level 9.
        inputs: the names of its inputs, in the model's order.
        outputs: the names of its outputs, in the model's order.
        notes: what the user should know, a sentence each.
        verification: what was measured on the file; `None` if it was not requested or cannot run here, as where
            operators are outside LiteRT.
    """

    path: Path
    quantization: str | None
    sparse: bool
    bytes: int
    gzip_bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    verification: Verification | None

    def __str__(self) -> str:
        """The file, its size, how it compares with the model, and the notes."""
        kind = f"{self.quantization or 'float32'}{', sparse' if self.sparse else ''}"
        lines = [f"{self.path} ({kind}): {self.bytes:,} bytes ({self.gzip_bytes:,} gzip'd)"]
        if self.verification is not None:
            for output in self.verification.outputs:
                same = "" if output.agreement is None else f", same class {output.agreement:.1%}"
                lines.append(
                    f"  output {output.name!r}: largest error {output.largest_error:.3g}, "
                    f"mean {output.mean_error:.3g}{same} ({self.verification.samples} samples)"
                )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return {
            "file": str(self.path),
            "quantization": self.quantization,
            "sparse": self.sparse,
            "bytes": self.bytes,
            "gzip_bytes": self.gzip_bytes,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "notes": list(self.notes),
            "verification": self.verification and self.verification.to_dict(),
        }
