"""Bundles with weights of 4 bits: stored so where the runtime reads them, on the same grid in 8 bits where not."""

import numpy as np
import pytest
from nets.quantized_nets import branched, images

import edgeprune as ep
from edgeprune.targets import FOUR_BIT_OPERATORS
from edgeprune.tflite.four_bits import READ_FOUR_BITS


def bundled(folder, target, **options):
    made = ep.export_bundle(branched("keras"), folder / "b", target, images(), calibration="min-max", **options)
    return made, ep.read_tflite(folder / "b" / "model.tflite")


def is_on_grid(weights, axis):
    """Whether weights are on 15 steps around zero: of each entry of an axis, or of all."""
    steps = weights / np.abs(weights).max(axis=axis, keepdims=True) * 7
    return np.abs(steps - np.rint(steps)).max() < 0.05


def test_on_a_microcontroller_all_weights_are_read_in_four_bits(tmp_path):
    pytest.importorskip("tflite_micro")
    made, file = bundled(tmp_path, "cortex-m", quantization="int4")
    weights = {tensor.shape: tensor for tensor in file.weights}
    for shape in ((8, 3, 3, 3), (1, 3, 3, 8), (12, 40), (5, 12)):
        assert weights[shape].dtype == "int4"
    assert is_on_grid(weights[(5, 12)].values(), None)  # TFLM reads dense layers of 4 bits with one scale alone
    assert made.figures["parity"]["mismatches"] == 0 and made.figures["parity"]["values"] > 0
    assert any(note.startswith("Dense layers have one scale each: so they are read in 4 bits") for note in made.notes)


def test_units_with_scales_of_their_own_are_on_the_grid_in_eight_bits(tmp_path):
    pytest.importorskip("tflite_micro")
    made, file = bundled(tmp_path, "cortex-m", quantization="int4", per_channel_dense=True)
    dense = next(tensor for tensor in file.weights if tensor.shape == (5, 12))
    assert dense.dtype == "int8" and is_on_grid(dense.values(), 1)
    assert made.figures["parity"]["mismatches"] == 0


@pytest.mark.parametrize("per_channel_dense", [True, False])
def test_a_trained_model_keeps_the_scales_it_was_trained_with(tmp_path, per_channel_dense):
    pytest.importorskip("tflite_micro")
    scheme = ep.Scheme(4, 8, per_channel_dense=per_channel_dense)
    aware = ep.quantize_aware(branched("keras"), scheme, calibration=images())
    made = ep.export_bundle(aware, tmp_path / "b", "cortex-m", images(), quantization="int4")
    dense = next(one for one in ep.read_tflite(tmp_path / "b" / "model.tflite").weights if one.shape == (5, 12))
    assert dense.dtype == ("int8" if per_channel_dense else "int4")
    assert made.figures["parity"]["mismatches"] == 0


@pytest.mark.slow
def test_an_npu_gets_the_grid_in_eight_bits_and_stores_fewer_bytes(tmp_path):
    pytest.importorskip("ethosu")
    narrow, file = bundled(tmp_path / "4", "ethos-u55-128", quantization="int4")
    wide, _ = bundled(tmp_path / "8", "ethos-u55-128", quantization="int8")
    assert {tensor.dtype for tensor in file.weights} == {"int8", "int32"}
    assert narrow.figures["npu"]["weight_bytes"] < 0.8 * wide.figures["npu"]["weight_bytes"]


def test_single_layers_keep_eight_bits_on_a_phone(tmp_path):
    _, file = bundled(tmp_path, "phone", quantization=ep.Scheme(4, 8, layers={"head": 8}))
    weights = {tensor.shape: tensor for tensor in file.weights}
    assert weights[(5, 12)].dtype == "int8" and weights[(12, 40)].dtype == "int4"


def test_the_table_has_operators_that_have_a_version_for_four_bits():
    assert all(readers <= READ_FOUR_BITS.keys() for readers in FOUR_BIT_OPERATORS.values())
