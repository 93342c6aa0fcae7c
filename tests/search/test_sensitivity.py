"""Sensitivity against the same done by hand: each part pruned alone, built, and scored."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.plan.importance import class_scores
from edgeprune.search.verdict import judge


def residual_net(flavor, compiled=True):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", name="stem")(inputs)))
    y = layers.ReLU()(layers.Conv2D(8, 3, padding="same", name="wide")(x))
    x = layers.Add()([x, layers.Conv2D(6, 3, padding="same", name="back")(y)])
    x = layers.Dense(3, name="head", activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    for weight in model.weights:
        if "gamma" in weight.name or "bias" in weight.name:
            weight.assign(np.random.default_rng(1).uniform(0.2, 1.0, tuple(weight.shape)))
    if compiled:
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def dense_net():
    """A net that is quickly compiled, for what does not depend on the net."""
    keras = flavors.keras_module("keras")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units, activation="softmax" if units == 3 else "relu") for units in (6, 4, 3)]
    model = keras.Sequential([keras.Input((192,)), *layers])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def rows(data):
    """The images in rows."""
    x, y = data
    return x.reshape(len(x), -1), y


@pytest.fixture
def data(rng):
    return rng.normal(size=(40, 8, 8, 3)).astype(np.float32), rng.integers(0, 3, 40)


def by_hand(model, name, count, importance="l2"):
    """The plan that removes the least important channels of one group."""
    plan = ep.plan_channels(model, pruning_ratio=0.1)
    for group in plan.groups:
        plan = plan.keep(group.name)
    (group,) = [group for group in plan.groups if group.name == name]
    scores = class_scores(plan.graph, importance)[group.classes]
    return plan.drop(name, np.argsort(scores)[:count].tolist())


@pytest.mark.above_flavor
def test_each_score_is_that_of_the_smaller_model(flavor, data):
    model, (x, y) = residual_net(flavor), data
    curves = ep.sensitivity(model, (x, y), levels=(0.3, 0.75))
    assert curves.metric == "accuracy" and curves.higher_is_better
    assert curves.baseline == pytest.approx(ep.score(model, x, y)["accuracy"])
    assert [(curve.name, curve.removed) for curve in curves] == [("stem", (2, 4)), ("wide", (2, 6))]
    for curve in curves:
        for count, score in zip(curve.removed, curve.scores, strict=True):
            smaller = by_hand(model, curve.name, count).apply()
            assert score == pytest.approx(ep.score(smaller, x, y)["accuracy"])


@pytest.mark.above_flavor
def test_without_labels_the_distance_of_the_outputs_is_measured(flavor, data):
    model, (x, _) = residual_net(flavor, compiled=False), data
    curves = ep.sensitivity(model, x, levels=[0.5], importance="l1", batch_size=16)
    agreement = ep.sensitivity(model, x, levels=[0.5], importance="l1", metric="agreement")
    assert (curves.metric, curves.baseline, agreement.baseline) == ("distance", 0.0, 1.0)
    old = np.asarray(model(x))
    for curve in curves:
        new = np.asarray(by_hand(model, curve.name, curve.removed[0], "l1").apply(verify=False)(x))
        assert curve.scores[0] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old - old.mean(0)), rel=1e-4)
        assert agreement[curve.name].scores[0] == np.mean(old.argmax(-1) == new.argmax(-1))


@pytest.mark.above_flavor
def test_the_weights_of_each_layer_are_pruned_by_magnitude(flavor, data):
    model, (x, y) = residual_net(flavor), data
    curves = ep.sensitivity(
        model, (x, y), metric="sparse_categorical_crossentropy", kind="weights", levels=[0.6], ignore="back"
    )
    assert [curve.name for curve in curves] == ["stem", "wide", "head"]
    assert not curves.higher_is_better
    for curve in curves:
        layer = model.get_layer(curve.name)
        kernel = np.array(layer.kernel)
        magnitudes = np.sort(np.abs(kernel).ravel())
        layer.kernel.assign(np.where(np.abs(kernel) < magnitudes[curve.removed[0]], 0, kernel))
        assert curve.scores[0] == pytest.approx(
            ep.score(model, x, y, metric="sparse_categorical_crossentropy").scores[0].value, rel=1e-4
        )
        layer.kernel.assign(kernel)


@pytest.mark.above_flavor
def test_weights_that_stay_make_up_for_the_zeros_as_one_shot_pruning_does(flavor, data):
    model, x = residual_net(flavor), data[0]
    plain = ep.sensitivity(model, x, kind="weights", levels=[0.5])
    solved = ep.sensitivity(model, x, kind="weights", levels=[0.5], reconstruct=x)
    assert solved.reconstructed and not plain.reconstructed
    assert solved["head"].scores[0] < plain["head"].scores[0]
    wanted = model.predict(x, verbose=0)
    for curve in solved:
        layer = model.get_layer(curve.name)
        values = layer.get_weights()
        layer.set_weights(ep.prune_weights(model, {curve.name: 0.5}, reconstruct=x).get_layer(curve.name).get_weights())
        distance = np.linalg.norm(model.predict(x, verbose=0) - wanted) / np.linalg.norm(wanted - wanted.mean(0))
        layer.set_weights(values)
        assert curve.scores[0] == pytest.approx(distance, rel=1e-3)


def test_layers_with_several_kernels_keep_their_largest_magnitudes(rng):
    layers = flavors.keras_module("keras").layers
    model = flavors.keras_module("keras").Sequential([layers.Input((4, 3)), layers.SimpleRNN(4), layers.Dense(2)])
    x = rng.normal(size=(40, 4, 3)).astype(np.float32)
    plain, solved = (
        ep.sensitivity(model, x, kind="weights", levels=[0.5], reconstruct=samples) for samples in (None, x)
    )
    (recurrent, dense), (recurrent_solved, dense_solved) = plain, solved
    assert recurrent_solved == recurrent
    assert dense_solved.scores < dense.scores


@pytest.mark.above_flavor
def test_the_model_does_not_change(flavor, data):
    model = residual_net(flavor)
    before = [np.array(weight) for weight in model.weights]
    ep.sensitivity(model, data)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.weights, strict=True))


def test_what_was_measured_is_not_measured_again(rows, tmp_path, monkeypatch):
    model, cache, calls = dense_net(), tmp_path / "cache" / "curves.jsonl", []
    whole = ep.sensitivity(model, rows, cache=cache)
    lines = cache.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 6
    cache.write_text("".join(lines[:4]) + lines[4][:20])  # as after a kill
    distance = judge.score_outputs
    monkeypatch.setattr(judge, "score_outputs", lambda *args, **kwargs: calls.append(1) or distance(*args, **kwargs))
    assert ep.sensitivity(model, rows, cache=cache) == whole
    assert len(calls) == 1 + 3  # the baseline, and those that were lost
    assert ep.sensitivity(model, rows, cache=cache) == whole
    assert len(calls) == 5
    kernel = model.layers[0].kernel
    kernel.assign(np.array(kernel) * 2)  # another model
    ep.sensitivity(model, rows, cache=cache)
    assert len(calls) == 12
    assert sum(line.startswith("{") and line.endswith("}") for line in cache.read_text().splitlines()) == 13


def test_an_interrupted_run_keeps_what_it_has(rows, tmp_path, monkeypatch):
    model, cache = dense_net(), tmp_path / "curves.jsonl"
    score, calls = judge.score_outputs, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(*args, **kwargs)

    monkeypatch.setattr(judge, "score_outputs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ep.sensitivity(model, rows, cache=cache)
    assert len(cache.read_text().splitlines()) == 1 + 2
    ep.sensitivity(model, rows, cache=cache)
    assert len(calls) == 4 + 1 + 4


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"kind": "layers"}, ValueError, "kind must be"),
        ({"levels": ()}, ValueError, "levels is empty"),
        ({"levels": 0.5}, TypeError, "levels must be fractions"),
        ({"levels": (0.5, 1.0)}, ValueError, "above 0 and below 1"),
        ({"levels": ("a",)}, TypeError, "A level must be a number"),
        ({"metric": lambda y_true, y_pred: 0.0}, ValueError, "Which direction of"),
        ({"ignore": "conv"}, ValueError, "No channels of model"),
        ({"ignore": "nothing", "kind": "weights"}, ValueError, "fits no layer"),
        ({"ignore": ("stem", "wide")}, ValueError, "can be pruned"),
        ({"importance": "taylors"}, ValueError, "importance must be"),
    ],
)
def test_bad_input_is_refused(settings, error, message, data):
    with pytest.raises(error, match=message):
        ep.sensitivity(residual_net("keras"), data, **settings)


def test_a_metric_without_labels_is_refused(data):
    with pytest.raises(ep.NoScoreError, match="no labels"):
        ep.sensitivity(residual_net("keras"), data[0], metric="accuracy")
