"""The verdict on outputs: ordinary rounding passes, a channel without its information does not."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.export.agreement import compare_output
from edgeprune.export.convert import export_tflite
from edgeprune.export.verify import FORMAT_TOLERANCE


def problems(file_output, keras_output, step=0.0, tolerance=FORMAT_TOLERANCE["int8"]):
    return compare_output("out", file_output, keras_output, step, tolerance)[1]


def step_of(values):
    """The step of an int8 output calibrated on these values; zero is always in its range."""
    return (max(values.max(), 0) - min(values.min(), 0)) / 255


LAYOUTS = st.sampled_from([(), (1,), (7,), (20,), (6, 4), (4, 4, 3), (2, 9), (64, 7)])


@st.composite
def outputs(draw, layouts=LAYOUTS):
    """Keras outputs whose channels are all of one kind, with an offset of up to a few times their spread."""
    shape = (draw(st.integers(16, 40)), *draw(layouts))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = generator.uniform(-2, 2, shape) * generator.uniform(0.3, 1, shape[-1:] if len(shape) > 1 else ())
    values = (values + draw(st.floats(-4, 4))) * 10 ** draw(st.floats(-3, 3))
    return values.astype("f4"), generator


@settings(deadline=None, max_examples=60)
@given(outputs(), st.floats(0, 1.5))
def test_rounding_passes(made, noise):
    values, generator = made
    step = step_of(values)
    given = np.rint(values / step + generator.normal(0, noise, values.shape)) * step
    assert problems(given, values, step) == []
    assert problems(values.astype("f2").astype("f4"), values, tolerance=FORMAT_TOLERANCE["float16"]) == []
    assert problems(values * (1 + 1e-5), values, tolerance=FORMAT_TOLERANCE[None]) == []


WAYS = {
    "constant": lambda values, rng: np.full_like(values, values.mean()),
    "zero": lambda values, rng: np.zeros_like(values),
    "turned over": lambda values, rng: 2 * values.mean() - values,
    "mixed up": lambda values, rng: values[np.roll(np.arange(len(values)), 5)],
}


@settings(deadline=None, max_examples=60)
@given(outputs(LAYOUTS.filter(lambda layout: layout != ())), st.sampled_from(sorted(WAYS)), st.booleans())
def test_one_channel_destroyed_fails(made, way, integers):
    values, generator = made
    step = step_of(values) if integers else 0.0
    given = (np.rint(values / step) * step if integers else values).copy()
    channel = generator.integers(values.shape[-1])
    given[..., channel] = WAYS[way](values[..., channel], generator)
    assert len(problems(given, values, step)) == 1


@settings(deadline=None, max_examples=40)
@given(outputs(st.sampled_from([(7,), (49,), (16, 7), (7, 16)])), st.floats(1e-4, 2e-3))
def test_a_part_of_another_unit_fails(made, smaller):
    """The scores of a detector beside its boxes: four parts of seven in pixels, three within one step."""
    values, _ = made
    axis = next(axis for axis in range(values.ndim - 1, 0, -1) if values.shape[axis] % 7 == 0)
    parts = np.moveaxis(values, axis, -1).reshape(*values.shape[:1], -1, 7)
    parts = 0.5 + 0.5 * parts / np.abs(parts).max()
    parts *= np.where(np.arange(7) < 4, 320, 320 * smaller)
    moved = np.moveaxis(values, axis, -1).shape
    values = np.moveaxis(parts.reshape(moved), -1, axis)
    step = step_of(values)
    (problem,) = problems(np.rint(values / step) * step, values, step)
    assert "no information is left" in problem and "outputs of their own" in problem
    assert problems(values, values, step) == []


@pytest.mark.parametrize("shape", [(32,), (32, 1), (32, 3)])
def test_a_large_offset_fails(shape):
    values = 1013 + np.random.default_rng(0).normal(size=shape)
    step = step_of(values)
    given = np.rint(values / step) * step
    row, (problem,) = compare_output("out", given, values, step, 0.25)
    assert row.relative_error < 0.01 < 0.9 < row.spread_error
    assert f"One step of the file's integers is {step:.3g}" in problem


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("a constant output", np.full((32, 4), 3.0)),
        ("a dead channel", np.random.default_rng(0).normal(size=(32, 4)) * [1, 1, 0, 1] + [0, 0, 0.3, 0]),
        ("float error alone", 100 + 1e-4 * np.random.default_rng(0).normal(size=(32, 4)) * [1, 1e-2, 1, 1]),
        ("one sample", 1013 + np.random.default_rng(0).normal(size=(1, 4))),
        ("two samples", 1013 + np.random.default_rng(0).normal(size=(2, 4))),
        ("saturated classes", np.eye(30)[np.random.default_rng(0).integers(0, 12, 64)] * 0.999 + 1e-5),
        ("rare labels", np.random.default_rng(0).uniform(size=(64, 5)) * [1, 0.9, 1e-3, 1e-4, 1]),
        ("weak features", np.abs(np.random.default_rng(0).normal(size=(32, 4, 256))) * np.geomspace(1e-3, 1, 256)),
    ],
)
def test_what_int8_may_round_away(what, values):
    step = 1 / 256 if values.min() >= 0 and values.max() <= 1 else step_of(values)
    assert problems(np.rint(values / step) * step, values, step) == []


def test_a_wider_tolerance_is_for_channels_too():
    values = np.random.default_rng(0).normal(size=(32, 4))
    assert problems(-values, values, tolerance=1.5)
    assert not problems(-values, values, tolerance=2.1)


def test_the_user_is_told_by_the_export(tmp_path):
    """Boxes in pixels beside scores, and a pressure in hPa, in int8: not passed, with the way out in the notes."""
    keras = importlib.import_module("keras")
    layers, rng = keras.layers, np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(8, 3, activation="relu")(image)
    boxes = layers.Rescaling(320.0)(layers.Conv2D(4, 1, activation="sigmoid")(hidden))
    scores = layers.Conv2D(3, 1, activation="sigmoid")(hidden)
    x = rng.random((24, 8, 8, 3)).astype("f4")
    joined = keras.Model(image, layers.Reshape((36, 7))(layers.Concatenate()([boxes, scores])))
    apart = keras.Model(image, [boxes, scores])
    numbers = keras.Input((12,))
    pressure = layers.Dense(1)(layers.Dense(16, activation="relu")(numbers))
    hpa = keras.Model(numbers, layers.Rescaling(1.0, offset=1013.0)(pressure))
    for model, data, quantization, passes in (
        (joined, x, "int8", False),
        (joined, x, "dynamic", True),
        (apart, x, "int8", True),
        (hpa, rng.normal(size=(64, 12)).astype("f4"), "int8", False),
        (hpa, rng.normal(size=(64, 12)).astype("f4"), "int16x8", True),
    ):
        result = export_tflite(model, tmp_path / "m.tflite", quantization, data, overwrite=True)
        assert result.verification.passed is passes, result.verification.problems
        assert any("no information is left" in note for note in result.notes) is not passes
