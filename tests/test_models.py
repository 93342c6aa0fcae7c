"""The nets are those of MLPerf Tiny, by the sizes that its authors give for theirs, on both Kerases."""

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.measure.macs import count_macs
from edgeprune.models import autoencoder, ds_cnn, mobilenet_v1, resnet8, small_cnn


@pytest.mark.parametrize(
    ("make", "arguments", "parameters", "millions_of_macs"),
    [
        (resnet8, {"input_shape": (32, 32, 3)}, 78_666, 12.5),
        (ds_cnn, {}, 24_908, 2.7),
        (mobilenet_v1, {}, 221_794, 7.5),
        (autoencoder, {}, 269_992, 0.26),
    ],
    ids=["resnet8", "ds_cnn", "mobilenet_v1", "autoencoder"],
)
def test_the_size_is_that_of_the_reference(make, arguments, parameters, millions_of_macs, flavor):
    model = make(**arguments, flavor=flavor)
    assert flavors.flavor_of(model) == flavor
    assert model.count_params() == parameters
    assert count_macs(model).total / 1e6 == pytest.approx(millions_of_macs, rel=0.03)


@pytest.mark.parametrize("make", [resnet8, ds_cnn, mobilenet_v1, small_cnn])
def test_classifiers_take_other_shapes_and_give_probabilities(make, rng):
    model = make((64, 32, 2), classes=5)
    given = np.asarray(model(rng.random((3, 64, 32, 2), np.float32), training=True))
    np.testing.assert_allclose(given.sum(1), 1, rtol=1e-5)
    assert given.shape == (3, 5) and np.ptp(given) > 0


def test_an_autoencoder_of_another_width_gives_as_many_values_as_it_takes():
    assert autoencoder(64, units=32, bottleneck=4).output_shape == (None, 64)
