"""Weights of 4 bits in a file: the operators that read them alone, and the same integers in 8 bits."""

import numpy as np
import pytest
from nets.converted import convert
from nets.quantized_nets import branched, images

import edgeprune as ep
from edgeprune.measure.integer_reference import integer_reference, lacking_kernel
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.four_bits import READ_FOUR_BITS, with_eight_bit_weights, with_four_bit_weights
from edgeprune.tflite.runtime import Runtime


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file with weights of 4 bits, and the one that has them in 8 bits again."""
    folder = tmp_path_factory.mktemp("four_bits")
    settings = dict(calibration="min-max", verify=False)  # or layers that lose most keep 8 bits
    path = ep.export_tflite(branched("keras"), folder / "four.tflite", "int4", images(), **settings).path
    (folder / "eight.tflite").write_bytes(with_eight_bit_weights(path.read_bytes()))
    return path, folder / "eight.tflite"


def test_in_eight_bits_are_the_same_integers(files):
    four, eight = (read_tflite(path) for path in files)
    assert {"int4", "int32"} == {tensor.dtype for tensor in four.weights}
    assert {"int8", "int32"} == {tensor.dtype for tensor in eight.weights}
    for one, other in zip(four.weights, eight.weights, strict=True):
        np.testing.assert_array_equal(one.values(), other.values())
    made = [Runtime(path).run_all({"image": images()}, "") for path in files]
    for one, other in zip(made[0].values(), made[1].values(), strict=True):
        steps = 256 * np.abs(np.asarray(one) - np.asarray(other))  # XNNPACK's kernels for 4 bits may round otherwise
        assert np.mean(steps > 1.01) < 0.01 and steps.max() < 2.01


def test_the_reference_reads_four_bits_in_eight(files):
    four, eight = files
    assert lacking_kernel(four) == "DEPTHWISE_CONV_2D" and lacking_kernel(eight) is None
    with integer_reference(four) as reference, integer_reference(eight) as expected:
        x = [np.random.default_rng(0).integers(-128, 128, (1, 12, 12, 3), np.int8)]
        np.testing.assert_array_equal(reference.run(x)[0], expected.run(x)[0])


@pytest.mark.parametrize("readers", [(), ("CONV_2D",), ("DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), tuple(READ_FOUR_BITS)])
def test_weights_of_other_operators_stay_in_eight_bits(files, readers, tmp_path):
    content = files[1].read_bytes()
    narrowed, names = with_four_bit_weights(content, readers, nearest=True)
    counts = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 2}
    assert len(names) == sum(counts[one] for one in readers) and (narrowed == content) == (not readers)
    (tmp_path / "m.tflite").write_bytes(narrowed)
    stored = read_tflite(tmp_path / "m.tflite")
    assert sum(tensor.dtype == "int4" for tensor in stored.weights) == len(names)
    assert Runtime(tmp_path / "m.tflite").run_all({"image": images(2)}, "")


def test_weights_off_the_grid_stay_unless_they_may_be_moved(tmp_path):
    content = convert(branched("keras"), tmp_path / "m.tflite", "int8", images()).read_bytes()
    assert with_four_bit_weights(content) == (content, [])
    assert len(with_four_bit_weights(content, nearest=True)[1]) == 7
