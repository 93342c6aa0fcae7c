"""Write a folder that an application developer can use as it is: the model, the code that calls it, and the figures.

    bundle = ep.export_bundle(model, "bundle", target="cortex-m", representative_data=x_train[:100], labels=labels)
    print(bundle)

Each kind of target has a writer; what they share (checks, conversion, proof, model card, whole or nothing) is here.
"""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune import __version__, flavor, strip
from edgeprune.atomic import atomic_folder, check_folder
from edgeprune.bundle.content import BundleContent, Preprocessing, identifier, raw_samples_note
from edgeprune.bundle.exported_file import exported_file
from edgeprune.bundle.manifest import write_manifest, written_files
from edgeprune.bundle.rendering import render
from edgeprune.conversion.converter_run import ConverterSettings
from edgeprune.conversion.known_values import random_samples
from edgeprune.data.batches import DATA_FORMS, joined, sample_count
from edgeprune.data.labels import shape_fits
from edgeprune.data.named_arrays import named_arrays
from edgeprune.export import representative, vocabulary_files
from edgeprune.export.calibration_choice import check_calibration
from edgeprune.export.convert import ValidationData
from edgeprune.export.prepared import PreparedModel, prepare
from edgeprune.export.sample_ranges import difference_notes
from edgeprune.export.verify import Verification
from edgeprune.measure.metrics import MetricLike
from edgeprune.measure.score import score_lines, scores_to_dict
from edgeprune.progress import status
from edgeprune.schemes import CALIBRATED, Scheme, scheme_of
from edgeprune.targets import Target
from edgeprune.targets import target as target_named
from edgeprune.tflite.runtime import Port
from edgeprune.types import Calibration, DataLike, Model, Quantization

MODEL_CARD = "model_card.json"
GOLDEN_SAMPLES = 8
_WRITERS = {
    "phone": "edgeprune.bundle.phone",
    "computer": "edgeprune.bundle.computer",
    "microcontroller": "edgeprune.bundle.microcontroller",
    "npu": "edgeprune.bundle.npu",
}


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written.

    Attributes:
        directory: its folder.
        target: the device it is for.
        files: what is in it, relative to the folder, sorted.
        verification: what was measured on the file with the LiteRT interpreter, beside the Keras model.
        figures: what was measured for the target, as in `model_card.json`.
        notes: what the user should know, a sentence each.
    """

    directory: Path
    target: Target
    files: tuple[str, ...]
    verification: Verification
    figures: dict[str, Any]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The folder, its figures, its files and the notes."""
        lines = [f"{self.directory} for {self.target.name} ({self.target.description})"]
        lines += [f"  {text}" for text in _figure_lines(self.figures)]
        lines += [f"  {line}" for line in score_lines(self.verification.score_stages)]
        lines.append(f"  files: {', '.join(self.files)}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """The bundle as plain values, for JSON."""
        return {
            "directory": str(self.directory),
            "target": self.target.name,
            "files": list(self.files),
            "figures": self.figures,
            "notes": list(self.notes),
            "verification": self.verification.to_dict(),
        }


def export_bundle(
    model: Model,
    directory: str | Path,
    target: str | Target = "phone",
    representative_data: DataLike | None = None,
    *,
    labels: Iterable[str] | None = None,
    validation_data: DataLike | None = None,
    metric: MetricLike | None = None,
    preprocessing: Preprocessing | None = None,
    quantization: Quantization | Literal["default"] | Scheme | None = "default",
    sparse: bool = False,
    integer_io: bool | Literal["int8", "uint8"] = True,
    per_channel_dense: bool | None = None,
    calibration: Calibration = "auto",
    without_preprocessing: bool = False,
    name: str | None = None,
    author: str = "",
    version: str = "1",
    description: str = "",
    overwrite: bool = False,
) -> Bundle:
    """Export a Keras model for a device: the .tflite file, proven on its runtime, and the code that calls it.

    The folder is written whole or not at all.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. Pruning is ended first where it carries any.
        directory: the folder to write.
        target: a name in `edgeprune.targets.TARGETS`, or a custom target.
        representative_data: samples of what the model will see, as `export_tflite` accepts them; needed where the file
            is calibrated, which is the default of every target but `"phone-gpu"`. A few of them become golden vectors.
        labels: the classes' names, in the order of the model's output.
        validation_data: labelled data, for the scores in the model card: `(x, y)` or `(x, y, sample_weight)`, or
            batches of them in any form that `representative_data` may have; `x` alone for an autoencoder.
        metric: what to score by instead of the compiled metrics, as `edgeprune.score` accepts it.
        preprocessing: what was done to raw values before the model, to be written into the bundle.
        quantization: one of the target's, by name or as a `Scheme`; by default its first.
        sparse: store weights without their zeros, as `export_tflite` does; for phones and computers.
        integer_io: whether an `"int8"` or `"int16x8"` file has integers for inputs and outputs, as in `export_tflite`;
            `"uint8"` for sources such as cameras. `False`, for floats, is for phones and
            computers.
        per_channel_dense: whether each unit of a dense layer has a scale of its own in a file in integers. By default
            each has, but on a microcontroller where one scale a layer makes the arena smaller by a tenth or more, or
            the file in `"int4"`, at no more than twice the error; a note reports what was measured.
        calibration: how an `"int8"` or `"int4"` file of a float model is calibrated, as in `export_tflite`.
        without_preprocessing: leave the lookup layers that handle strings, or hash, to the application, as
            `export_tflite` does; their vocabularies lie in the folder. The data are those of the whole model.
        name: the model's name in the bundle, by default the Keras model's; any characters.
        author: who made the model.
        version: the model's version.
        description: what the model does.
        overwrite: replace the files of a bundle that is there already; other files in its folder are kept.

    Returns:
        The folder, what is in it, and what was measured.

    Raises:
        TypeError: `model` is no Keras model, or an argument is of the wrong type.
        ValueError: the model does not fit the target (the message names the layer), the data or the labels do not
            fit the model, or the file does not compute what the model does.
        FileExistsError: the folder exists and `overwrite` is false, or it is no bundle, or files of that bundle were
            changed since.
        ImportError: the target's runtime is not installed; the message says what to install.

    Example:
        >>> bundle = export_bundle(model, "bundle", "phone", representative_data=x)
        >>> bundle.verification.passed, "model.tflite" in bundle.files
        (True, True)
    """
    device = target_named(target)
    scheme = _checked_scheme(quantization, device)
    quantization = scheme.name
    if not scheme.per_channel_dense:
        per_channel_dense = False
    _check_options(device, sparse=sparse, integer_io=integer_io)
    flavor.check_built_model(model)
    _check_texts(name=name, author=author, version=version, description=description)
    check_folder(directory, replaces=lambda old: overwrite and written_files(old))
    writer = importlib.import_module(_WRITERS[device.kind])
    writer.check_installed()
    settings = ConverterSettings(quantization, sparse, integer_io, layers=tuple(scheme.layer_bits.items()))
    check_calibration(calibration, quantization, strip.is_quantize_aware(model))
    prepared = prepare(model, representative_data, _refuse_strings, without_preprocessing=without_preprocessing)
    _check_calibration(representative_data, quantization, device)
    if scheme.has_four_bits and strip.is_quantize_aware(prepared.model):  # which was trained with scales of its own
        per_channel_dense = strip.has_dense_channel_scales(prepared.model)
    plain, specs, samples = prepared.model, prepared.specs, prepared.samples
    labels = _checked_labels(labels, plain)
    _check_preprocessing(preprocessing, specs)
    validation = None if validation_data is None else _checked_validation(validation_data, prepared, metric)
    if prepared.split is not None:
        lines = vocabulary_files.preprocessing_lines(prepared.split)
        description = "\n".join([*filter(None, [description]), *lines])

    with (
        atomic_folder(directory, replaces=lambda old: overwrite and written_files(old)) as folder,
        status(f"Bundling for {device.name}") as say,
    ):
        path = folder / "model.tflite"
        exported, verification = exported_file(
            prepared, path, device, calibration, scheme, settings, per_channel_dense, validation
        )
        notes = [note for note in exported.notes if note not in verification.problems]
        notes += raw_samples_note(samples or {}, preprocessing)
        if samples is not None and validation is not None:
            notes += difference_notes(samples, validation.x)
        content = BundleContent(
            folder=folder,
            tflite=exported.path,
            model=plain,
            target=device,
            name=name or plain.name,
            identifier=identifier(name or plain.name),
            samples=_golden(samples, specs),
            labels=labels,
            preprocessing=preprocessing,
            verification=verification,
            author=author,
            version=version,
            description=description,
            notes=tuple(notes),
            quantization=quantization,
        )
        say(f"Proving on {device.runtime}")
        figures = writer.write(content)
        notes += figures.pop("notes", [])
        _write_model_card(content, figures, notes)
        write_manifest(folder)
        files = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    return Bundle(Path(directory), device, files, verification, figures, tuple(notes))


def _check_texts(**texts: Any) -> None:
    for argument, text in texts.items():
        if not isinstance(text, str) and (argument, text) != ("name", None):
            raise TypeError(f"{argument} must be a string, got {type(text).__name__}.")


def _check_calibration(data: DataLike | None, quantization: str | None, device: Target) -> None:
    if data is None and quantization in CALIBRATED:
        raise ValueError(
            f"Target {device.name!r} computes in {quantization}, which needs representative_data: about 100 samples of "
            f"what the model will see, as {DATA_FORMS}."
        )


def _check_options(device: Target, *, sparse: bool, integer_io: bool | str) -> None:
    """Refuse what only LiteRT, on phones and computers, can do."""
    if device.runtime == "litert":
        return
    if sparse:
        raise ValueError(
            f"sparse=True is for phones and computers: the runtime of {device.name!r} reads no sparse files. "
            "Leave it out."
        )
    if integer_io is False:
        raise ValueError(
            f"integer_io=False is for phones and computers: the code for {device.name!r} converts floats itself."
        )


def _checked_scheme(quantization: Quantization | Literal["default"] | Scheme | None, device: Target) -> Scheme:
    quantization = device.quantizations[0] if quantization == "default" else quantization
    name = quantization.name if isinstance(quantization, Scheme) else quantization
    if name not in device.quantizations:
        raise ValueError(
            f"Target {device.name!r} does not run quantization={name!r}; it runs "
            f"{', '.join(map(repr, device.quantizations))}."
        )
    scheme = scheme_of(quantization)
    device.check_float_layers(scheme)
    return scheme


def _checked_labels(labels: Iterable[str] | None, model: Model) -> list[str] | None:
    """The labels as a list, as many as one of the outputs has values."""
    if labels is None:
        return None
    texts: list[str] = list(labels) if isinstance(labels, Iterable) and not isinstance(labels, str) else []
    if isinstance(labels, str) or not isinstance(labels, Iterable) or not all(isinstance(text, str) for text in texts):
        raise TypeError("labels must be a list of strings, one for each class.")
    labels = texts
    for label in labels:
        if not label.strip() or "\n" in label or "\r" in label:
            raise ValueError(f"A label must be one line of text and not empty; got {label!r}.")
    shapes = {name: shape for name, shape in _output_shapes(model).items() if shape}
    sizes = {name: shape[-1] for name, shape in shapes.items()}
    two_classes = len(labels) == 2 and 1 in sizes.values()
    if sizes and len(labels) not in sizes.values() and not two_classes:
        outputs = ", ".join(f"{name!r} has {size} values" for name, size in sizes.items())
        raise ValueError(f"Got {len(labels)} labels, but the model's output {outputs}: one label a class is needed.")
    return labels


def _output_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Output name to shape, without the batch; empty for a subclassed model."""
    if not flavor.is_graph_model(model):
        return {}
    return {name: tuple(tensor.shape)[1:] for name, tensor in flavor.output_tensors(model).items()}


def _check_preprocessing(preprocessing: Preprocessing | None, specs: Mapping[str, Any]) -> None:
    if preprocessing is None:
        return
    if not isinstance(preprocessing, Preprocessing):
        raise TypeError(
            f"preprocessing must be edgeprune.bundle.content.Preprocessing, got {type(preprocessing).__name__}."
        )
    channels = len(preprocessing.mean)
    if channels > 1 and not any(len(spec.shape) > 1 and spec.shape[-1] == channels for spec in specs.values()):
        shapes = ", ".join(f"{name!r} {tuple(spec.shape)[1:]}" for name, spec in specs.items())
        raise ValueError(f"Preprocessing has {channels} channels, but the model's inputs are {shapes}.")


def _refuse_strings(model: Model, specs: Mapping[str, Any]) -> None:
    strings = [repr(name) for name, spec in specs.items() if spec.dtype.name == "string"]
    if strings:
        raise ValueError(
            f"Model {model.name!r} has inputs of strings, {', '.join(strings)}, and a bundle's golden vectors are "
            "numbers. Pass without_preprocessing=True: the model begins after its lookup layers, and the application "
            "looks words up in the vocabulary in the folder."
        )


def _checked_validation(
    validation_data: DataLike, prepared: PreparedModel, metric: MetricLike | None
) -> ValidationData:
    """The labelled data, as the converted model expects them."""
    inputs = {name: tuple(spec.shape)[1:] for name, spec in prepared.whole_specs.items()}
    x, y, sample_weight = read = joined(validation_data, inputs=inputs, source="validation_data")
    for name, array in named_arrays("validation_data: the model", inputs, x).items():
        if not shape_fits(np.shape(array), (None, *inputs[name])):
            raise ValueError(
                f"validation_data: input {name!r} expects samples of shape {inputs[name]}, got an array of shape "
                f"{np.shape(array)}."
            )
    count = sample_count(read, "validation_data")
    if count == 0:
        raise ValueError("validation_data has no samples.")
    if prepared.split is not None:
        x = prepared.split.preprocess(representative.samples(x, prepared.whole_specs, count))
    return ValidationData(x, y, sample_weight, metric)


def _golden(samples: Mapping[str, np.ndarray] | None, specs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if samples is None:
        return random_samples(specs, GOLDEN_SAMPLES)
    count = len(next(iter(samples.values())))
    chosen = np.linspace(0, count - 1, min(GOLDEN_SAMPLES, count)).round().astype(int)
    return {name: array[chosen] for name, array in samples.items()}


def _write_model_card(content: BundleContent, figures: dict[str, Any], notes: list[str]) -> None:
    card = model_card(content, figures, notes)
    text = json.dumps(card, indent=2, ensure_ascii=False)
    (content.folder / MODEL_CARD).write_text(f"{text}\n", encoding="utf-8")
    lines = {
        "figure_lines": _figure_lines(figures),
        "score_lines": list(score_lines(content.verification.score_stages)),
    }
    (content.folder / "MODEL_CARD.md").write_text(render("MODEL_CARD.md", card=card, **lines), encoding="utf-8")


def model_card(content: BundleContent, figures: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """All that is known of a bundle's model, as plain values."""
    runtime, verification = content.runtime, content.verification

    def port(entry: Port) -> dict[str, Any]:
        facts = {"name": entry.name, "shape": list(entry.shape), "dtype": entry.dtype.name}
        return facts | ({"scale": entry.scale, "zero_point": entry.zero_point} if entry.quantized else {})

    zeros = [(row.elements, row.keras_zeros) for row in verification.weights]
    return {
        "name": content.name,
        "version": content.version,
        "author": content.author,
        "description": content.description,
        "target": {"name": content.target.name, "kind": content.target.kind, "description": content.target.description},
        "quantization": verification.quantization,
        "sparsity": sum(z for _, z in zeros) / sum(e for e, _ in zeros) if zeros else 0.0,
        "parameters": verification.parameters and verification.parameters.total,
        "macs": verification.macs.total,
        "bytes": content.tflite.stat().st_size,
        "operators": verification.operators,
        "inputs": [port(entry) for entry in runtime.inputs.values()],
        "outputs": [port(entry) for entry in runtime.outputs.values()],
        "labels": list(content.labels) if content.labels else None,
        "preprocessing": content.preprocessing
        and {"mean": list(content.preprocessing.mean), "std": list(content.preprocessing.std)},
        **scores_to_dict(verification.score_stages),
        "verified_on": verification.samples,
        "largest_error": {row.name: row.largest_error for row in verification.outputs},
        "figures": dict(figures),
        "notes": list(notes),
        "made_by": f"edgeprune {__version__}",
        "measured_on": f"{platform.system()} {platform.machine()}",
    }


def _figure_lines(figures: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Figures as lines of text, one for each."""
    lines = []
    for key, value in figures.items():
        words = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            lines += _figure_lines(value, f"{words}, ")
        elif isinstance(value, list | tuple):
            lines.append(f"{words}: {', '.join(map(str, value)) or 'none'}")
        elif "share" in key and isinstance(value, float):
            lines.append(f"{words}: {value:.1%}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            lines.append(f"{words}: {value}")
        else:
            lines.append(f"{words}: {value:,}" if isinstance(value, int) else f"{words}: {value:,.4g}")
    return lines
