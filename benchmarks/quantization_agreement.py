"""How well `quantized_evaluation` says what a file returns: `quantization.py --agreement`."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import edgeprune as ep
from edgeprune import flavor
from edgeprune.measure import MicroError, MicroRuntime, Runtime
from edgeprune.measure.integer_reference import integer_reference, with_integer_dense
from edgeprune.output_capture import captured_output
from edgeprune.progress import track
from edgeprune.report.layer_outputs import computed_tensors
from edgeprune.text_table import text_table
from edgeprune.tflite.four_bits import with_eight_bit_weights

GOALS = {"xnnpack": 0.998, "reference": 0.997, "tflm": 0.997}
BY_OPERATOR_ON = 200  # samples
PAIRED_ON = 4


def agreement(model: Any, scheme: str, x: np.ndarray, tflm_samples: int) -> Iterator[dict[str, Any]]:
    """A row for each set of kernels: the classes that are the same, and the values that are not.

    Args:
        model: a quantization-aware model with one input and one output, trained.
        scheme: that it was trained for.
        x: samples.
        tflm_samples: how many of them to run on TFLM, which is slow.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        ep.export_tflite(model, path, scheme, x[:64], verify=False, verbose=False)
        step = next(iter(Runtime(path).outputs.values())).scale
        naive = model.predict(x, batch_size=100, verbose=0)
        for kernels in GOALS:
            with captured_output():
                exact = ep.quantized_evaluation(model, "xnnpack" if kernels == "xnnpack" else "reference")
            try:
                expected = file_outputs(path, kernels, x if kernels != "tflm" else x[:tflm_samples])
            except MicroError as error:
                yield {"kernels": kernels, "error": error.reason[-60:] or str(error)[:60]}
                continue
            count = len(expected)
            row = compared(exact.predict(x[:count], batch_size=100, verbose=0), expected, step)
            same_naive = float(np.mean(naive[:count].argmax(-1) == expected.argmax(-1)))
            operators = by_operator(exact, model, path, x[:BY_OPERATOR_ON]) if kernels == "reference" else {}
            yield {"kernels": kernels, "samples": count, **row, "same_class_naive": same_naive, "operators": operators}


def file_outputs(path: Path, kernels: str, x: np.ndarray) -> np.ndarray:
    """What a file returns on one set of kernels, as real values."""
    runtime = Runtime(path)
    (name,), (port,), (output,) = runtime.inputs, runtime.inputs.values(), runtime.outputs.values()
    if kernels == "xnnpack":
        return next(iter(runtime.run_all({name: x}, "XNNPACK").values()))
    if kernels == "reference":
        with integer_reference(path) as reference:
            return next(iter(reference.run_all({name: x}, "Reference").values()))
    micro, encoded = MicroRuntime(path), port.encode(x)
    return output.decode(np.concatenate([micro.run([one[None]])[0] for one in track(encoded, "TFLM")]))


def compared(values: np.ndarray, expected: np.ndarray, step: float) -> dict[str, float]:
    """How many classes are the same, and how many values are one step apart, and more than one."""
    apart = np.abs(np.rint((values - expected) / step))
    return {
        "same_class": float(np.mean(values.argmax(-1) == expected.argmax(-1))),
        "one_step": float(np.mean(apart == 1)),
        "more_steps": float(np.mean(apart > 1)),
    }


def by_operator(exact: Any, model: Any, path: Path, x: np.ndarray) -> dict[str, dict[str, float]]:
    """Values of the reference kernels that are one step apart from the evaluation's, and more, by operator.

    A tensor of the file is compared with that of the evaluation which is nearest on a few samples.
    """
    keras = flavor.keras_of(exact)
    probe = keras.Model(exact.inputs, [layer.output for layer in exact.layers])
    computed = [values.reshape(len(x), -1) for values in probe.predict(x, verbose=0)]
    rewritten = path.with_name("reference.tflite")
    rewritten.write_bytes(with_integer_dense(with_eight_bit_weights(path.read_bytes())))
    runtime = Runtime(rewritten, reference=True, keep_tensors=True)
    (port,) = runtime.inputs.values()
    tensors = [one for one in computed_tensors(runtime, model) if one.port.quantized]
    stored: dict[int, list[np.ndarray]] = defaultdict(list)
    for sample in port.encode(x):
        runtime.run([sample[None]])
        for one in tensors:
            stored[one.port.index].append(one.port.decode(runtime.output(one.port)).reshape(-1))
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for one in tensors:
        values = np.stack(stored[one.port.index])
        alike = [own for own in computed if own.shape == values.shape]
        nearest = min(alike, key=lambda own: np.abs(own[:PAIRED_ON] - values[:PAIRED_ON]).mean(), default=None)
        if nearest is not None and one.operator != "RESHAPE":
            found[one.operator].append(np.abs(np.rint((nearest - values) / one.port.scale)).ravel())
    return {
        operator: {
            "values": sum(map(len, apart)),
            "one_step": float(np.mean(np.concatenate(apart) == 1)),
            "more_steps": float(np.mean(np.concatenate(apart) > 1)),
        }
        for operator, apart in found.items()
    }


def agreement_table(rows: list[dict[str, Any]]) -> str:
    """All rows, beside the goals, and the operators."""
    lines, operators = [], []
    for row in rows:
        key = (row["net"], row["model"], row["kernels"])
        if "error" in row:
            lines.append((*key, "", row["error"], "", "", ""))
            continue
        goal = GOALS[row["kernels"]]
        verdict = f"{goal:.1%} {'met' if row['same_class'] >= goal else 'missed'}"
        shares = [f"{row[name]:.3%}" for name in ("same_class", "same_class_naive", "one_step", "more_steps")]
        lines.append((*key, f"{row['samples']:,}", *shares, verdict))
        operators += [
            (*key[:2], name, f"{one['values']:,}", f"{one['one_step']:.4%}", f"{one['more_steps']:.4%}")
            for name, one in row["operators"].items()
        ]
    heads = ("net", "model", "kernels", "samples", "same class", "fake quantizers", "1 step", "more", "goal")
    tables = [text_table(heads, lines, left=(0, 1, 2))]
    if operators:
        heads = ("net", "model", "operator, reference kernels", "values", "1 step", "more")
        tables.append(text_table(heads, operators, left=(0, 1, 2)))
    return "\n\n".join(tables)
