"""What a file takes that stores weights without their zeros, as it lies on a device and as it travels.

    python benchmarks/sparse_files.py

ResNet-8 with random weights, of which the smallest of each convolution are zero; dense and sparse files in float32 and
int8. Figures go to benchmarks/out/sparse_files.json too.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import edgeprune as ep
from edgeprune import flavor
from edgeprune.measure.size import compressed_size
from edgeprune.models import resnet8
from edgeprune.progress import track

OUT = Path(__file__).parent / "out"
ZEROS = (0.5, 0.7, 0.8, 0.9)
FORMATS = (None, "int8")
CALIBRATED_ON = 20


def with_zeros(fraction: float) -> Any:
    """The net, with this fraction of each convolution's weights zero."""
    flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(0)
    model = resnet8()
    for layer in model.layers:
        if type(layer).__name__ == "Conv2D":
            size = np.abs(layer.kernel)
            layer.kernel.assign(np.where(size < np.quantile(size, fraction), 0, layer.kernel))
    return model


def measure() -> list[dict[str, Any]]:
    samples = np.random.default_rng(0).random((CALIBRATED_ON, 28, 28, 1), np.float32)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for fraction in track(ZEROS, "Exporting"):
            model = with_zeros(fraction)
            for quantization in FORMATS:
                row: dict[str, Any] = {"zeros": fraction, "format": quantization or "float32"}
                for name, sparse in (("dense", False), ("sparse", True)):
                    path = Path(folder) / "model.tflite"
                    ep.export_tflite(model, path, quantization, samples, sparse=sparse, overwrite=True, verbose=False)
                    row[name] = compressed_size(path).to_dict()
                rows.append(row)
    return rows


def main() -> None:
    OUT.mkdir(exist_ok=True)
    rows = measure()
    (OUT / "sparse_files.json").write_text(json.dumps(rows, indent=1))
    print("| Zeros | Format | Dense | gzip'd | zstd | Sparse | gzip'd | zstd |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        sizes = [
            f"{row[name][size]:,}" for name in ("dense", "sparse") for size in ("bytes", "gzip_bytes", "zstd_bytes")
        ]
        print(f"| {row['zeros']:.0%} | {row['format']} | {' | '.join(sizes)} |")


if __name__ == "__main__":
    main()
