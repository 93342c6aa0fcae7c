"""The data of importances: labels and weights by output as `fit` takes them, and data that no model can take."""

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.channels.plan.data_importance import Losses, as_tensors
from edgeprune.channels.plan.planning import plan_channels
from edgeprune.depth.blocks import plan_blocks

SAMPLES = 12


def net(flavor, structure="dict", objects=False, steps=0):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    i = keras.Input((steps, 4) if steps else (4,))
    h = keras.layers.Dense(8, activation="relu", name="hidden")(i)
    heads = {"kind": keras.layers.Dense(3, activation="softmax", name="kind")(h)}
    heads["size"] = keras.layers.Dense(1, name="size")(h)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    if objects:
        losses = {"kind": keras.losses.SparseCategoricalCrossentropy(), "size": keras.losses.MeanSquaredError()}
    if structure == "dict":
        model = keras.Model(i, heads)
    else:
        model, losses = keras.Model(i, list(heads.values())), list(losses.values())
    model.compile("sgd", losses, loss_weights=None if structure == "list" else {"kind": 1.0, "size": 0.5})
    return model


def samples(steps=0):
    rng = np.random.default_rng(0)
    rows = (SAMPLES, steps) if steps else (SAMPLES,)
    x = rng.normal(size=(*rows, 4)).astype("float32")
    labels = {"kind": rng.integers(0, 3, rows), "size": rng.normal(size=(*rows, 1)).astype("float32")}
    weights = {"kind": rng.random(rows).astype("float32"), "size": rng.random(rows).astype("float32")}
    return x, labels, weights


WEIGHTS = {
    "of every output": lambda w: w,
    "one for all": lambda w: w["kind"],
    "of one output": lambda w: {"kind": w["kind"], "size": None},
    "none": lambda w: None,
}


@pytest.mark.parametrize("structure", ["dict", "list"])
@pytest.mark.parametrize("form", WEIGHTS)
def test_the_loss_is_that_of_keras_whatever_the_weights_are(flavor, structure, form):
    model = net(flavor, structure, objects=structure == "list")
    x, y, weights = samples()
    given = WEIGHTS[form](weights)
    # What a missing weight and one for all stand for, written out for Keras.
    of_each = given if isinstance(given, dict) else dict.fromkeys(y, given)
    written = {name: np.ones(SAMPLES) if weight is None else weight for name, weight in of_each.items()}
    if structure == "list":
        y, written = list(y.values()), list(written.values())
        given = list(given.values()) if isinstance(given, dict) else given
    expected = model.evaluate(x, y, sample_weight=written, batch_size=SAMPLES, verbose=0, return_dict=True)["loss"]
    found = Losses(model, None)(as_tensors(y), model(x), as_tensors(given))
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


def test_weights_of_steps(flavor):
    model = net(flavor, steps=3)
    x, y, weights = samples(steps=3)
    expected = model.evaluate(x, y, sample_weight=weights, batch_size=SAMPLES, verbose=0, return_dict=True)["loss"]
    found = Losses(model, None)(as_tensors(y), model(x), as_tensors(weights))
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


def test_weights_that_are_zero_leave_an_output_out(flavor):
    """A channel that one head alone reads has no worth where the samples of that head count for nothing."""
    model = net(flavor)
    hidden = model.get_layer("hidden")
    kernel = np.array(model.get_layer("size").kernel)
    kernel[:4] = 0
    model.get_layer("size").kernel.assign(kernel)
    kernel = np.array(model.get_layer("kind").kernel)
    kernel[4:] = 0
    model.get_layer("kind").kernel.assign(kernel)
    x, y, _ = samples()
    for importance, name, kept in (("fisher", "kind", range(4)), ("taylor", "size", range(4, 8))):
        weights = {"kind": np.zeros(SAMPLES), "size": np.zeros(SAMPLES)} | {name: np.ones(SAMPLES)}
        plan = plan_channels(model, pruning_ratio=0.5, importance=importance, data=(x, y, weights), batch_size=5)
        assert plan.kept[[id(w) for w in model.weights].index(id(hidden.kernel))][1].tolist() == list(kept)


def test_data_that_does_not_fit(flavor):
    model = net(flavor)
    x, y, weights = samples()
    cases = [
        (dict(importance="taylor", data=(x, {**y, "kind": y["kind"] + 1})), "output 'kind' must be class numbers .*3"),
        (dict(importance="taylor", data=(x, {"kind": y["kind"]})), "Output 'size' .* has a loss, and no labels"),
        (dict(importance="taylor", data=(x, y, {"sort": weights["kind"]})), "got sample weights for .'sort'"),
        (dict(importance="activation", data=(x + 1j, None)), "is of type float32; got data of type complex"),
        (dict(importance="taylor", data=(x.astype(str), y)), "is of type float32; got data of type string"),
        (dict(importance="activation", data={"other": x}), "got 'other'"),
        (dict(importance="taylor", data=(x, [[1], [1, 2]])), "must be regular arrays with a row for each"),
    ]
    for settings, words in cases:
        with pytest.raises(ValueError, match=words):
            plan_channels(model, pruning_ratio=0.5, **settings)


def test_blocks_are_scored_on_labels_that_the_loss_can_take(flavor):
    keras = flavors.keras_module(flavor)
    i = keras.Input((4,))
    h = keras.layers.Dense(8)(i)
    h = keras.layers.Add(name="sum")([h, keras.layers.Dense(8)(h)])
    model = keras.Model(i, keras.layers.Dense(3, activation="softmax")(h))
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y, weights = samples()
    assert plan_blocks(model, num_blocks=1, data=(x, y["kind"], weights["kind"])).removed[0].name == "sum"
    with pytest.raises(ValueError, match="from 0 to 2; got -1"):
        plan_blocks(model, num_blocks=1, data=(x, y["kind"] - 1))


def test_dicts_of_inputs_are_read_by_the_names_that_the_model_has_for_them(flavor):
    keras = flavors.keras_module(flavor)
    inputs = {"left": keras.Input((4,), name="a"), "right": keras.Input((4,), name="b")}
    h = keras.layers.Dense(8)(keras.layers.Concatenate()([inputs["left"], inputs["right"]]))
    model = keras.Model(inputs, keras.layers.Dense(1)(h))
    x, y, _ = samples()
    left, right = x, 2 * x
    by_key, by_name = {"left": left, "right": right}, {"b": right, "a": left}
    kept = [
        plan_channels(
            model, pruning_ratio=0.5, importance=importance, data=(data, y["size"]), loss="mse"
        ).kept_mask.tolist()
        for data in (by_key, by_name)
        for importance in ("taylor", "activation")
    ]
    assert kept[0] == kept[2] and kept[1] == kept[3]
