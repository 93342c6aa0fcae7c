"""Distillation beside NumPy, Keras's own Distiller and the other Keras."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.fit.distillation_terms import output_terms
from edgeprune.measure.predictions import predict

SAMPLES, T = 24, 2.0


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


@pytest.fixture(autouse=True)
def one_step_at_a_time(request):
    """Steps of nets this small take less time than their compilation."""
    import tensorflow as tf

    tf.config.run_functions_eagerly("compiled" not in request.node.name)
    yield
    tf.config.run_functions_eagerly(False)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


X = numbers(SAMPLES, 5)
Y = np.random.default_rng(1).integers(0, 3, SAMPLES)
W = np.random.default_rng(2).uniform(0, 2, SAMPLES).astype("f4")


def net(
    keras, width=4, units=3, activation="softmax", loss="sparse_categorical_crossentropy", seed=1, rate=0.0, **options
):
    """Two dense layers whose weights depend on the seed alone, the same in both Kerases."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(width, activation="tanh", name="hidden", **options),
            layers.Dense(units, activation=activation, name="out"),
        ],
        name=f"net_{width}",
    )
    model.set_weights([numbers(*weight.shape, seed=seed + n) for n, weight in enumerate(model.get_weights())])
    if loss is not None:
        model.compile(keras.optimizers.SGD(rate), loss)
    return model


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def divergence(teacher, student):
    """Of logits, for each sample."""
    p, q = softmax(teacher.astype("f8") / T), softmax(student.astype("f8") / T)
    return (p * np.log(p / q)).sum(-1) * T**2


def bernoulli(teacher, student):
    """The same of yes and no, for each value."""
    p, q = (1 / (1 + np.exp(-values.astype("f8") / T)) for values in (teacher, student))
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))) * T**2


def logits_of(model, x=X):
    hidden = np.tanh(x @ model.get_weights()[0] + model.get_weights()[1])
    return hidden @ model.get_weights()[2] + model.get_weights()[3]


def distilled(student, teacher, y=None, **settings):
    """The figures of one step over all samples, before its update."""
    settings = {"epochs": 1, "batch_size": SAMPLES, "temperature": T, **settings}
    history = ep.distill(student, teacher, X, y, **settings).history.history
    return {name: values[0] for name, values in history.items()}


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("task", ["softmax", "logits", "mixed", "one yes or no", "several", "numbers", "custom loss"])
def test_the_figures_are_those_of_numpy(keras, task, weighted):
    units = {"one yes or no": 1, "several": 3, "numbers": 2}.get(task, 3)
    ends = {"softmax": ("softmax", "softmax"), "mixed": (None, "softmax"), "custom loss": ("softmax", "softmax")}
    ends.update({"one yes or no": ("sigmoid", "sigmoid"), "several": (None, "sigmoid")})
    losses = keras.losses
    loss = {
        "softmax": "sparse_categorical_crossentropy",
        "logits": losses.SparseCategoricalCrossentropy(from_logits=True),
        "mixed": losses.SparseCategoricalCrossentropy(from_logits=True),
        "one yes or no": "binary_crossentropy",
        "several": losses.BinaryCrossentropy(from_logits=True),
        "numbers": "mae",
        "custom loss": lambda y_true, y_pred: keras.losses.sparse_categorical_crossentropy(y_true, y_pred),
    }[task]
    own, of_teacher = ends.get(task, (None, None))
    student = net(keras, units=units, activation=own, loss=loss)
    teacher = net(keras, 6, units, of_teacher, loss=None, seed=7)
    if of_teacher is None:
        teacher.compile("sgd", loss)
    y = {3: Y, 2: numbers(SAMPLES, 2, seed=5), 1: (Y > 1)[:, None].astype("f4")}[units]
    if task == "several":
        y = np.eye(3, dtype="f4")[Y]
    weights = W if weighted else None
    expected = student.evaluate(X, y, batch_size=SAMPLES, sample_weight=weights, verbose=0)
    pair = logits_of(teacher), logits_of(student)
    per_sample = (
        np.square(pair[0] - pair[1]).mean(-1)
        if task == "numbers"
        else bernoulli(*pair).mean(-1)
        if task in ("one yes or no", "several")
        else divergence(*pair)
    )
    found = distilled(student, teacher, y, sample_weight=weights, student_loss_weight=0.25)
    assert found["student_loss"] == pytest.approx(expected, rel=1e-4)
    assert found["distillation_loss"] == pytest.approx(np.mean(per_sample * (1 if weights is None else W)), rel=1e-3)
    assert found["loss"] == pytest.approx(0.25 * found["student_loss"] + 0.75 * found["distillation_loss"], rel=1e-5)


def test_both_kerases_reach_the_same_weights_compiled():
    results = []
    for flavor in (flavors.KERAS_3, flavors.TF_KERAS):
        keras = flavors.keras_module(flavor)
        student, teacher = net(keras, rate=0.1), net(keras, 4, seed=7)
        distilled(student, teacher, Y, sample_weight=W, epochs=4, features=["hidden"], feature_weight=0.5)
        results.append(student.get_weights())
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert np.abs(ours - net(keras).get_weights()[-1]).max() > 1e-3


def test_what_the_distiller_of_keras_does_with_logits_is_done():
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours, theirs = (net(keras, activation=None, loss=loss, rate=0.1) for _ in range(2))
    teacher = net(keras, 6, activation=None, loss=None, seed=7)
    distilled(ours, teacher, Y, epochs=3, student_loss_weight=0.4)
    losses = keras.distillation.LogitsDistillation(temperature=T, loss=keras.losses.KLDivergence())
    distiller = keras.distillation.Distiller(teacher, theirs, losses, student_loss_weight=0.4)
    distiller.compile(keras.optimizers.SGD(0.1), loss)
    history = distiller.fit(X, Y, batch_size=SAMPLES, epochs=3, verbose=0).history
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert ours.history.history["distillation_loss"] == pytest.approx(history["distillation_loss"], rel=1e-4)


def test_without_labels_the_student_learns_what_the_teacher_says(keras):
    student, teacher = net(keras, loss=None), net(keras, 6, loss=None, seed=7)
    before = np.abs(student.predict(X, verbose=0) - teacher.predict(X, verbose=0)).mean()
    ep.distill(student, teacher, X, epochs=12, batch_size=SAMPLES, learning_rate=0.1)
    assert np.abs(student.predict(X, verbose=0) - teacher.predict(X, verbose=0)).mean() < 0.7 * before
    assert flavors.compilation_of(student) is None


def test_nothing_of_the_teacher_changes_and_the_student_is_compiled_as_before(keras):
    layers = keras.layers
    teacher = keras.Sequential([keras.Input((5,)), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)])
    teacher.layers[0].trainable = False
    teacher.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    student = net(keras, rate=0.1)
    student.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    before, own = teacher.get_weights(), student.get_weights()
    optimizer = student.optimizer
    assert ep.distill(student, teacher, X, Y, epochs=2) is student
    assert all(np.array_equal(*pair) for pair in zip(before, teacher.get_weights(), strict=True))
    assert [layer.trainable for layer in (teacher, *teacher.layers)] == [True, False, True, True]
    assert len(teacher.trainable_variables) == 2
    assert not np.array_equal(own[0], student.get_weights()[0])
    assert student.optimizer is optimizer and int(np.asarray(optimizer.iterations)) == 0
    assert len(student.history.history["accuracy"]) == 2 and len(student.evaluate(X, Y, verbose=0)) == 2


def test_another_loss_and_metric_are_used_in_training_alone(keras):
    student, teacher = net(keras, units=1, activation=None, loss="mse"), net(keras, 6, 1, None, "mse", seed=7)
    y = numbers(SAMPLES, 1, seed=3)
    expected = np.abs(student.predict(X, verbose=0) - y).mean()
    found = distilled(student, teacher, y, loss="mae", metric="mse")
    assert found["student_loss"] == pytest.approx(expected, rel=1e-4)
    assert found["mse"] == pytest.approx(np.square(student.predict(X, verbose=0) - y).mean(), rel=1e-4)


def test_regularizers_count_in_full(keras):
    student, teacher = net(keras, kernel_regularizer=keras.regularizers.L2(0.1)), net(keras, 6, seed=7)
    penalty = 0.1 * np.square(student.get_weights()[0]).sum()
    found = distilled(student, teacher, Y, student_loss_weight=0.25)
    labels = found["student_loss"] - penalty
    assert found["loss"] == pytest.approx(0.25 * labels + 0.75 * found["distillation_loss"] + penalty, rel=1e-4)
    alone = distilled(student, teacher)
    assert alone["loss"] == pytest.approx(alone["distillation_loss"] + penalty, rel=1e-4)


def two_headed(keras, seed, as_dict, loss=True):
    inputs = keras.Input((5,), name="features")
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(inputs)
    size = keras.layers.Dense(1, name="size")(inputs)
    model = keras.Model(inputs, {"size": size, "kind": kind} if as_dict else [kind, size])
    model.set_weights([numbers(*weight.shape, seed=seed + n) for n, weight in enumerate(model.get_weights())])
    if loss:
        losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
        model.compile(keras.optimizers.SGD(0.0), losses, loss_weights={"kind": 1.0, "size": 0.5})
    return model


@pytest.mark.parametrize("as_dict", [False, True], ids=["list", "dict"])
def test_each_output_has_a_term_that_counts_as_its_loss_does(keras, as_dict):
    student, teacher = two_headed(keras, 1, as_dict), two_headed(keras, 7, as_dict, loss=False)
    y = {"kind": Y, "size": numbers(SAMPLES, 1, seed=4)}
    weights = {"kind": W, "size": np.ones(SAMPLES, "f4")}
    of = {
        name: flavors.named_outputs(model, model.predict(X, verbose=0))
        for name, model in (("student", student), ("teacher", teacher))
    }
    kinds = [np.log(of[name]["kind"].astype("f8")) for name in ("teacher", "student")]
    expected = np.mean(divergence(*kinds) * W) + 0.5 * np.square(of["teacher"]["size"] - of["student"]["size"]).mean()
    found = distilled(student, teacher, y, sample_weight=weights)
    assert found["distillation_loss"] == pytest.approx(expected, rel=1e-3)
    labels = -np.mean(np.log(of["student"]["kind"])[np.arange(SAMPLES), Y] * W)
    labels += 0.5 * np.square(of["student"]["size"] - y["size"]).mean()
    assert found["student_loss"] == pytest.approx(labels, rel=1e-3)


@pytest.mark.parametrize("heads", ["one", "list", "dict", "labels are left out"])
def test_what_the_teacher_returns_may_be_known_before(keras, heads):
    made = []
    for is_known in (False, True):
        if heads in ("list", "dict"):
            student, teacher = two_headed(keras, 1, heads == "dict"), two_headed(keras, 7, heads == "dict", loss=False)
            y = {"kind": Y, "size": numbers(SAMPLES, 1, seed=4)}
        else:
            student, teacher, y = net(keras), net(keras, 6, seed=7), None if heads == "labels are left out" else Y
        known = predict(teacher, X) if is_known else None
        if is_known:
            teacher.set_weights([np.zeros_like(values) for values in teacher.get_weights()])  # it is not run
        settings = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "teacher_outputs": known}
        keras.utils.set_random_seed(3)
        figures = distilled(student, teacher, y, **settings)
        made.append((figures, student.get_weights()))
    assert made[0][0] == pytest.approx(made[1][0], rel=1e-5)
    for one, other in zip(made[0][1], made[1][1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_features_are_compared_where_the_widths_agree(keras):
    student, teacher = net(keras), net(keras, seed=7)
    hidden = [np.tanh(X @ model.get_weights()[0] + model.get_weights()[1]) for model in (student, teacher)]
    plain = distilled(student, teacher, Y)["distillation_loss"]
    found = distilled(student, teacher, Y, features={"hidden": "hidden"}, feature_weight=3.0)["distillation_loss"]
    assert found - plain == pytest.approx(3 * np.square(hidden[0] - hidden[1]).mean(), rel=1e-3)


@pytest.mark.parametrize(
    "channels_first",
    [
        pytest.param(False, id="channels last"),
        pytest.param(True, id="channels first, compiled", marks=pytest.mark.slow),
    ],
)
def test_features_of_fewer_channels_are_projected_and_the_projection_thrown_away(keras, channels_first):
    format = "channels_first" if channels_first else "channels_last"
    shape = (2, 6, 6) if channels_first else (6, 6, 2)

    def convolutional(width, name):
        keras.utils.set_random_seed(width)
        layers = keras.layers
        inputs = keras.Input(shape)
        x = layers.Conv2D(width, 3, padding="same", activation="relu", data_format=format, name="conv")(inputs)
        x = layers.GlobalAveragePooling2D(data_format=format)(layers.ReLU()(x))
        return keras.Model(inputs, layers.Dense(2, name="out")(x), name=name)

    student, teacher = convolutional(3, "small"), convolutional(8, "large")
    x, count = numbers(16, *shape), len(student.weights)
    ep.distill(student, teacher, x, epochs=8, features=["conv"], feature_weight=10.0, learning_rate=0.02)
    figures = student.history.history["distillation_loss"]
    assert figures[-1] < 0.8 * figures[0]
    assert len(student.weights) == count and student.output_shape == (None, 2)


def test_weights_are_pruned_while_the_student_is_distilled(keras):
    student = ep.prune_low_magnitude(net(keras, 8), ep.ConstantSparsity(0.5, 0, frequency=1))
    if keras.__name__ == flavors.TF_KERAS:
        student.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    calls = {"callbacks": [ep.UpdatePruningStep()], "features": ["hidden"], "learning_rate": 0.1}
    student = ep.strip_pruning(ep.distill(student, net(keras, 6, seed=7), X, Y, epochs=2, **calls))
    assert (student.get_weights()[0] == 0).sum() == 20
    assert not ep.is_pruned(student)


def test_channels_are_pruned_while_the_student_is_distilled(keras):
    student, teacher = net(keras, 8), net(keras, 6, seed=7)
    pruning = ep.ChannelPruning(ep.ConstantSparsity(0.5, 1, frequency=1), pruning_ratio=0.5)
    ep.distill(student, teacher, X, Y, epochs=2, callbacks=[pruning], learning_rate=0.1)
    smaller = ep.strip_pruning(student)
    assert smaller.get_layer("hidden").units == 4 and not ep.is_pruned(teacher)
    np.testing.assert_allclose(smaller.predict(X, verbose=0), student.predict(X, verbose=0), atol=1e-5)


def test_data_come_in_datasets(keras):
    import tensorflow as tf

    teacher = net(keras, 6, seed=7)
    base = getattr(keras.utils, "PyDataset", keras.utils.Sequence)

    class Batches(base):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            rows = slice(number * 12, number * 12 + 12)
            return X[rows], Y[rows], W[rows]

    tensors = tf.data.Dataset.from_tensor_slices
    expected = distilled(net(keras), teacher, Y, sample_weight=W)
    for data in (tensors((X, Y, W)).batch(12), Batches(), [(X[:12], Y[:12], W[:12]), (X[12:], Y[12:], W[12:])]):
        found = ep.distill(net(keras), teacher, data, epochs=1, batch_size=SAMPLES, temperature=T).history.history
        assert {name: values[0] for name, values in found.items()} == pytest.approx(expected, rel=1e-3)
    alone = ep.distill(net(keras), teacher, tensors(X).batch(SAMPLES), epochs=1, temperature=T).history.history
    assert alone["distillation_loss"][0] == pytest.approx(distilled(net(keras), teacher)["distillation_loss"], rel=1e-4)
    with pytest.raises(ValueError, match="holds its own labels"):
        ep.distill(net(keras), teacher, tensors(X).batch(4), Y)
    with pytest.raises(ValueError, match="has no batches"):
        ep.distill(net(keras), teacher, tensors(X[:0]).batch(4))


def test_a_checkpoint_holds_the_student(keras, tmp_path):
    student, path = net(keras, rate=0.1), tmp_path / "student.keras"
    saving = keras.callbacks.ModelCheckpoint(str(path))
    ep.distill(student, net(keras, 6, seed=7), X, Y, epochs=1, callbacks=[saving])
    loaded = ep.load_model(path)
    assert loaded.name == student.name
    np.testing.assert_allclose(loaded.predict(X, verbose=0), student.predict(X, verbose=0), atol=1e-6)


def test_a_subclassed_student(keras):
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = keras.layers.Dense(3, activation="softmax")

        def call(self, x, training=False):
            return self.dense(x)

    student, teacher = Own(), net(keras, 6, seed=7)
    student(X[:1])
    student.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    expected = divergence(logits_of(teacher), np.log(student.predict(X, verbose=0))).mean()
    assert distilled(student, teacher, Y)["distillation_loss"] == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="student 'own' is subclassed, so that the outputs of its layers"):
        ep.distill(student, teacher, X, Y, features={"hidden": "dense"})


def test_certain_answers_have_gradients(keras):
    """A softmax that says 0 exactly, and a sigmoid that says 1, are no reason for NaN."""
    for activation, units in (("softmax", 3), ("sigmoid", 2)):
        student = net(keras, units=units, activation=activation, loss=None)
        teacher = net(keras, 6, units, activation, None, seed=7)
        student.set_weights([weight * 1000 for weight in student.get_weights()])
        assert np.isfinite(distilled(student, teacher, learning_rate=0.01)["loss"])
        assert all(np.isfinite(weight).all() for weight in student.get_weights())


def test_a_nested_end_and_a_softmax_layer_are_known(keras):
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Softmax()], name="inner")
    inputs = keras.Input((5,))
    nested = keras.Model(inputs, inner(keras.layers.Dense(4)(inputs)))
    (term,) = output_terms(nested, net(keras, activation=None, loss=None), 2.0)
    assert (term.meaning, term.student_gives_logits, term.teacher_gives_logits) == ("classes", False, True)


def masked_net(keras):
    return ep.prune_low_magnitude(net(keras, seed=7), ep.ConstantSparsity(0.5, 0))


def of_other_keras(keras):
    other = flavors.TF_KERAS if keras.__name__ == flavors.KERAS_3 else flavors.KERAS_3
    return net(flavors.keras_module(other))


@pytest.mark.parametrize(
    "teacher, settings, words",
    [
        (of_other_keras, {}, "must be of one Keras"),
        (masked_net, {}, "is under pruning: pass what strip_pruning returns"),
        (lambda keras: net(keras, units=2), {}, r"outputs are of shape \(None, 3\) and \(None, 2\)"),
        (net, {"temperature": 0}, "temperature must be above 0"),
        (net, {"student_loss_weight": 1.5}, "student_loss_weight is a share"),
        (net, {"feature_weight": -1}, "feature_weight must be 0 or more"),
        (net, {"epochs": 0}, "epochs must be a whole number"),
        (net, {"features": ["hiden"]}, "has no layer 'hiden' in its own graph. Did you mean 'hidden'"),
        (net, {"y": Y[:3]}, "Data cardinality is ambiguous"),
        (net, {"y": Y + 1}, "class numbers from 0 to 2"),
        (net, {"y": None, "sample_weight": W}, "Without labels no sample is weighed"),
        (net, {"x": X * np.nan}, "became nan at step 1"),
        (
            net,
            {"teacher_outputs": {"out": numbers(3, 3)}},
            r"teacher_outputs are of shapes {'out': \(3, 3\)}; those of",
        ),
        (net, {"teacher_outputs": {"end": numbers(SAMPLES, 3)}}, "teacher_outputs are of shapes {'end'"),
        (net, {"teacher_outputs": {}, "features": ["hidden"]}, "are for arrays, and without features"),
        (
            net,
            {"teacher_outputs": {"out": numbers(SAMPLES)}},
            rf"teacher_outputs are of shapes {{'out': \({SAMPLES},\)}}",
        ),
        (
            net,
            {"teacher_outputs": {"out": np.where(np.arange(SAMPLES)[:, None] == 2, np.nan, numbers(SAMPLES, 3))}},
            rf"teacher_outputs\['out'\] hold NaN or infinity for 1 of {SAMPLES} samples, the first of them number 2",
        ),
    ],
    ids=lambda value: next(iter(value), "models") if isinstance(value, dict) else None,
)
def test_errors_name_what_is_wrong(keras, teacher, settings, words):
    settings = {"x": X, "y": Y, **settings}
    with pytest.raises(ValueError, match=words):
        ep.distill(net(keras, seed=3), teacher(keras), **settings)


def test_what_the_teacher_returned_is_checked(keras):
    student, teacher = two_headed(keras, 1, True), two_headed(keras, 7, True, loss=False)
    known, settings = predict(teacher, X), {"epochs": 1, "learning_rate": 0.1}
    with pytest.raises(TypeError, match="teacher_outputs is a dict of output name to array, got ndarray"):
        ep.distill(student, teacher, X, teacher_outputs=known["kind"])
    with pytest.raises(ValueError, match=r"teacher_outputs are of shapes {'kind': .*}; those of .*'size': "):
        ep.distill(student, teacher, X, teacher_outputs={"kind": known["kind"]})
    with pytest.raises(TypeError, match=r"teacher_outputs\['kind'\] are of type <U\d+, and no numbers"):
        ep.distill(student, teacher, X, teacher_outputs={**known, "kind": known["kind"].astype(str)})
    shuffled = tf.data.Dataset.from_tensor_slices(X).shuffle(SAMPLES).batch(4)
    with pytest.raises(ValueError, match="teacher_outputs are for arrays, and without features: leave them out"):
        ep.distill(student, teacher, shuffled, teacher_outputs=known)
    # In any order and of any type of number they are the same.
    made = []
    for outputs in (known, {name: known[name].astype("f8") for name in reversed(known)}):
        keras.utils.set_random_seed(3)
        made.append(distilled(two_headed(keras, 1, True), teacher, teacher_outputs=outputs, **settings))
    assert made[0] == pytest.approx(made[1], rel=1e-6)


@pytest.mark.parametrize("count", [SAMPLES, SAMPLES - 1])
def test_what_the_teacher_returned_may_have_any_length(keras, count):
    def sequences(seed):
        keras.utils.set_random_seed(seed)
        series = keras.Input((None, 5), name="series")
        return keras.Model(series, keras.layers.Dense(3, activation="softmax", name="out")(series))

    student, teacher, x = sequences(1), sequences(2), np.repeat(X[:, None], 4, axis=1)
    known = {"out": predict(teacher, x)["out"][:count]}
    if count < SAMPLES:
        with pytest.raises(ValueError, match=rf"of shapes .*\({count}, 4, 3\).* are .*\({SAMPLES}, None, 3\)"):
            ep.distill(student, teacher, x, teacher_outputs=known)
    else:
        ep.distill(student, teacher, x, teacher_outputs=known, epochs=1)


def test_a_student_that_shares_weights_or_trains_in_its_own_way_is_refused(keras):
    teacher = net(keras)
    with pytest.raises(ValueError, match="share weights"):
        ep.distill(keras.Sequential([keras.Input((5,)), *teacher.layers]), teacher, X)
    with pytest.raises(TypeError, match="model"):
        ep.distill("student.keras", teacher, X)

    class Own(keras.Sequential):
        def train_step(self, data):
            return {}

    student = Own([keras.Input((5,)), keras.layers.Dense(3, activation="softmax")])
    student.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="has a train_step of its own"):
        ep.distill(student, teacher, X, Y)
    ep.distill(student, teacher, X, epochs=1)


@pytest.mark.slow
def test_two_replicas_train_as_one_when_compiled(two_replicas):
    for name in (flavors.KERAS_3, flavors.TF_KERAS):
        keras = flavors.keras_module(name)
        alone, teacher = net(keras, rate=0.1), net(keras, 6, seed=7)
        distilled(alone, teacher, Y, features=["hidden"], feature_weight=0.0)
        with two_replicas.scope():
            student, teacher = net(keras, rate=0.1), net(keras, 6, seed=7)
            found = distilled(student, teacher, Y)
        for one, other in zip(student.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert found["loss"] == pytest.approx(alone.history.history["loss"][0], rel=1e-4)


def test_compiled_under_a_strategy_the_student_learns_what_it_does_under_none(keras, two_replicas):
    def learned():
        student, teacher = net(keras, rate=0.1), net(keras, width=6, seed=5)
        student.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return student, teacher

    whole = ep.distill(*learned(), X, Y, epochs=2, batch_size=SAMPLES)
    with two_replicas.scope():
        student, teacher = learned()
    parts = ep.distill(student, teacher, X, Y, epochs=2, batch_size=SAMPLES)  # whose scope it enters itself
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert parts.history.history["accuracy"] == pytest.approx(whole.history.history["accuracy"])
