"""Whether a figure can tell models apart, judged on outputs."""

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.search.verdict.judge import Judge, check_varies, figure_without_labels, judge_of


def judge(score, outputs):
    return Judge("figure", True, score(outputs), score, lambda rows: None, lambda made: None)


def test_a_model_of_one_class_alone_is_not_a_constant_figure():
    labels = np.arange(30) % 10
    one_class = {"out": np.eye(10, dtype=np.float32)[np.full(30, 4)]}
    check_varies(judge(lambda made: float(np.mean(made["out"].argmax(1) == labels)), one_class), one_class)


def test_a_constant_figure_is_refused():
    outputs = {"out": np.eye(10, dtype=np.float32)[np.arange(30) % 10]}
    with pytest.raises(ValueError, match="figure is 0.5 whatever the model computes"):
        check_varies(judge(lambda made: 0.5, outputs), outputs)


X = np.random.default_rng(0).normal(size=(20, 4)).astype("f4")
# The last layer's width and activation, the loss, and the figure without labels.
ENDS = {
    "logits": (3, None, "sparse", "agreement"),
    "softmax": (3, "softmax", None, "agreement"),
    "softmax after squares": (3, "softmax", "mse", "agreement"),
    "yes or no": (1, "sigmoid", "binary_crossentropy", "agreement"),
    "several labels": (3, "sigmoid", None, "agreement"),
    "a price": (1, None, "mse", "distance"),
    "a share": (1, "sigmoid", "mae", "distance"),
    "shades": (4, "sigmoid", "binary_crossentropy", "distance"),
    "nothing is known": (3, None, None, "distance"),
}


def model_of(flavor, *ends):
    keras = flavors.keras_module(flavor)
    inputs = keras.Input((4,))
    outputs, losses = {}, {}
    for number, (units, activation, loss, _) in enumerate(ends):
        name = f"out{number}"
        outputs[name] = keras.layers.Dense(units, activation, name=name)(inputs)
        losses[name] = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if loss == "sparse" else loss
    model = keras.Model(inputs, outputs)
    if all(losses.values()):
        model.compile("sgd", losses)
    return model


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_classes_are_compared_only_where_the_outputs_name_them(flavor, end):
    assert figure_without_labels(model_of(flavor, end), X) == end[-1]
    if end[0] != 4:
        classes = ENDS["softmax after squares" if end[2] else "softmax"]
        assert figure_without_labels(model_of(flavor, classes, end), X) == end[-1]


def test_classes_of_real_numbers_are_refused(flavor):
    model = model_of(flavor, ENDS["logits"], ENDS["a price"])
    outputs = flavors.named_outputs(model, model.predict(X, verbose=0))
    with pytest.raises(ValueError, match="loss of output 'out1' compares real numbers: pass metric='distance', or lab"):
        judge_of(model, outputs, X, None, None, "agreement", 32)
    assert judge_of(model, outputs, X, None, None, None, 32).name == "distance"


def test_each_of_several_labels_is_compared_by_itself():
    model = model_of("keras", ENDS["several labels"])
    before = {"out0": np.array([[0.9, 0.8, 0.1], [0.2, 0.6, 0.3]])}
    after = {"out0": np.array([[0.9, 0.3, 0.1], [0.2, 0.6, 0.7]])}
    found = judge_of(model, before, X[:2], None, None, "agreement", 32)
    assert (found.score(before), found.score(after)) == (1.0, pytest.approx(4 / 6))
    assert found.of_samples(after)[0].tolist() == pytest.approx([2 / 3, 2 / 3])


def house(flavor):
    """The judge of a metric, of a model of a price and a kind."""
    model = model_of(flavor, ENDS["a price"], ENDS["logits"])
    y = {"out0": X[:, :1], "out1": np.arange(20) % 3}
    outputs = flavors.named_outputs(model, model.predict(X, verbose=0))
    return lambda metric, labels=y: judge_of(model, outputs, X, labels, None, metric, 32)


def test_outputs_that_are_not_judged_are_named(flavor):
    judged = house(flavor)
    assert judged(None).name == "out0_mae" and judged("accuracy").name == "out1_accuracy"
    wanted = "only output 'out0' is judged, by out0_mae, and not 'out1': pass metric='out1_accuracy' to choose"
    assert judged(None).note == wanted and "pass metric='out0_mae' to" in judged(["accuracy"]).note
    assert judged("out1_accuracy").note is None and judged({"out1": "accuracy"}).note is None
    rows = judged("accuracy").of_rows(np.arange(6))
    assert (rows.name, rows.note) == ("out1_accuracy", None)
    assert judged("mse", {"out0": X[:, :1]}).name == "out0_mse"


def test_a_metric_of_several_outputs_is_refused(flavor):
    with pytest.raises(ValueError, match="several outputs, 'out0_mse', 'out1_mse': pass the name of one, or a dict"):
        house(flavor)("mse", {"out0": X[:, :1], "out1": np.eye(3)[np.arange(20) % 3]})
    with pytest.raises(ValueError, match="Keras has no metric 'no_such': pass the name of one, or one of 'out0_mae'"):
        house(flavor)("no_such")
