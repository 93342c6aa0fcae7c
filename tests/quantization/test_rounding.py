"""Rounded weights that are solved for: on the grid, never worse than each weight's nearest step, zeros kept."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nets.quantized_nets import branched, chain, images

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.reconstruct.linear import linear_parts
from edgeprune.channels.reconstruct.ridge import Equations
from edgeprune.quantization.grid_solver import GridSolver, last_step, scales_of

LAYERS = {
    "dense": (lambda L: L.Dense(5), (7,)),
    "conv": (lambda L: L.Conv2D(4, 3), (6, 6, 5)),
    "grouped": (lambda L: L.Conv2D(4, 2, groups=2, use_bias=False), (5, 5, 8)),
    "depthwise": (lambda L: L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3)),
    "transposed": (lambda L: L.Conv2DTranspose(4, 2), (5, 5, 6)),
}


def rounded(wanted, num_bits, one_scale):
    """Each weight at its nearest step."""
    scales = scales_of(wanted, num_bits, one_scale)
    return np.rint(wanted / scales) * scales


def problem(name, seed, sparsity=0.0):
    """A layer, a kernel as a matrix, and rows on which it is solved; the inputs depend on each other."""
    make, shape = LAYERS[name]
    layer = make(keras.layers)
    layer.build((None, *shape))
    (part,) = linear_parts(layer)
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=tuple(part.linear.kernel.shape))
    kernel[rng.random(kernel.shape) < sparsity] = 0.0
    wanted = part.linear.matrix(kernel)
    groups, inputs, _ = wanted.shape
    mixing = rng.normal(size=(groups, inputs, inputs))
    rows = [rng.normal(size=(groups, count, inputs)) @ mixing for count in (120, 30)]
    return part.linear, kernel, wanted, rows


def equations(rows, wanted, matrix):
    sums = [Equations.zeros(*wanted.shape) for _ in rows]
    for one, x in zip(sums, rows, strict=True):
        one.add(x, x @ (wanted - matrix), x @ wanted)
    return sums


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([*LAYERS]), st.integers(0, 10**6), st.sampled_from([3, 4, 8]), st.booleans(), st.floats(0.0, 0.8)
)
def test_solved_weights_are_on_the_grid_and_never_worse_than_the_nearest_steps(name, seed, bits, one_scale, sparsity):
    linear, kernel, wanted, rows = problem(name, seed, sparsity)
    matrix = rounded(wanted, bits, one_scale)
    sums = equations(rows, wanted, matrix)
    found = GridSolver(linear, bits, one_scale, kernel != 0)(matrix, wanted, *sums, True)
    solved = matrix + found.change
    total = sums[0] + sums[1]
    unchanged = total.error(np.zeros_like(matrix), np.zeros_like(total.residual_sums))
    assert total.error(found.change, found.shift) <= unchanged + 1e-9
    steps = solved / scales_of(solved, bits, one_scale)  # the grid is read off the largest weight
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    assert np.abs(steps).max() <= last_step(bits) + 1e-6
    assert not solved[wanted == 0].any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
@example(183)  # one output is worse than at its nearest steps, all together are better
def test_few_weights_are_nearly_the_best_of_all_that_are_on_the_grid(seed):
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    linear = linear_parts(layer)[0].linear
    rng = np.random.default_rng(seed)
    wanted = rng.normal(size=(1, 3, 2))
    rows = [rng.normal(size=(1, 60, 3)) @ rng.normal(size=(3, 3)) for _ in range(2)]
    matrix = rounded(wanted, 3, False)
    sums = equations(rows, wanted, matrix)
    solved = matrix + GridSolver(linear, 3, False, wanted[0] != 0)(matrix, wanted, *sums, False).change
    moments = (sums[0] + sums[1]).gram[0]

    def error(weights, output):
        off = weights - wanted[0, :, output]
        return float(off @ moments @ off)

    for output in range(2):
        scale = np.abs(solved[0, :, output]).max() / 3
        every = [scale * np.array(steps) for steps in itertools.product(range(-3, 4), repeat=3)]
        least, own = min(error(one, output) for one in every), error(solved[0, :, output], output)
        nearest = error(matrix[0, :, output], output)
        assert least - 1e-9 <= own <= max(nearest, 2 * least)


@pytest.mark.above_flavor
def test_a_model_of_four_bits_computes_more_like_the_float_one(flavor):
    model, x = branched(flavor), images()
    for name in ("left", "head"):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.where(np.random.default_rng(3).random(kernel.shape) < 0.5, 0, kernel))
    before = [np.array(weight) for weight in model.get_weights()]
    found = ep.round_weights(model, x, ep.Scheme(4, 8, layers={"head": 8}))
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert found.after < 0.7 * found.before and not found.unsolved
    assert all(layer.after <= layer.before for layer in found.layers)
    wanted, made = (one.predict(x, verbose=0) for one in (model, found.model))
    error = np.sqrt(np.square(made - wanted).sum() / np.square(wanted - wanted.mean(axis=0)).sum())
    assert error == pytest.approx(found.after, rel=1e-3)
    for name in ("stem", "depth", "point", "left", "right", "hidden", "head"):
        layer = found.model.get_layer(name)
        kernel = np.asarray(layer.weights[0])
        columns = kernel.reshape(-1, np.prod(kernel.shape[-2:] if name == "depth" else kernel.shape[-1:]))
        steps = columns / np.abs(columns).max(axis=0) * (127 if name == "head" else 7)
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
        assert not kernel[np.asarray(model.get_layer(name).weights[0]) == 0].any()


@pytest.mark.above_flavor
def test_what_has_no_integer_weights_or_no_such_layer_is_refused(flavor):
    with pytest.raises(ValueError, match="needs a scheme with weights in integers, such as 'int4'; got 'float16'"):
        ep.round_weights(chain(flavor), images(), "float16")
    with pytest.raises(ValueError, match="pattern 'heat', which fits the name of no layer. Did you mean 'head'"):
        ep.round_weights(chain(flavor), images(), ep.Scheme(4, 8, layers={"heat": 8}))


def test_kernels_that_a_file_stores_in_floats_are_not_rounded(flavor):
    keras = flavors.keras_module(flavor)
    x = keras.Input((3, 3, 3, 2), name="x")
    z = keras.layers.Flatten()(keras.layers.Conv3D(3, 2, name="cube")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="head")(z))
    data = np.random.default_rng(0).normal(size=(32, 3, 3, 3, 2)).astype(np.float32)
    rounded = ep.round_weights(model, data, "int4").model
    changed = {
        name: not np.array_equal(rounded.get_layer(name).kernel, model.get_layer(name).kernel)
        for name in ("cube", "head")
    }
    assert changed == {"cube": False, "head": True}
