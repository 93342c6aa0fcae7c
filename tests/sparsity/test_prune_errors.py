"""Pruning while training: what it refuses, what it warns of, and what its reports say."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from nets.pruned_nets import (
    STEPS,
    X,
    Y,
    assert_exact,
    compiled,
    conv_net,
    dense_net,
    fit,
    keras3,
    subclassed,
    train_batches,
)

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.fit import prune_and_fit
from edgeprune.sparsity.mechanism import mechanism_of


def test_training_without_the_callback_is_refused(flavor):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="UpdatePruningStep"):
        model.fit(X, Y, batch_size=16, verbose=0)


def test_a_model_without_a_kernel_comes_back_with_a_warning(flavor):
    """TF-MOT accepts it; zeros that will be missing are named."""
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((12,)), keras.layers.BatchNormalization(name="norm")])
    with pytest.warns(UserWarning, match="No layer of model .* can be pruned. norm: normalisation has no kernel"):
        assert ep.prune_low_magnitude(model) is model
    with pytest.raises(ValueError, match="No layer of model"):
        ep.prune_low_magnitude(model, layers="norm")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(layers="third"), ValueError, "layers='third' matches no layer .* first, second, head"),
        (dict(layers=[3]), TypeError, "layers= must be names"),
        (dict(layers=3), TypeError, "layers= must be names"),
        (
            dict(pruning_schedule=0.5),
            ValueError,
            "pruning_schedule must be a PruningSchedule .*, got 0.5",
        ),
        (
            dict(pruning_schedule={"nowhere": None}),
            ValueError,
            "must be a PruningSchedule .*, got None",
        ),
        (dict(pruning_schedule=ep.PolynomialDecay), ValueError, "must be a PruningSchedule or a function"),
        (dict(pruning_schedule=lambda step: 0.5), ValueError, "whether to prune at a step and the sparsity there"),
        (dict(pruning_schedule=lambda step: (True, np.nan)), ValueError, "the sparsity nan at step 1"),
        (dict(pruning_schedule={3: ep.ConstantSparsity(0.5, 0)}), ValueError, "names or patterns of layers as keys"),
        (dict(pruning_schedule={}), ValueError, "names or patterns of layers as keys"),
        (dict(pruning_policy="xnnpack"), TypeError, "pruning_policy must be a PruningPolicy, got 'xnnpack'"),
        (dict(pruning_policy=ep.PruneForLatencyOnXNNPack), TypeError, "pruning_policy must be a PruningPolicy"),
        (dict(sparsity_m_by_n=(1, 2**20)), ValueError, "n may be 65,536 at most"),
        (dict(scope=np.array(["local", "global"])), ValueError, "is unknown; choose one of 'local', 'global'"),
        (dict(scope="all"), ValueError, "scope='all' is unknown"),
        (dict(importance="taylor", sparsity_m_by_n=(2, 4)), ValueError, "makes its masks before the first"),
    ],
)
def test_bad_arguments(arguments, error, message, flavor):
    with pytest.raises(error, match=message):
        ep.prune_low_magnitude(dense_net(flavor), **arguments)


def test_bad_schedules_by_layer(flavor):
    with pytest.raises(ValueError, match="'nowhere', which fits the name of no layer"):
        ep.prune_low_magnitude(dense_net(flavor), {"nowhere": ep.ConstantSparsity(0.5, 0)})
    two = {"first": ep.ConstantSparsity(0.5, 0), "head": ep.ConstantSparsity(0.6, 0)}
    with pytest.raises(ValueError, match="accepts one schedule"):
        ep.prune_low_magnitude(dense_net(flavor), two, scope="global")


@pytest.mark.parametrize("thing", [None, "model.keras", np.zeros(3), [3]])
def test_other_things_are_refused_with_tfmots_words(thing):
    with pytest.raises(ValueError) as wanted:
        flavors.import_tfmot().sparsity.keras.prune_low_magnitude(thing)
    with pytest.raises(ValueError) as given:
        ep.prune_low_magnitude(thing)
    assert str(given.value) == str(wanted.value) or isinstance(thing, list)


def test_a_single_layer_must_fit_the_settings():
    layer = keras3().layers.Conv2D(8, 3, name="conv")
    layer.build((None, 8, 8, 3))
    with pytest.raises(ValueError, match="'conv' cannot be pruned: block_size needs a weight of 2 dimensions"):
        ep.prune_low_magnitude(layer, block_size=(2, 2))


def test_further_arguments_for_a_model_are_ignored_as_by_tfmot(flavor):
    with pytest.warns(UserWarning, match="input_shape: ignored"):
        model = ep.prune_low_magnitude(dense_net(flavor), input_shape=(12,))
    assert ep.is_pruned(model)


def test_a_schedule_whose_end_is_given_is_used_itself(flavor):
    """So that what a script changes in it later counts, as with TF-MOT; an open end is set on a copy."""
    for schedule, same in ((ep.ConstantSparsity(0.5, 0), True), (ep.PolynomialDecay(0.0, 0.8), False)):
        model = ep.prune_low_magnitude(dense_net(flavor), schedule)
        ((used, _),) = mechanism_of(model).scheduled(model)
        assert (used is schedule) is same


def test_a_training_that_is_to_prune_needs_a_kernel_and_a_plain_model(flavor):
    keras = flavors.keras_module(flavor)
    bare = keras.Sequential([keras.Input((12,)), keras.layers.BatchNormalization(name="norm"), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="No layer of model .* can be pruned"):
        prune_and_fit(compiled(bare), X, Y)
    with pytest.raises(ValueError, match="under pruning already"):
        prune_and_fit(compiled(ep.prune_low_magnitude(dense_net(flavor))), X, Y)


def test_nothing_left_to_choose_is_told(flavor):
    with pytest.raises(ValueError, match="None of those that layers=, .* has a kernel"):
        ep.prune_low_magnitude(conv_net(flavor), layers="flatten*")


def test_lora_is_left_alone_with_the_reason():
    model = dense_net()
    model.get_layer("first").enable_lora(2)
    report = ep.sparsity_report(ep.prune_low_magnitude(model))
    assert "merge it first" in report.skipped["first"] and {row.layer for row in report.rows if row.weight} == {
        "second",
        "head",
    }


def test_taylor_without_gradients_is_told():
    """A model that trains with an optimizer of its own, as a GAN does."""
    keras = keras3()

    class Gan(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(x) ** 2)
            self.own.apply_gradients(
                zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
            )
            return {"loss": loss}

    model = Gan([keras.Input((12,)), keras.layers.Dense(4)])
    model.own = keras.optimizers.SGD()
    model = compiled(ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8), importance="taylor"))
    with pytest.raises(RuntimeError, match='needs importance="magnitude"'):
        fit(model)


def test_an_open_end_in_a_loop_of_ones_own(flavor):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8)))
    pruning = train_batches(model, 1)
    with pytest.raises(ValueError, match="pass end_step"):
        pruning.on_epoch_end(0)


def test_taylor_on_tf_keras_needs_the_batch_hooks():
    model = compiled(ep.prune_low_magnitude(dense_net("tf_keras"), ep.PolynomialDecay(0, 0.8, 0, 6), scope="global"))
    pruning = ep.UpdatePruningStep()
    pruning.set_model(model)
    pruning.on_train_begin()
    model.train_on_batch(X[:16], Y[:16])
    with pytest.raises(RuntimeError, match="on_train_batch_begin"):
        pruning.on_epoch_end(0)


def test_stripping_before_the_schedule_has_ended_is_told(flavor):
    schedule = ep.PolynomialDecay(0.0, 0.8, end_step=10 * STEPS, frequency=2)
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), schedule))
    fit(model)
    with pytest.warns(UserWarning, match=r"at step 1[12] of 60, with a sparsity of 0.3\d\d rather than 0.800"):
        ep.strip_pruning(model)


def test_weights_without_their_masks_are_told():
    early = keras3().callbacks.EarlyStopping(monitor="loss", mode="max", patience=3, restore_best_weights=True)
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8)))
    with pytest.warns(UserWarning, match="ModelCheckpoint and load_weights bring back both"):
        fit(model, epochs=6, callbacks=[early])
        ep.strip_pruning(model)


def test_subclassed_tf_keras_models_are_refused_with_the_way_out():
    keras = flavors.keras_module("tf_keras")

    class Net(keras.Model):
        pass

    with pytest.raises(ValueError, match="use Keras 3"):
        ep.prune_low_magnitude(Net())


def test_an_open_end_needs_a_length():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8)))
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda x, y: True)
    with pytest.raises(ValueError, match="pass end_step"):
        model.fit(data, verbose=0, callbacks=[ep.UpdatePruningStep()])


def test_steps_are_counted_right_where_the_data_has_no_known_length():
    schedule = ep.PolynomialDecay(0.0, 0.8, end_step=12, frequency=4)
    model = compiled(ep.prune_low_magnitude(dense_net(), schedule))
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda x, y: True)
    model.fit(data, epochs=2, verbose=0, callbacks=[ep.UpdatePruningStep()])
    assert ep.pruning_step(model) == 2 * STEPS
    assert_exact(model)


def test_a_training_shorter_than_begin_step(flavor):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8, begin_step=50)))
    with pytest.raises(ValueError, match="only 12 steps: lower begin_step"):
        fit(model)


def test_a_schedule_that_training_does_not_reach_is_told(flavor):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=100)))
    with pytest.warns(UserWarning, match="with a sparsity of 0.000 rather than 0.500"):
        fit(model)


def test_the_callback_without_pruning_is_told(flavor):
    with pytest.warns(UserWarning, match="is not under pruning"):
        fit(compiled(dense_net(flavor)), epochs=1)


def test_stripping_without_training_is_told():
    model = ep.prune_low_magnitude(dense_net())
    with pytest.warns(UserWarning, match="was never trained under pruning"):
        ep.strip_pruning(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ep.strip_pruning(model) is model


def test_diverged_training_is_named():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8)))
    with pytest.raises(ValueError, match="first/kernel holds NaN .* at step"):
        fit(model, x=np.full_like(X, np.nan))


@pytest.mark.parametrize("thing", [None, "x"])
def test_reports_and_stripping_of_other_things(thing):
    with pytest.raises(ValueError, match="Expected a model or a layer"):
        ep.strip_pruning(thing)
    with pytest.raises(TypeError):
        ep.sparsity_report(thing)


def test_report_of_an_unbuilt_model():
    with pytest.raises(ValueError, match="not built"):
        ep.sparsity_report(subclassed())


def test_report_prints_as_a_table(flavor):
    text = str(ep.sparsity_report(conv_net(flavor)))
    assert text.splitlines()[0].split() == ["layer", "weight", "shape", "values", "zeros", "sparsity", "target"]
    assert text.splitlines()[-3].startswith("total")
    assert text.splitlines()[-2:] == [
        "not pruned: norm (normalisation has no kernel)",
        "not pruned: depthwise (depthwise kernels are too small to prune)",
    ]


def test_summaries_write_sparsity_and_threshold(flavor, tmp_path):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8)))
    fit(model, callbacks=[ep.PruningSummaries(str(tmp_path))])
    found = {}
    for file in (tmp_path / "metrics").iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
                found.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    assert len(found) == 6
    sparsities = next(values for tag, values in found.items() if tag.endswith("sparsity"))
    assert sparsities[0] == 0 and 0.3 < sparsities[1] < 0.8
    with pytest.raises(ValueError, match="log_dir"):
        ep.PruningSummaries("")
