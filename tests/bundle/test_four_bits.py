"""Bundles with weights of 4 bits: stored so where the runtime reads them, on the same grid in 8 bits where not."""

import numpy as np
import pytest
from nets.quantized_nets import branched, images

import edgeprune as ep
from edgeprune.targets import FOUR_BIT_OPERATORS
from edgeprune.tflite.four_bits import READ_FOUR_BITS


def bundled(folder, target, **options):
    made = ep.export_bundle(branched("keras"), folder / "b", target, images(), **options)
    return made, ep.read_tflite(folder / "b" / "model.tflite")


def test_on_a_microcontroller_convolutions_read_four_bits_exactly(tmp_path):
    pytest.importorskip("tflite_micro")
    made, file = bundled(tmp_path, "cortex-m", quantization="int4")
    weights = {tensor.shape: tensor for tensor in file.weights}
    assert weights[(8, 3, 3, 3)].dtype == weights[(1, 3, 3, 8)].dtype == "int4"
    dense = weights[(5, 12)]  # TFLM's dense layers read none with a scale for each unit
    steps = dense.values() / np.abs(dense.values()).max(axis=1, keepdims=True) * 7
    assert dense.dtype == "int8" and np.abs(steps - np.rint(steps)).max() < 0.05
    assert made.figures["parity"]["mismatches"] == 0 and made.figures["parity"]["values"] > 0


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
