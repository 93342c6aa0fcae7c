"""The samples of a search, read whole and checked before anything is made: what does not fit is named at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.data.batches import joined, sample_count
from edgeprune.data.labels import check_sample_weights
from edgeprune.data.ports import input_shapes
from edgeprune.data.structures import flat
from edgeprune.fit.compiling import check_training_data
from edgeprune.measure.predictions import checked_inputs
from edgeprune.search.trial.job import Samples
from edgeprune.types import DataLike, Model


def validation_samples(model: Model, data: DataLike) -> Samples:
    """The samples that trials are judged on.

    Args:
        model: the original.
        data: as `compress` accepts them.

    Raises:
        TypeError: the data are in no form that can be read.
        ValueError: they do not fit the model, differ in length, are empty, NaN or infinite.
    """
    return _checked(model, data, "validation")


def test_samples(model: Model, data: DataLike, validation: Samples) -> Samples:
    """The samples that the verdict is on, where they are the user's own.

    Args:
        model: the original.
        data: as `compress` accepts them.
        validation: those that trials are judged on.

    Raises:
        TypeError: the data are in no form that can be read.
        ValueError: as `validation_samples`; or one of the two has labels and the other has none.
    """
    samples = _checked(model, data, "test")
    if (samples.y is None) != (validation.y is None):
        with_labels, without = ("validation", "test") if samples.y is None else ("test", "validation")
        raise ValueError(f"{without}: there are no labels, and {with_labels} has them: pass both with or both without.")
    return samples


def training_samples(model: Model, data: DataLike) -> Samples:
    """The samples that trials are trained on.

    Args:
        model: the original.
        data: as `compress` accepts them, with or without labels.

    Raises:
        TypeError: the data are in no form that can be read.
        ValueError: as `validation_samples`; or the labels do not fit the model's loss.
    """
    samples = _checked(model, data, "train")
    if samples.y is None and samples.sample_weight is not None:
        raise ValueError("train: without labels no sample is weighed: pass labels, or leave the weights out.")
    if samples.y is not None:
        try:
            check_training_data(model, samples.x, samples.y)
        except ValueError as error:
            raise ValueError(f"train: {error}") from error
    return samples


def _checked(model: Model, data: DataLike, name: str) -> Samples:
    try:
        read = joined(data, inputs=input_shapes(model))
        if sample_count(read) == 0:
            raise ValueError("there are no samples.")
        checked_inputs(model, read.x)
        check_sample_weights(read.sample_weight)
        for part, what in ((read.y, "labels"), (read.sample_weight, "sample weights")):
            _check_finite(part, what)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return Samples(*read)


def _check_finite(part: Any, what: str) -> None:
    for values in map(np.asarray, flat(part)):
        if values.dtype.kind == "f" and (wrong := np.count_nonzero(~np.isfinite(values))):
            raise ValueError(f"{wrong:,} of the {values.size:,} {what} are NaN or infinite; clean them first.")
