"""What every bundle's writer is given: the file that was exported and proven, and what is known about the model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edgeprune.export.verify import Verification
from edgeprune.targets import Target
from edgeprune.tflite.runtime import Runtime
from edgeprune.types import Model


@dataclass(frozen=True)
class Preprocessing:
    """What was done to raw values before the model: `(value - mean) / std`.

    Attributes:
        mean: what was subtracted, one number for all channels or one for each.
        std: what it was divided by, as many numbers as `mean`.

    Raises:
        ValueError: in float32, as devices have it, a number is not finite or a `std` is not positive; or there are not
            as many of one as of the other.

    Example:
        >>> Preprocessing.from_scale(1 / 255).std
        (255.0,)
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Accept single numbers and lists too."""
        for field in ("mean", "std"):
            values = np.atleast_1d(np.asarray(getattr(self, field), np.float64))
            if values.ndim != 1 or not (np.abs(values) <= np.finfo(np.float32).max).all():
                raise ValueError(
                    f"Preprocessing: {field} must be finite numbers in float32, one for each channel; got {values}."
                )
            object.__setattr__(self, field, tuple(map(float, values)))
        if len(self.mean) != len(self.std):
            raise ValueError(f"Preprocessing has {len(self.mean)} means and {len(self.std)} stds: as many are needed.")
        if min(self.std) < np.finfo(np.float32).tiny:
            raise ValueError(f"Preprocessing: every std must be positive in float32, got {self.std}.")

    @classmethod
    def from_scale(cls, scale: float | Sequence[float], offset: float | Sequence[float] = 0.0) -> Preprocessing:
        """The same as `value * scale + offset`, as a Keras `Rescaling` layer has it.

        Args:
            scale: what was multiplied by, one number or one for each channel; positive.
            offset: what was added then.
        """
        scales, offsets = np.broadcast_arrays(np.atleast_1d(scale), np.atleast_1d(offset))
        if not (scales > 0).all():
            raise ValueError(f"Preprocessing: every scale must be positive, got {scale}.")
        return cls(tuple(-offsets / scales), tuple(1 / scales))

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """The model's input: float32, of the shape of `raw` `(..., channels)`."""
        return ((np.asarray(raw, np.float64) - self.mean) / self.std).astype(np.float32)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """The raw values of a model's input: float32."""
        return (np.asarray(values, np.float64) * self.std + self.mean).astype(np.float32)


def raw_samples_note(samples: Mapping[str, np.ndarray], preprocessing: Preprocessing | None) -> list[str]:
    """Say where samples look like raw values, though the model is to get them through the preprocessing.

    Args:
        samples: input name to `(count, ...)`, as the Keras model expects them.
        preprocessing: what was done to raw values before the model, `None` where nothing is known.

    Returns:
        A note for each input whose samples are whole numbers that the preprocessing would make far smaller.
    """
    if preprocessing is None:
        return []
    notes = []
    for name, values in samples.items():
        largest = float(values.max())
        reached = max((largest - mean) / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True))
        if values.dtype.kind == "f" and largest > max(16, 4 * reached) and np.array_equal(values, np.rint(values)):
            notes.append(
                f"The samples of {name!r} reach {largest:g} and are whole numbers, as raw values are, but with this "
                f"preprocessing the model would see values up to {reached:g}: pass the samples as the model sees them."
            )
    return notes


@dataclass(frozen=True)
class BundleContent:
    """All that a bundle is written from.

    Attributes:
        folder: the temporary folder to write into; it becomes the bundle.
        tflite: the exported file in it, `model.tflite`.
        model: the Keras model, without pruning wrappers.
        target: the device.
        name: the model's name, as the user wrote it: any characters.
        identifier: made from the name; valid in C, C++, Java and Kotlin: `"gesture_model"`.
        samples: input name to a few golden inputs `(count, ...)`, as the Keras model expects them.
        labels: the classes' names in order; `None` without.
        preprocessing: what was done to raw values before the model; `None` where nothing is known.
        verification: what was measured on the file.
        author: who made the model; may be empty.
        version: the model's version.
        description: what it does; may be empty.
        notes: what the user should know, a sentence each.
        quantization: the recipe that was asked for.
    """

    folder: Path
    tflite: Path
    model: Model
    target: Target
    name: str
    identifier: str
    samples: Mapping[str, np.ndarray]
    labels: Sequence[str] | None
    preprocessing: Preprocessing | None
    verification: Verification
    author: str = ""
    version: str = "1"
    description: str = ""
    notes: tuple[str, ...] = ()
    quantization: str | None = None

    @cached_property
    def runtime(self) -> Runtime:
        """The file, opened once for all that ask for its inputs and outputs or run it as a phone does."""
        return Runtime(self.tflite)


def identifier(name: str) -> str:
    """Make a name that C, C++, CMake, Java and Kotlin accept.

    It always has `model` in it: no list of keywords, functions and macros that it could be is ever complete.

    Args:
        name: any text.

    Returns:
        Lower-case ASCII letters, digits and single underscores, beginning with a letter.

    Example:
        >>> identifier('Größe "A" 2')
        'grosse_a_2_model'
    """
    words = snake_case(name) or "model"
    if words[0].isdigit():
        return f"model_{words}"
    return words if words.endswith("model") else f"{words}_model"


def snake_case(text: str) -> str:
    """The ASCII letters, in lower case, and the digits of any text, with single underscores between; may be empty."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9a-z]+", "_", plain.lower()).strip("_")


def distinct(names: Iterable[str], separator: str = "") -> list[str]:
    """Number the names that repeat, so that all differ.

    Example:
        >>> distinct(["x", "x", "x2"])
        ['x', 'x2', 'x22']
    """
    taken: list[str] = []
    for base in names:
        name, number = base, 2
        while name in taken:
            name, number = f"{base}{separator}{number}", number + 1
        taken.append(name)
    return taken
