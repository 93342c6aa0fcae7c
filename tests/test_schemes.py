"""A scheme by name and as an object is the same; what no converter makes is refused."""

import keras
import pytest

import edgeprune as ep
from edgeprune.schemes import CALIBRATED, QUANTIZATIONS, Scheme, scheme_of


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_a_name_and_its_scheme_are_the_same(name):
    scheme = scheme_of(name)
    assert scheme.name == name and scheme_of(scheme) is scheme
    assert scheme.is_calibrated == (name in CALIBRATED)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Scheme(3, 8), "Weights of 3 bits with activations of 8 bits: pass one of 32 and 32 .float32"),
        (
            lambda: Scheme(8, 32, per_channel_dense=False),
            "needs 'int8', 'int16x8' or 'int4', got 'dynamic'",
        ),
        (lambda: Scheme(8, 8, layers={"stem": 16}), "of 16 bits are for whole files, 'int16x8'"),
        (lambda: scheme_of("int7"), "quantization must be one of None, .* or a Scheme; got 'int7'"),
    ],
)
def test_what_no_converter_makes_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_scheme_converts_as_its_name_does(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    scheme = ep.Scheme(weight_bits=16)
    by_name = ep.export_tflite(model, tmp_path / "name.tflite", "float16", verify=False)
    by_scheme = ep.export_tflite(model, tmp_path / "scheme.tflite", scheme, verify=False)
    assert by_scheme.quantization == by_name.quantization == "float16"
    assert by_scheme.path.read_bytes() == by_name.path.read_bytes()
