"""Hints at samples of the wrong range, and none where the range is right."""

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.export import export_tflite
from edgeprune.export.sample_ranges import difference_notes, range_notes


def net(flavor, *first, nested=False):
    keras = flavors.keras_module(flavor)
    layers = [make(keras.layers) for make in first]
    body = [keras.Input((6, 6, 3), name="image"), *layers, keras.layers.Conv2D(2, 3)]
    if nested:
        return keras.Sequential([keras.Input((6, 6, 3), name="image"), keras.Sequential(body)])
    return keras.Sequential(body)


def rescaling(scale, offset=0.0):
    return lambda layers: layers.Rescaling(scale, offset, name="scale")


def normalization(layers):
    return layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3, name="scale")


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3)).astype(np.float32)
SCALED = PIXELS / 255


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "first, samples, hint",
    [
        ([], PIXELS, "whole numbers between 0 and 255, as raw pixels are, and no layer scales them"),
        ([lambda layers: layers.ZeroPadding2D(1)], PIXELS, "as raw pixels are"),
        ([rescaling(1 / 255)], SCALED, "'scale' (Rescaling) makes 0 and 0.003922, as if they were scaled before"),
        ([rescaling(1 / 127.5, -1)], SCALED, "as if they were scaled before"),
        ([rescaling(2, -1)], PIXELS, "between 0 and 255, of which layer 'scale' (Rescaling) makes -1 and 509"),
        ([normalization], SCALED, "'scale' (Normalization) makes"),
    ],
)
def test_samples_of_the_wrong_range(flavor, first, samples, hint, nested):
    (note,) = range_notes(net(flavor, *first, nested=nested), {"image": samples})
    assert note.startswith("Input 'image'") and hint in note


@pytest.mark.parametrize(
    "first, samples",
    [
        ([], SCALED),
        ([], 2 * SCALED - 1),
        ([], PIXELS - 117.5),
        ([], np.round(3 * SCALED)),
        ([lambda layers: layers.BatchNormalization()], PIXELS),
        ([rescaling(1 / 255)], PIXELS),
        ([rescaling(1 / 255)], PIXELS // 8),
        ([rescaling(1 / 127.5, -1)], PIXELS),
        ([rescaling(2, -1)], SCALED),
        ([rescaling(255.0)], SCALED),
        ([rescaling(1 / 255)], np.zeros_like(PIXELS)),
        ([normalization], PIXELS),
    ],
)
def test_samples_of_a_right_range(flavor, first, samples):
    assert range_notes(net(flavor, *first), {"image": samples.astype(np.float32)}) == []


def test_a_subclassed_model_and_whole_numbers_say_nothing(flavor):
    keras = flavors.keras_module(flavor)

    class Own(keras.Model):
        def call(self, inputs):
            return inputs + 1

    assert range_notes(Own(), {"input": PIXELS}) == []
    x = keras.Input((6, 6, 3), name="image")
    if flavor == flavors.TF_KERAS:
        assert range_notes(keras.Sequential([x, Own()]), {"image": PIXELS}) == []
    assert range_notes(net(flavor), {"image": PIXELS.astype(np.int32)}) == []


def test_other_samples_of_another_range():
    (note,) = difference_notes({"image": PIXELS, "age": SCALED}, {"image": SCALED, "age": SCALED})
    assert "between 0 and 255, the other samples between 0 and 1" in note
    assert len(difference_notes({"image": SCALED}, PIXELS)) == 1
    assert difference_notes({"image": PIXELS}, {"image": PIXELS / 10, "other": SCALED}) == []


def test_the_hint_is_a_note_of_the_export(tmp_path):
    result = export_tflite(net("keras"), tmp_path / "m.tflite", None, PIXELS)
    assert any("as raw pixels are" in note for note in result.notes)
