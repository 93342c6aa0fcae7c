"""The rows and the solution of each kind of layer, against the layer itself and numpy.linalg.lstsq."""

import keras
import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeprune as ep
from edgeprune.channels.reconstruct.linear import linear_parts
from edgeprune.channels.reconstruct.ridge import Equations, solve_ridge
from edgeprune.channels.reconstruct.span import Rows, solve_in_span
from edgeprune.channels.reconstruct.windows import Chosen

# Name: the layer, and the shape of its input without the samples.
KINDS = {
    "dense": (lambda L: L.Dense(3), (5,)),
    "dense_of_steps": (lambda L: L.Dense(3), (4, 5)),
    "conv1d_causal": (lambda L: L.Conv1D(3, 3, padding="causal", dilation_rate=2), (9, 4)),
    "conv2d_strided": (lambda L: L.Conv2D(3, (3, 2), strides=2, padding="same"), (7, 6, 4)),
    "conv2d_dilated": (lambda L: L.Conv2D(3, 3, dilation_rate=2), (9, 8, 2)),
    "conv2d_grouped": (lambda L: L.Conv2D(6, 3, groups=2, use_bias=False), (6, 6, 4)),
    "conv3d": (lambda L: L.Conv3D(2, 2, padding="same"), (4, 3, 5, 2)),
    "transposed_1d": (lambda L: L.Conv1DTranspose(3, 4, strides=2, padding="same"), (5, 2)),
    "transposed_same": (lambda L: L.Conv2DTranspose(3, 3, strides=2, padding="same"), (4, 5, 2)),
    "transposed_valid": (lambda L: L.Conv2DTranspose(3, 3, strides=(2, 3), padding="valid"), (4, 3, 2)),
    "transposed_3d": (lambda L: L.Conv3DTranspose(2, 2, strides=2, padding="valid"), (2, 3, 2, 2)),
    "depthwise": (lambda L: L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same"), (7, 6, 3)),
    "separable": (lambda L: L.SeparableConv2D(3, 3, depth_multiplier=2, padding="same"), (6, 5, 2)),
    "separable_1d": (lambda L: L.SeparableConv1D(3, 3, strides=2), (9, 2)),
    "einsum": (lambda L: L.EinsumDense("abc,cde->abde", (None, 3, 2), bias_axes="de"), (4, 5)),
    "einsum_contracting_two": (lambda L: L.EinsumDense("abcd,cde->abe", (None, 3), bias_axes="e"), (4, 2, 5)),
    "einsum_of_groups": (lambda L: L.EinsumDense("abgc,gcd->abgd", (None, 3, 2), bias_axes="gd"), (4, 3, 5)),
    "einsum_with_ellipsis": (lambda L: L.EinsumDense("...x,xy->...y", 3, bias_axes="y"), (4, 5)),
    "steps_of_convolutions": (lambda L: L.TimeDistributed(L.Conv2D(3, 2)), (3, 4, 5, 2)),
}


def called(K, name):
    make, shape = KINDS[name]
    layer, x = make(K.layers), np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    layer(x[:1])
    for weight in layer.weights:
        weight.assign(np.random.default_rng(len(weight.shape)).normal(size=tuple(weight.shape)).astype(np.float32))
    return layer, x, np.asarray(layer(x))


def all_rows(part, x):
    folded = x.reshape(-1, *x.shape[1 + part.folded :]) if part.folded else x
    places = part.linear.places(folded.shape)
    samples, inside = np.divmod(np.arange(len(folded) * places), places)
    return part.linear.rows(folded, Chosen(samples, inside))


@pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("name", KINDS)
def test_rows_times_the_matrix_are_what_the_layer_computes(K, name):
    layer, x, y = called(K, name)
    (part,) = linear_parts(layer)
    rows, kernel = all_rows(part, x), np.asarray(part.linear.kernel)
    made = (rows @ part.linear.matrix(kernel)).transpose(1, 0, 2).reshape(rows.shape[1], -1)
    bias = np.zeros(made.shape[1])
    if part.linear.bias is not None:
        bias = np.asarray(part.linear.bias).reshape(-1)
        zeros = np.zeros(part.linear.matrix(kernel)[:, 0].shape)
        assert part.linear.shift_of(zeros, part.linear.bias.shape).shape == tuple(part.linear.bias.shape)
    np.testing.assert_allclose(made + bias, y.reshape(made.shape), atol=2e-5)
    np.testing.assert_array_equal(part.linear.kernel_of(part.linear.matrix(kernel), kernel.shape), kernel)


@pytest.mark.parametrize("name", KINDS)
def test_the_solution_is_that_of_lstsq_on_all_rows(name):
    layer, x, _ = called(keras, name)
    (part,) = linear_parts(layer)
    x = np.concatenate([x, *(np.random.default_rng(seed).normal(size=x.shape) for seed in range(1, 8))])
    rows = all_rows(part, x.astype(np.float32))
    wanted = rows @ np.random.default_rng(7).normal(size=(len(rows), rows.shape[2], 3)) + 2
    half = rows.shape[1] // 2
    found = solve_ridge(
        *(equations_of(rows[:, part], wanted[:, part]) for part in (slice(half), slice(half, None))), True
    )
    for group in range(len(rows)):
        with_ones = np.concatenate([rows[group], np.ones((rows.shape[1], 1))], axis=1)
        free = np.linalg.lstsq(with_ones, wanted[group], rcond=None)[0]
        np.testing.assert_allclose(found.change[group], free[:-1], atol=1e-5)
        np.testing.assert_allclose(found.shift[group], free[-1], atol=1e-5)


def equations_of(rows, wanted):
    equations = Equations.zeros(len(rows), rows.shape[2], wanted.shape[2])
    for start in range(0, rows.shape[1], 50):  # in batches
        part = slice(start, start + 50)
        equations.add(rows[:, part], wanted[:, part], wanted[:, part])
    return equations


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 30), st.booleans())
def test_no_solution_leaves_a_larger_error_than_no_change(seed, inputs, count, intercept):
    random = np.random.default_rng(seed)
    rows, residuals = random.normal(size=(2, count, inputs)), random.normal(size=(2, count, 3))
    held = equations_of(rows[:, ::3], residuals[:, ::3])
    fit = equations_of(rows[:, 1::3], residuals[:, 1::3])
    found, total = solve_ridge(fit, held, intercept), fit + held
    left = np.concatenate([residuals[:, ::3], residuals[:, 1::3]], axis=1)
    left = left - np.concatenate([rows[:, ::3], rows[:, 1::3]], axis=1) @ found.change - found.shift[:, None]
    assert total.error(found.change, found.shift) == pytest.approx(np.square(left).sum(), rel=1e-9, abs=1e-9)
    assert np.square(left).sum() <= total.residual_squares.sum() * (1 + 1e-9)


def test_the_ridge_grows_with_the_noise():
    random = np.random.default_rng(0)
    rows = random.normal(size=(1, 40, 30))
    weights = random.normal(size=(1, 30, 1))

    def ridge(noise):
        wanted = rows @ weights + noise * random.normal(size=(1, 40, 1))
        return solve_ridge(
            equations_of(rows[:, :32], wanted[:, :32]), equations_of(rows[:, 32:], wanted[:, 32:]), False
        ).ridge

    assert ridge(0.0) < ridge(30.0)


def rows_of(rows, wanted):
    kept = Rows()
    for start in range(0, rows.shape[1], 50):
        part = slice(start, start + 50)
        kept.add(rows[:, part], wanted[:, part], wanted[:, part])
    return kept


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(10, 30), st.booleans())
def test_in_the_span_of_the_rows_the_solution_is_that_of_its_ridge(seed, inputs, count, intercept):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(1, count, inputs)).astype(np.float32).astype(np.float64)
    wanted = rows @ random.normal(size=(1, inputs, 3)) + random.normal(size=(1, count, 3)) + 2.0
    held = np.arange(count) % 5 == 4
    fit, tested = (rows_of(rows[:, own], wanted[:, own]) for own in (~held, held))
    found, total = solve_in_span(fit, tested, intercept), fit + tested
    left = wanted - rows @ found.change - found.shift[:, None]
    assert total.error(found.change, found.shift) == pytest.approx(np.square(left).sum(), rel=1e-6)
    assert np.square(left).sum() <= np.square(wanted).sum() * (1 + 1e-9)
    if np.isfinite(found.ridge):
        x = rows[0] - (rows[0].mean(axis=0) if intercept else 0.0)
        y = wanted[0] - (wanted[0].mean(axis=0) if intercept else 0.0)
        ridge = found.ridge * np.square(x).sum() / inputs  # relative to the mean square of an input
        expected = np.linalg.solve(x.T @ x + ridge * np.eye(inputs), x.T @ y)
        np.testing.assert_allclose(found.change[0], expected, atol=1e-4)


@pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_dense_layer_with_more_weights_than_equations_can_hold_is_solved(K, monkeypatch):
    from edgeprune.channels.reconstruct import solving

    L = K.layers
    i = K.Input((6, 6, 2))
    x = L.Flatten()(L.Conv2D(8, 3, activation="relu", name="a")(i))
    model = K.Model(i, L.Dense(3, name="head")(L.Dense(5, activation="relu", name="wide")(x)))
    kernel, bias = (np.asarray(weight).copy() for weight in model.get_layer("a").weights)
    kernel[..., 4:] = kernel[..., :4]  # what is dropped is left in copies
    model.get_layer("a").set_weights([kernel, bias])
    x = np.random.default_rng(0).normal(size=(60, 6, 6, 2)).astype(np.float32)
    plan = ep.plan_channels(model, pruning_ratio=0.1)
    plan = plan.keep("a").keep("wide").drop("a", range(4, 8))
    monkeypatch.setattr(solving, "MOST_INPUTS", 50)
    with pytest.warns(UserWarning, match="fewer samples than weights to solve for in wide"):
        found = plan.reconstruct(x)
    assert not found.unsolved and found.layers[0].name == "wide" and found.layers[0].inputs == 64
    assert found.after < 0.05 * found.before
