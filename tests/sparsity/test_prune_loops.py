"""Pruning in loops of the user's own and around layers that are not called in training: zeros, or a warning."""

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
    dense_net,
    fit,
    keras3,
    train_batches,
    zeros_of,
)

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.sparsity import masks, wrapper_masks


def loop(model, keras, epochs=2, size=16, hooks=("begin",), compiled_step=False, training=True):
    """TF-MOT's guide: `begin` and `end` say which batch hooks the loop calls."""
    loss, optimizer = keras.losses.SparseCategoricalCrossentropy(), keras.optimizers.SGD()
    model.optimizer = optimizer
    pruning = ep.UpdatePruningStep()
    pruning.set_model(model)

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=training))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    step = tf.function(step) if compiled_step else step
    pruning.on_train_begin()
    for _ in range(epochs):
        for start in range(0, len(X), size):
            if "begin" in hooks:
                pruning.on_train_batch_begin(batch=-1)
            step(X[start : start + size], Y[start : start + size])
            if "end" in hooks:
                pruning.on_train_batch_end(batch=-1)
        if "epoch" not in hooks:
            pruning.on_epoch_end(batch=-1)


@pytest.mark.parametrize("compiled_step", [False, True])
def test_a_step_counts_whether_or_not_its_end_is_called(compiled_step, flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8, 0, 2 * STEPS, frequency=3))
    loop(model, flavors.keras_module(flavor), epochs=1, hooks=("begin",), compiled_step=compiled_step)
    loop(model, flavors.keras_module(flavor), epochs=1, hooks=("begin", "end"), compiled_step=compiled_step)
    assert ep.pruning_step(model) == 2 * STEPS
    assert_exact(ep.strip_pruning(model))


def test_an_epoch_may_have_a_single_step_without_an_end(flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.8, 0, frequency=1), scope="global")
    loop(model, flavors.keras_module(flavor), size=len(X))
    assert ep.pruning_step(model) == 2
    assert ep.sparsity_report(ep.strip_pruning(model)).zeros == 944 - masks.kept_count(944, 0.8)


def test_a_first_batch_that_is_interrupted_in_fit_is_no_step(flavor):
    keras = flavors.keras_module(flavor)
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8), scope="global"))

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Interrupt()])
    fit(model)
    assert ep.pruning_step(model) == 2 * STEPS


def test_a_schedule_that_no_step_of_a_loop_falls_on_is_warned_of_at_the_end(flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=100))
    loop(model, flavors.keras_module(flavor))
    with pytest.warns(UserWarning, match=r"stripped at step 1[12], with a sparsity of 0.000 rather than 0.500"):
        ep.strip_pruning(model)


def test_a_loop_without_any_hook_is_warned_of_at_the_end(flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=1), scope="global")
    loop(model, flavors.keras_module(flavor), hooks=("epoch",), compiled_step=True)
    names = "first/kernel, second/kernel, head/kernel: no zeros" if flavor == "tf_keras" else "its schedule never ran"
    with pytest.warns(UserWarning, match=names):
        ep.strip_pruning(model)


def test_a_tf_keras_loop_that_calls_the_model_as_in_inference_is_warned_of():
    keras = flavors.keras_module("tf_keras")
    model = ep.prune_low_magnitude(dense_net("tf_keras"), ep.ConstantSparsity(0.5, 0, frequency=1))
    loop(model, keras, hooks=("epoch",), training=False)
    with pytest.warns(UserWarning, match="its schedule never ran"):
        ep.strip_pruning(model)


def test_equal_magnitudes_leave_no_zeros_and_are_warned_of(flavor):
    """With a learning rate of zero the kernel of ones stays one: every weight ties with the threshold."""
    keras = flavors.keras_module(flavor)
    model = dense_net(flavor)
    model.set_weights([np.ones_like(w) if w.shape == (32, 16) else w for w in model.get_weights()])
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0, frequency=1))
    fit(compiled(model, keras.optimizers.SGD(0.0)))
    with pytest.warns(UserWarning, match="^second/kernel: no zeros after"):
        ep.strip_pruning(model)


def test_groups_longer_than_the_inputs_are_warned_of():
    model = compiled(ep.prune_low_magnitude(dense_net(), sparsity_m_by_n=(1, 14), layers="first"))
    fit(model, epochs=1)
    with pytest.warns(UserWarning, match="^first/kernel: no zeros .* fewer inputs than each group of N:M keeps"):
        ep.strip_pruning(model)


def transfer_net(keras, frozen, deep):
    """A base called with `training=False`, as in TensorFlow's tutorial, and around it a model with a head."""
    base = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(32, name="inside"), keras.layers.BatchNormalization()], name="base"
    )
    base.trainable = not frozen
    inputs = keras.Input((12,))
    features = base(inputs, training=False)
    if deep:
        middle = keras.Model(inputs, keras.layers.Dense(16, name="between")(features), name="middle")
        inputs = keras.Input((12,))
        features = middle(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(features))


@pytest.mark.parametrize(("frozen", "deep"), [(True, False), (False, True)])
def test_a_base_called_as_in_inference_is_pruned(frozen, deep, flavor):
    model = transfer_net(flavors.keras_module(flavor), frozen, deep)
    model = compiled(ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no zeros")
        fit(model)
        assert_exact(ep.strip_pruning(model))


@pytest.mark.parametrize(
    "arguments", [dict(sparsity_m_by_n=(1, 2)), dict(block_size=(4, 2)), dict(scope="global")], ids=str
)
def test_the_masks_of_such_a_base_follow_the_settings(arguments):
    keras = flavors.keras_module("tf_keras")
    schedule = ep.ConstantSparsity(0.5, 0, frequency=1)
    model = ep.prune_low_magnitude(transfer_net(keras, False, False), schedule, layers="inside", **arguments)
    fit(compiled(model))
    kernel = ep.strip_pruning(model).get_layer("base").get_layer("inside").kernel.numpy()
    assert (kernel == 0).mean() == 0.5
    if "block_size" in arguments:
        blocks = (kernel == 0).reshape(3, 4, 16, 2)
        assert (blocks.all(axis=(1, 3)) == blocks.any(axis=(1, 3))).all()
    if "sparsity_m_by_n" in arguments:
        assert ((kernel == 0).reshape(6, 2, 32).sum(axis=1) == 1).all()


def test_the_step_of_such_a_base_is_saved_with_it(tmp_path):
    keras = flavors.keras_module("tf_keras")

    def under_pruning():
        keras.utils.set_random_seed(1)
        schedule = ep.PolynomialDecay(0.0, 0.8, 0, 4 * STEPS, frequency=2)
        return compiled(ep.prune_low_magnitude(transfer_net(keras, False, False), schedule))

    half = under_pruning()
    fit(half)
    half.save_weights(tmp_path / "half.h5")
    resumed = under_pruning()
    resumed.load_weights(tmp_path / "half.h5")
    fit(resumed, epochs=4, initial_epoch=2)
    assert all(weight.step == 4 * STEPS for weight in wrapper_masks.masked_weights(resumed))
    assert_exact(ep.strip_pruning(resumed))


def test_a_base_that_stands_still_in_a_loop_without_hooks_is_named():
    keras = flavors.keras_module("tf_keras")
    model = transfer_net(keras, False, False)
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0, frequency=1))
    loop(model, keras, hooks=())
    with pytest.warns(UserWarning, match="^inside/kernel: no zeros"):
        ep.strip_pruning(model)


def test_a_tf_keras_model_without_an_input_shape():
    keras = flavors.keras_module("tf_keras")

    def unbuilt():
        layers = [keras.layers.Dense(16, name="wide"), keras.layers.Dense(3, activation="softmax")]
        return ep.prune_low_magnitude(keras.Sequential(layers), ep.ConstantSparsity(0.5, 0, frequency=1))

    with pytest.warns(UserWarning, match="its schedule never ran"):
        assert [layer.name for layer in ep.strip_pruning(unbuilt()).layers][0] == "wide"
    with pytest.raises(ValueError, match="not built"):
        ep.sparsity_report(unbuilt())
    with pytest.raises(ValueError, match="'wide' is under pruning and not built: pass the model an input shape"):
        fit(compiled(unbuilt()))
    model = compiled(unbuilt())
    model.build((None, 12))
    fit(model)
    assert_exact(ep.strip_pruning(model), 0.5)


def test_train_on_batch_by_hand():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8, end_step=12, frequency=3)))
    pruning = train_batches(model, 12)
    pruning.on_epoch_end(0)
    pruning.on_train_end()
    assert_exact(model)


def tfmot_guides_loop(model, keras, step_of=lambda step: step):
    """The custom training loop of TF-MOT's comprehensive guide."""
    loss = keras.losses.SparseCategoricalCrossentropy()
    optimizer = keras.optimizers.Adam()
    callback = ep.UpdatePruningStep()
    callback.set_model(model)
    model.optimizer = optimizer

    @step_of
    def train_step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    callback.on_train_begin()
    for _ in range(2):
        for start in range(0, 96, 16):
            train_step(X[start : start + 16], Y[start : start + 16])
        callback.on_epoch_end(batch=-1)


def test_tfmots_own_loop_runs_as_it_is(flavor):
    keras = flavors.keras_module(flavor)
    model = ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8, 0, 12, frequency=3))
    tfmot_guides_loop(model, keras)
    assert_exact(ep.strip_pruning(model))


def test_a_compiled_loop_without_the_batch_hooks_is_told():
    model = ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8, 0, 12, frequency=3))
    with pytest.raises(RuntimeError, match="on_train_batch_begin"):
        tfmot_guides_loop(model, keras3(), step_of=tf.function)


def test_pruning_a_model_that_was_trained_already():
    """Its training step is compiled, and must learn of the masks."""
    model = compiled(dense_net())
    model.fit(X, Y, batch_size=16, verbose=0)
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8))
    fit(model)
    assert_exact(model)
    before = zeros_of(model)
    ep.strip_pruning(model)
    assert not ep.is_pruned(model)
    model.fit(X, Y, batch_size=16, verbose=0)
    assert sum(zeros_of(model).values()) < sum(before.values())  # nothing of the masks is left in the step


def test_a_later_fit_without_the_callback_keeps_the_masks():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8)))
    fit(model)
    before = [layer.kernel.numpy() == 0 for layer in model.layers]
    model.fit(X, Y, batch_size=16, verbose=0)
    for layer, zeros in zip(model.layers, before, strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy() == 0, zeros)


def test_a_step_compiled_for_a_model_around_learns_of_masks_inside():
    keras = keras3()
    inner = compiled(dense_net(name="inner"))
    inputs = keras.Input((12,))
    outer = compiled(keras.Model(inputs, inner(inputs)))
    outer.fit(X, Y, batch_size=16, verbose=0)
    fit(ep.prune_low_magnitude(inner, ep.PolynomialDecay(0.0, 0.8)))
    before = zeros_of(inner)
    fit(outer, epochs=1)
    assert zeros_of(inner) == before
    ep.strip_pruning(outer)
    inner.fit(X, Y, batch_size=16, verbose=0)  # compiled with the masks, which are gone
    assert sum(zeros_of(inner).values()) < sum(before.values())


def test_taylor_after_a_fit_without_the_callback():
    model = ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8, 0, 24, frequency=6), importance="taylor")
    fit(compiled(model), epochs=1)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=16, verbose=0)  # compiles a step that gathers no scores
    fit(model, epochs=3)
    assert_exact(model)


def test_two_callbacks_count_once():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8)))
    fit(model, callbacks=[ep.UpdatePruningStep()])
    assert ep.pruning_step(model) == 2 * STEPS
    assert_exact(model)


def test_steps_per_execution_and_train_on_batch():
    """`train_on_batch` runs one step, whatever the setting."""
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0, 0.8, 0, 4)), steps_per_execution=4)
    train_batches(model, 1)
    assert ep.pruning_step(model) == 1


def test_an_interrupted_step_is_not_counted():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8, end_step=12)))

    class Interrupt(keras3().callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Interrupt()])
    fit(model, epochs=1)
    assert ep.pruning_step(model) == 3 + STEPS


def test_an_eager_loop_with_the_last_layer_frozen():
    model = dense_net()
    model.get_layer("head").trainable = False
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8, 0, 12, frequency=3))
    tfmot_guides_loop(model, keras3())
    assert ep.pruning_step(model) == 2 * STEPS
    assert_exact(ep.strip_pruning(model))


def test_several_fits_go_on_with_the_count():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8, end_step=12, frequency=2)))
    fit(model, epochs=1)
    assert ep.pruning_step(model) == STEPS
    partly = ep.sparsity_report(model).sparsity
    fit(model, epochs=1)
    assert 0 < partly < 0.75
    assert_exact(model)


def test_an_open_end_takes_the_steps_of_fit(flavor):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8)))
    fit(model, epochs=5, initial_epoch=2)
    assert_exact(ep.strip_pruning(model))
