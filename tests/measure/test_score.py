"""Scores of any compiled model beside Keras's own `evaluate`, and of the file beside the model."""

import importlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets.converted import convert

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.measure.metrics import Metric
from edgeprune.measure.score import NoScoreError, score_outputs

SAMPLES = 70  # two whole batches of `evaluate` and a part of one


@pytest.fixture
def keras(flavor):
    return importlib.import_module(flavor)


def dense(keras, units, activation=None):
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(units, activation=activation, name="out")])


def samples(rng, count=SAMPLES):
    return rng.normal(size=(count, 5)).astype("float32")


def evaluated(model, x, y, sample_weight=None):
    values = model.evaluate(x, y, sample_weight=sample_weight, return_dict=True, verbose=0)
    return {name: value for name, value in values.items() if not name.endswith("loss")}


def values_of(scores):
    return {one.name: one.value for one in scores}


TASKS = {
    "real numbers": (2, None, ["mse", "huber", "mae"], ["mae", "mse", "RootMeanSquaredError", "mean_squared_error"]),
    "one class": (3, "softmax", ["sparse_categorical_crossentropy"], ["accuracy", "sparse_categorical_crossentropy"]),
    "yes or no": (1, "sigmoid", ["binary_crossentropy"], ["accuracy", "AUC", "Precision", "binary_crossentropy"]),
    "several yes or no": (4, "sigmoid", ["binary_crossentropy"], ["binary_accuracy", "AUC", "Recall"]),
}


def targets(task, units, rng, count=SAMPLES):
    if task == "real numbers":
        return rng.normal(size=(count, units)).astype("float32")
    return rng.integers(0, units, count) if task == "one class" else rng.integers(0, 2, (count, units))


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_compiled_metrics_are_what_evaluate_returns(flavor, data):
    keras, rng = importlib.import_module(flavor), np.random.default_rng(data.draw(st.integers(0, 99)))
    task = data.draw(st.sampled_from(sorted(TASKS)))
    units, activation, losses, names = TASKS[task]
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    model, x, y = dense(keras, units, activation), samples(rng), targets(task, units, rng)
    model.compile(loss=data.draw(st.sampled_from(losses)), metrics=chosen[:1], weighted_metrics=chosen)
    weight = data.draw(st.sampled_from([None, rng.random(SAMPLES).astype("float32")]))
    scores = values_of(ep.score(model, x, y, sample_weight=weight))
    expected = evaluated(model, x, y, weight)
    assert sorted(scores.values()) == pytest.approx(sorted(expected.values()), rel=1e-4, abs=1e-6)


def own_error(y_true, y_pred):
    return abs(y_true - y_pred)


def test_metrics_of_every_form_keep_their_state(keras, rng):
    model, x, y = dense(keras, 1), samples(rng), rng.normal(size=(SAMPLES, 1)).astype("float32")
    own = keras.metrics.MeanMetricWrapper(lambda a, b: (a - b) ** 2, name="squared")
    metrics = ["mae", own_error, keras.metrics.RootMeanSquaredError(name="rmse"), own]
    model.compile("sgd", "mse", metrics=metrics)
    expected = evaluated(model, x, y)
    before = [np.array(one) for metric in model.metrics for one in metric.variables]
    compiled = model.loss, model.optimizer
    scores = ep.score(model, x, y[:, 0])  # (samples,) for an output (samples, 1)
    assert values_of(scores) == pytest.approx(expected, rel=1e-4)
    assert [one.name for one in scores] == ["mae", "own_error", "rmse", "squared"]
    assert [one.higher_is_better for one in scores] == [False, None, False, None]
    after = [np.array(one) for metric in model.metrics for one in metric.variables]
    assert all(map(np.array_equal, before, after)) and len(before) > 3
    assert compiled == (model.loss, model.optimizer)


@pytest.mark.parametrize(
    ("loss", "units", "activation", "labels", "expected"),
    [
        ("mse", 1, None, "real", {"mae": False}),
        ("log_cosh", 3, None, "real", {"mae": False}),
        ("sparse_categorical_crossentropy", 3, "softmax", "class", {"accuracy": True}),
        ("categorical_crossentropy", 3, "softmax", "one-hot", {"accuracy": True}),
        ("binary_crossentropy", 1, "sigmoid", "bits", {"accuracy": True, "auc": True}),
        ("binary_crossentropy", 4, "sigmoid", "bits", {"binary_accuracy": True, "auc": True}),
        ("binary_crossentropy", 2, "sigmoid", "shades", {"mae": False}),
        ("cosine_similarity", 3, None, "real", {"loss": False}),
    ],
)
def test_what_a_loss_suggests(keras, rng, loss, units, activation, labels, expected):
    model, x = dense(keras, units, activation), samples(rng)
    model.compile("sgd", loss)
    y = {
        "real": rng.normal(size=(SAMPLES, units)).astype("f4"),
        "class": rng.integers(0, units, SAMPLES),
        "one-hot": np.eye(units, dtype="f4")[rng.integers(0, units, SAMPLES)],
        "bits": rng.integers(0, 2, (SAMPLES, units)),
        "shades": rng.random((SAMPLES, units)).astype("f4"),
    }[labels]
    scores = ep.score(model, x, y)
    assert {one.name: one.higher_is_better for one in scores} == expected
    if loss == "cosine_similarity":
        assert scores["loss"] == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-4)
    else:  # the same by Keras's own metrics
        names = {"auc": "AUC", "accuracy": "accuracy", "mae": "mae", "binary_accuracy": "binary_accuracy"}
        model.compile("sgd", loss, metrics=[names[name] for name in expected])
        assert sorted(values_of(scores).values()) == pytest.approx(sorted(evaluated(model, x, y).values()), rel=1e-4)


def test_logits_are_judged_as_logits(keras, rng):
    model, x, y = dense(keras, 1), samples(rng), rng.integers(0, 2, SAMPLES)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    logits = model.predict(x, verbose=0)[:, 0]
    scores = ep.score(model, x, y)
    assert scores["accuracy"] == pytest.approx(np.mean((logits > 0) == y))
    order = np.argsort(np.argsort(logits)) + 1  # the AUC by ranks
    positive = y.sum()
    auc = (order[y == 1].sum() - positive * (positive + 1) / 2) / (positive * (SAMPLES - positive))
    assert scores["auc"] == pytest.approx(auc, abs=0.01)


@pytest.mark.parametrize("classes", [1, 3])
def test_pixels_are_scored_by_their_mean_iou(keras, rng, classes):
    keras.utils.set_random_seed(1)
    activation = "sigmoid" if classes == 1 else "softmax"
    model = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(classes, 1, activation=activation)])
    loss = "binary_crossentropy" if classes == 1 else keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    model.compile("sgd", loss)
    x, y = rng.normal(size=(9, 4, 4, 2)).astype("f4"), rng.integers(0, max(classes, 2), (9, 4, 4))
    if classes > 1:
        y[0] = 255
    outputs = model.predict(x, verbose=0)
    given = outputs.argmax(-1) if classes > 1 else outputs[..., 0] > 0.5
    counted = y != 255
    parts = [((given == c) & (y == c) & counted, ((given == c) | (y == c)) & counted) for c in range(max(classes, 2))]
    scores = ep.score(model, x, y)
    assert scores["mean_iou"] == pytest.approx(np.mean([both.sum() / one.sum() for both, one in parts]), rel=1e-4)
    assert scores["accuracy"] == pytest.approx(np.mean((given == y)[counted]))
    weights = rng.random(9).astype("f4")
    weighted = ep.score(model, x, y, sample_weight=weights)
    each = weights[:, None, None] * counted
    assert weighted["accuracy"] == pytest.approx(((given == y) * each).sum() / each.sum(), rel=1e-5)
    ious = [(both * each).sum() / (one * each).sum() for both, one in parts]
    assert weighted["mean_iou"] == pytest.approx(np.mean(ious), rel=1e-4)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy"])
def test_an_autoencoder_is_scored_by_its_reconstruction(keras, rng, loss):
    model, x = dense(keras, 5, "sigmoid"), rng.random((20, 5)).astype("f4")
    model.compile("sgd", loss)
    error = np.abs(model.predict(x, verbose=0) - x).mean()
    assert values_of(ep.score(model, x, x.copy())) == pytest.approx({"reconstruction_error": error})
    if loss == "mse":
        assert ep.score(model, x)["reconstruction_error"] == pytest.approx(error)
    else:  # of zeros and ones it might be a segmentation
        with pytest.raises(NoScoreError, match="no labels"):
            ep.score(model, x)


def two_by_two(keras, subclassed=False):
    keras.utils.set_random_seed(1)
    left, right = keras.Input((5,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    heads = [
        keras.layers.Dense(1, name="size")(joined),
        keras.layers.Dense(3, activation="softmax", name="kind")(joined),
    ]
    return keras.Model([left, right], heads)


def two_by_two_data(rng, count=SAMPLES):
    x = {"left": samples(rng, count), "right": rng.normal(size=(count, 3)).astype("f4")}
    return x, {"size": rng.normal(size=(count, 1)).astype("f4"), "kind": rng.integers(0, 3, (count, 1))}


def test_several_outputs_by_name_and_in_order(keras, rng):
    model, (x, y) = two_by_two(keras), two_by_two_data(rng)
    model.compile("sgd", ["mse", "sparse_categorical_crossentropy"], metrics=[["mae"], ["accuracy"]])
    expected = evaluated(model, x, list(y.values()))
    assert values_of(ep.score(model, x, y)) == pytest.approx(expected, rel=1e-4)
    listed = ep.score(model, list(x.values()), list(y.values()))
    assert values_of(listed) == pytest.approx(expected, rel=1e-4)
    assert list(values_of(ep.score(model, x, {"kind": y["kind"]}))) == ["kind_accuracy"]
    assert values_of(ep.score(model, x, y["size"], output="size")) == {"mae": pytest.approx(expected["size_mae"])}
    own = ep.score(model, x, y, metric={"size": Metric(own_error, "error", False)})
    assert values_of(own) == {"size_error": pytest.approx(expected["size_mae"], rel=1e-4)}
    with pytest.raises(ValueError, match="several outputs"):
        ep.score(model, x, y["size"])
    with pytest.raises(ValueError, match="metrics for .'weight'"):
        ep.score(model, x, y, metric={"weight": "mae"})


def test_the_file_has_the_scores_of_the_model(keras, rng, tmp_path):
    model, (x, y) = two_by_two(keras), two_by_two_data(rng)
    model.compile("sgd", {"size": "mse", "kind": "sparse_categorical_crossentropy"})
    path = ep.export_tflite(model, tmp_path / "m.tflite", verify=False).path
    weight = {"size": rng.random(SAMPLES), "kind": rng.random(SAMPLES)}
    of_model = ep.score(model, x, y, sample_weight=weight)
    of_file = ep.score(path, x, y, sample_weight=weight, model=model)
    assert values_of(of_file) == pytest.approx(values_of(of_model), rel=1e-4)
    assert list(values_of(of_file)) == ["size_mae", "kind_accuracy"]
    checked = ep.verify_tflite(path, model, x, y, sample_weight=weight)
    assert checked.passed and checked.scores == of_file
    assert checked.to_dict()["scores"]["size_mae"]["Keras"] == of_model["size_mae"]
    assert "size_mae" in str(checked) and "lower is better" in str(checked)


def test_a_file_without_its_model(rng, tmp_path):
    keras = importlib.import_module("keras")
    model = keras.Sequential([keras.Input(batch_shape=(1, 5)), keras.layers.Dense(1)])
    path, x = convert(model, tmp_path / "m.tflite"), samples(rng, 8)
    y = rng.normal(size=8).astype("f4")
    assert ep.score(path, x, y, metric="mae")["mae"] == pytest.approx(
        np.abs(model.predict(x, verbose=0)[:, 0] - y).mean(), rel=1e-4
    )
    with pytest.raises(NoScoreError, match="pass metric="):
        ep.score(path, x, y)
    assert "no score: " in str(ep.verify_tflite(path, None, x, y))


def test_batches_bring_their_weights(keras, rng):
    import tensorflow as tf

    model, x, y, weight = dense(keras, 2), samples(rng), rng.normal(size=(SAMPLES, 2)), rng.random(SAMPLES)
    model.compile("sgd", "mse")
    batches = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(16)
    expected = ep.score(model, x, y, sample_weight=weight)
    assert ep.score(model, batches) == expected != ep.score(model, x, y)


def test_subclassed_models_are_scored(keras, rng):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras.layers.Dense(1), keras.layers.Dense(2)

        def call(self, x):
            return {"first": self.first(x), "second": self.second(x)}

    model, x = Net(), samples(rng)
    model(x[:1])
    model.compile("sgd", {"first": "mse", "second": "mse"}, metrics={"first": ["mae"], "second": ["mae"]})
    y = {"first": rng.normal(size=(SAMPLES, 1)).astype("f4"), "second": rng.normal(size=(SAMPLES, 2)).astype("f4")}
    expected = [np.abs(model.predict(x, verbose=0)[name] - y[name]).mean() for name in y]
    assert list(values_of(ep.score(model, x, y)).values()) == pytest.approx(expected, rel=1e-4)


# Where there is no score.


def raising(y_true, y_pred):
    raise RuntimeError("out of paper")


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (raising, "raising raised RuntimeError: out of paper"),
        (lambda a, b: np.zeros(3), "must return one number, or one for each sample"),
        (lambda a, b: np.nan, "is nan"),
        ("no_such_metric", "Keras has no metric 'no_such_metric': pass the name of one"),
    ],
    ids=["raises", "shape", "nan", "name"],
)
def test_a_metric_that_fails_is_the_reason(rng, metric, reason):
    keras = importlib.import_module("keras")
    model, x, y = dense(keras, 1), samples(rng), rng.normal(size=(SAMPLES, 1))
    model.compile("sgd", "mse")
    with pytest.raises(NoScoreError, match="No score: ") as error:
        ep.score(model, x, y, metric=metric)
    assert reason in error.value.reason


def test_a_training_step_of_ones_own_tells_no_metric(keras, rng):
    class Detector(keras.Model):
        def train_step(self, data):
            raise NotImplementedError

    inputs = keras.Input((5,))
    model, x, y = Detector(inputs, keras.layers.Dense(1)(inputs)), samples(rng), rng.normal(size=(SAMPLES, 1))
    model.compile("sgd", "mse")
    with pytest.raises(NoScoreError, match="train_step of its own"):
        ep.score(model, x, y)
    assert ep.score(model, x, y, metric="mae")["mae"] > 0


def test_labels_that_the_loss_would_stretch_are_refused(keras, rng):
    model, x = dense(keras, 1), samples(rng)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"outputs of shape \(70, 1\), and the targets have \(70, 2\)"):
        ep.score(model, x, rng.normal(size=(SAMPLES, 2)))
    with pytest.raises(ValueError, match="70 samples and 3 labels"):
        ep.score(model, x, np.zeros(3))
    with pytest.raises(ValueError, match="70 samples and 3 sample weights"):
        ep.score(model, x, np.zeros(SAMPLES), sample_weight=np.ones(3))


def test_what_is_no_metric_is_refused():
    with pytest.raises(TypeError, match="got int: 3"):
        Metric(3)


def test_a_function_says_which_direction_is_better():
    def f(y_true, y_pred):
        return 0.0

    assert Metric(f).higher_is_better is None
    f.higher_is_better = True
    assert Metric(f).higher_is_better is True
    assert Metric(f, higher_is_better=False).higher_is_better is False


@pytest.fixture(params=["keras", "tf_keras"])
def house(request):
    """A model of a price and a kind, its samples and its labels."""
    keras = flavors.keras_module(request.param)
    x = np.random.default_rng(0).normal(size=(30, 4)).astype("f4")
    inputs = keras.Input((4,))
    price = keras.layers.Dense(1, name="price")(inputs)
    kind = keras.layers.Dense(2, activation="softmax", name="kind")(inputs)
    model = keras.Model(inputs, {"price": price, "kind": kind})
    metrics = {"price": ["mae"], "kind": ["accuracy"]}
    model.compile("sgd", {"price": "mse", "kind": "sparse_categorical_crossentropy"}, metrics=metrics)
    return model, x, {"price": 100 * x[:, :1], "kind": (x[:, 1] > 0).astype(int)}


def test_the_names_that_are_printed_are_accepted_as_a_metric(house):
    own = ep.score(*house)
    for one in own:
        assert ep.score(*house, metric=one.name).scores == (one,)
    both = ep.score(*house, metric=[own.scores[1].name, own.scores[0].name])
    assert both.scores == own.scores[::-1] and {one.output for one in both} == {"price", "kind"}
    assert [one.name for one in ep.score(*house, metric="price_mse")] == ["price_mse"]


@pytest.mark.parametrize("metric", ["kind_no_such", "no_such", {"kind": "no_such"}, ["accuracy", "no_such"]])
def test_an_unknown_metric_is_named_with_those_there_are(house, metric):
    model, x, y = house
    outputs = flavors.named_outputs(model, model.predict(x, verbose=0))
    scored = score_outputs(outputs, y, metric=metric, model=model)
    assert "Keras has no metric '" in scored.reason and "no_such'" in scored.reason
    if not isinstance(metric, dict):
        assert all(repr(one.name) in scored.reason for one in ep.score(*house))
