"""Intervals beside every resample there is, their coverage, the split, the verdict."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune import flavor as flavors
from edgeprune.search.budget import Budget
from edgeprune.search.verdict.bootstrap import mean_interval, statistic_interval
from edgeprune.search.verdict.gate import hold_out, verdict_on
from edgeprune.search.verdict.judge import judge_of


@pytest.mark.parametrize("values", [[0.0, 1.0, 5.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
def test_the_interval_is_that_of_all_resamples(values):
    means = [np.mean(chosen) for chosen in itertools.product(values, repeat=len(values))]
    found = mean_interval(np.array(values), confidence=0.8, num_resamples=20_000)
    assert found.value == pytest.approx(np.mean(values))
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    assert found.low == pytest.approx(low, abs=0.1) and found.high == pytest.approx(high, abs=0.1)
    other = statistic_interval(
        len(values), lambda rows: float(np.array(values)[rows].mean()), confidence=0.8, num_resamples=4000
    )
    assert (other.low, other.high) == pytest.approx((low, high), abs=0.1)


def test_weights_count_as_repeated_samples_do():
    values, weights = np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0, 1.0])
    assert mean_interval(values, weights).value == pytest.approx(0.75)
    assert mean_interval(np.array([5.0, 0.0]), np.array([1.0, 0.0])).high == pytest.approx(5.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.integers(0, 5))
def test_an_interval_lies_within_the_values_and_is_the_seeds(values, seed):
    found = mean_interval(np.array(values), seed=seed, num_resamples=50)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found == mean_interval(np.array(values), seed=seed, num_resamples=50)


@pytest.mark.slow
def test_intervals_hold_the_true_mean_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for seed in range(600):
        found = mean_interval(rng.exponential(size=60), confidence=0.9, num_resamples=400, seed=seed)
        held += found.low <= 1.0 <= found.high
    assert 0.85 < held / 600 < 0.93


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: mean_interval(np.array([])), "no samples"),
        (lambda: mean_interval(np.ones(3), confidence=1.0), "confidence must be above 0"),
        (lambda: mean_interval(np.ones(3), num_resamples=0), "num_resamples must be a whole"),
        (lambda: mean_interval(np.ones(3), np.zeros(3)), "sum to 0"),
        (lambda: statistic_interval(3, lambda rows: float("nan")), "is NaN"),
        (lambda: hold_out(np.ones(4), share=1.0), "above 0 and below 1"),
        (lambda: hold_out(np.ones(1)), "too few to hold 50% of them out"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=12, max_size=80), st.floats(0.2, 0.8), st.integers(0, 9), st.booleans())
def test_each_class_is_split_alike(labels, share, seed, one_hot):
    y = np.array(labels)
    x = {"a": np.arange(len(y)), "b": np.arange(len(y))[:, None]}
    given_y = np.eye(4)[y] if one_hot else y
    first, last = hold_out(x, given_y, np.arange(len(y)), share=share, seed=seed)
    rows = [np.asarray(part[0]["a"]) for part in (first, last)]
    assert sorted(np.concatenate(rows)) == list(range(len(y)))
    for part, own in zip((first, last), rows, strict=True):
        assert np.array_equal(part[1], given_y[own]) and np.array_equal(part[2], own)
        assert np.array_equal(part[0]["b"][:, 0], own)
    for kind in set(labels):
        assert abs((y[rows[1]] == kind).sum() - share * (y == kind).sum()) <= 1
    again = hold_out(x, given_y, np.arange(len(y)), share=share, seed=seed)
    assert np.array_equal(again[1][0]["a"], rows[1])


def test_real_numbers_are_split_too():
    (x, y, weights), (held, _, _) = hold_out(np.arange(9), np.linspace(0, 1, 9), share=1 / 3)
    assert len(x) == len(y) == 6 and len(held) == 3 and weights is None


def judge_with(metric, labels, outputs, loss="sparse_categorical_crossentropy", sample_weight=None):
    keras = flavors.keras_module("keras")
    units = outputs["out"].shape[-1]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation="softmax", name="out")])
    model.compile("sgd", loss)
    return judge_of(model, outputs, np.zeros((len(labels), 2)), labels, sample_weight, metric, 32)


def test_a_file_is_accepted_where_every_limit_holds():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    before, after = ({"out": np.eye(3)[labels]} for _ in range(2))
    wrong = rng.permutation(200)[:10]
    after["out"][wrong] = np.eye(3)[(labels[wrong] + 1) % 3]
    judge = judge_with(None, labels, before)
    found = verdict_on(Budget(max_accuracy_drop=0.06, max_size=100), {"size": 90.0}, judge, before, after)
    assert found.accepted and found.before == 1.0 and found.after == found.before - found.lost.value == 0.95
    expected = mean_interval(np.isin(np.arange(200), wrong).astype(float))
    assert found.lost == expected and found.lost.low < 0.05 < found.lost.high
    found = verdict_on(Budget(max_accuracy_drop="4%", max_size=80, max_ram=10), {"size": 90.0}, judge, before, after)
    assert not found.accepted
    assert [one.limit for one in found.exceeded] == ["max_ram", "max_accuracy_drop", "max_size"]
    assert "not accepted: accuracy 1 before, 0.95 after" in str(found) and "max_size of 80 B: 90 B" in str(found)
    assert found.to_dict()["measured"] == {"size": 90.0, "accuracy_drop": pytest.approx(0.05)}


def test_weighted_samples_and_errors_are_drawn_with_their_weights():
    targets, weights = np.array([0.0, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 2.0, 0.0])
    before, after = {"out": np.zeros((4, 1))}, {"out": np.array([[0.0], [1.0], [2.0], [9.0]])}
    judge = judge_with("mae", targets, before, loss="mse", sample_weight=weights)
    found = verdict_on(Budget(max_accuracy_drop=1.0), {}, judge, before, after)
    assert found.lost.value == pytest.approx(5 / 4) and not found.accepted


def test_a_figure_that_is_no_mean_is_scored_for_each_resample():
    from edgeprune.measure.metrics import Metric

    rng = np.random.default_rng(1)
    labels = rng.normal(size=30)
    before, after = {"out": labels[:, None]}, {"out": labels[:, None] + rng.normal(size=(30, 1))}
    largest = Metric(lambda y_true, y_pred: abs(y_true.reshape(y_pred.shape) - y_pred).max(), "largest", False)
    judge = judge_with(largest, labels, before, loss="mse")
    found = verdict_on(Budget(max_accuracy_drop=10), {}, judge, before, after)
    assert found.accepted and found.lost.value == pytest.approx(np.abs(after["out"][:, 0] - labels).max())
    assert found.lost.low < found.lost.high <= found.lost.value + 1e-9


@pytest.mark.parametrize("flavor", ["keras", "tf_keras"])
def test_the_figure_of_one_of_several_outputs_is_drawn_from_its_samples(flavor):
    keras = flavors.keras_module(flavor)
    x = keras.Input((2,))
    model = keras.Model(x, {"price": keras.layers.Dense(1)(x), "price_kind": keras.layers.Dense(3)(x)})
    rng = np.random.default_rng(2)
    before, after = (
        {"price": rng.normal(size=(40, 1)), "price_kind": np.eye(3)[rng.integers(0, 3, 40)]} for _ in range(2)
    )
    labels, weights = {"price": rng.normal(size=40), "price_kind": rng.integers(0, 3, 40)}, rng.random(40)
    found = before, after
    for own, sign, expected in (
        ({"price": "mae"}, -1, [np.abs(one["price"][:, 0] - labels["price"]) for one in found]),
        ({"price_kind": "accuracy"}, 1, [one["price_kind"].argmax(1) == labels["price_kind"] for one in found]),
    ):
        judge = judge_of(model, before, np.zeros((40, 2)), labels, dict.fromkeys(labels, weights), own, 32)
        lost = sign * (expected[0].astype(float) - expected[1])
        drawn = verdict_on(Budget(max_accuracy_drop=9), {}, judge, before, after).lost
        wanted = mean_interval(lost, weights)
        assert [drawn.value, drawn.low, drawn.high] == pytest.approx([wanted.value, wanted.low, wanted.high], abs=1e-5)


@pytest.mark.parametrize("flavor", ["keras", "tf_keras"])
def test_metrics_that_are_traced_once_return_what_they_return_alone(flavor):
    keras, rng = flavors.keras_module(flavor), np.random.default_rng(3)

    auc = keras.metrics.AUC(name="auc")

    class Bias:
        """A metric that cannot be hashed, which Keras 3 refuses."""

        __name__, __hash__ = "bias", None

        def __call__(self, y_true, y_pred):
            return y_pred - y_true

    bias = Bias() if flavor == "tf_keras" else Bias().__call__
    draws = [(rng.integers(0, 2, (count, units)), rng.random((count, units))) for count in (40, 33) for units in (1, 2)]
    draws = [(true.astype("float32"), made.astype("float32")) for true, made in draws]

    def values(true, made):
        weights = np.arange(len(true), dtype=float)
        return [
            *flavors.metric_values(keras, true, made, weights, weighted_metrics=[auc, "mae"]).values(),
            *flavors.metric_values(keras, true, made, metrics=[auc, "accuracy", bias]).values(),
        ]

    alone = [values(*one) for one in draws]
    with flavors.evaluators_kept():
        for _ in range(2):
            np.testing.assert_allclose([values(*one) for one in draws], alone, rtol=1e-6)


def test_without_labels_the_classes_are_compared():
    before = {"out": np.eye(3)[[0, 1, 2, 0]]}
    after = {"out": np.eye(3)[[0, 1, 1, 0]]}
    keras = flavors.keras_module("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="out")])
    judge = judge_of(model, before, np.zeros((4, 2)), None, None, "agreement", 32)
    found = verdict_on(Budget(max_accuracy_drop=0.2), {}, judge, before, after)
    assert (found.metric, found.before, found.after) == ("agreement", 1.0, 0.75) and not found.accepted
    distance = judge_of(model, before, np.zeros((4, 2)), None, None, None, 32)
    assert verdict_on(Budget(max_accuracy_drop=1), {}, distance, before, after).after == pytest.approx(np.sqrt(2 / 2.5))
