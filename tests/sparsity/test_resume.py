"""What is written in the middle of pruning has exact zeros, and a run goes on from it with the same masks and step."""

import warnings
import zipfile

import keras
import numpy as np
import pytest
from nets.pruned_nets import STEPS, X, Y

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.sparsity import constraint_masks, masks


def net(seed=7):
    keras.utils.set_random_seed(seed)
    inner = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(32, activation="relu", name="first")], name="inner"
    )
    inputs = keras.Input((12,))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(inner(inputs)))


def under_pruning(optimizer=None, frequency=2, **arguments):
    schedule = ep.PolynomialDecay(0.0, 0.8, end_step=4 * STEPS, frequency=frequency)
    model = ep.prune_low_magnitude(net(), schedule, **arguments)
    model.compile(optimizer or keras.optimizers.SGD(momentum=0.9), "sparse_categorical_crossentropy")
    return model


def fit(model, *callbacks, epochs=4, **arguments):
    callbacks = [ep.UpdatePruningStep(), *callbacks]
    model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **arguments)
    return model


def state(model):
    return {
        weight.name: (weight.run.step, weight.mask(), weight.value())
        for weight in constraint_masks.masked_weights(model)
    }


def assert_same_state(model, other):
    ours, theirs = state(model), state(other)
    assert ours.keys() == theirs.keys() and ours
    for name, (step, mask, value) in ours.items():
        assert step == theirs[name][0]
        np.testing.assert_array_equal(mask, theirs[name][1])
        np.testing.assert_allclose(value, theirs[name][2], rtol=1e-5, atol=1e-7)


def zeros_in_file(path):
    """The zeros of the kernels in a `.keras` file, as Keras loads it without any pruning."""
    model = keras.models.load_model(path, compile=False)
    return {row.layer: row.zeros for row in ep.sparsity_report(model).rows}


class Killed(Exception):
    """What stops a training in these tests."""


class KillAt(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize("optimizer", [dict(), dict(use_ema=True)], ids=str)
def test_every_checkpoint_has_the_exact_zeros_of_its_step(optimizer, tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.keras"), save_freq=2)
    fit(under_pruning(keras.optimizers.Adam(**optimizer)), checkpoint)
    files = sorted(tmp_path.glob("*.keras"))
    assert len(files) == 12
    schedule = ep.PolynomialDecay(0.0, 0.8, end_step=4 * STEPS, frequency=2)
    for file in files:
        epoch, batch = map(int, file.stem.split("-"))
        step = (epoch - 1) * STEPS + batch
        sparsity = float(schedule(step)[1])
        sizes = {"inner/first": 384, "head": 96}
        assert zeros_in_file(file) == {
            layer: size - masks.kept_count(size, sparsity) for layer, size in sizes.items()
        }, file.name


def test_averaged_weights_have_the_zeros_too(tmp_path):
    """`SwapEMAWeights` puts the optimizer's averages in place of the weights before a checkpoint."""
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(under_pruning(keras.optimizers.Adam(use_ema=True), frequency=1), swap, checkpoint)
    assert zeros_in_file(tmp_path / "4.keras") == {"inner/first": 307, "head": 77}


@pytest.mark.parametrize("backup_first", [True, False])
@pytest.mark.parametrize("save_freq", ["epoch", 5])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, backup_first, save_freq):
    straight = fit(under_pruning())

    def callbacks(*more):
        both = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=save_freq), ep.UpdatePruningStep()]
        return (both if backup_first else both[::-1]) + list(more)

    arguments = dict(batch_size=16, epochs=4, shuffle=False, verbose=0)
    with pytest.raises(Killed):
        under_pruning().fit(X, Y, callbacks=callbacks(KillAt(2 * STEPS + 1)), **arguments)
    resumed = under_pruning()
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(ep.pruning_step(resumed)))
    resumed.fit(X, Y, callbacks=callbacks(spy), **arguments)
    if save_freq == "epoch":
        assert seen[0] == 2 * STEPS
        assert_same_state(resumed, straight)
    else:  # saved after step 10 of 12; Keras starts the second epoch again
        assert seen[0] == 10
        assert ep.pruning_step(resumed) == 10 + 3 * STEPS
    assert ep.sparsity_report(resumed).zeros == 384


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_carry_masks_and_step(tmp_path, suffix):
    model = fit(under_pruning(), epochs=2)
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    other = under_pruning()
    other.optimizer.build(other.trainable_variables)  # or Keras does not load its state
    other.load_weights(path)
    assert_same_state(other, model)
    assert_same_state(fit(other, initial_epoch=2), fit(model, initial_epoch=2))


def test_a_kept_weight_that_happens_to_be_zero_is_still_kept(tmp_path):
    """Masks are saved; they are not guessed from the zeros."""
    model = fit(under_pruning(), epochs=2)
    (first, *_) = constraint_masks.masked_weights(model)
    value = first.value()
    position = tuple(np.argwhere(first.mask())[0])
    value[position] = 0
    first.variable.assign(value)
    model.save_weights(tmp_path / "x.weights.h5")
    other = under_pruning()
    other.load_weights(tmp_path / "x.weights.h5")
    assert constraint_masks.masked_weights(other)[0].mask()[position]


def test_masks_of_another_architecture_are_refused(tmp_path):
    other = ep.prune_low_magnitude(
        keras.Sequential([keras.Input((12,)), keras.layers.Dense(5, name="first")]), ep.PolynomialDecay(0.0, 0.8)
    )
    wide = ep.prune_low_magnitude(
        keras.Sequential([keras.Input((12,)), keras.layers.Dense(7, name="first")]), ep.PolynomialDecay(0.0, 0.8)
    )
    wide.compile("sgd", "mse")
    wide.fit(X, np.zeros((96, 7)), verbose=0, callbacks=[ep.UpdatePruningStep()])
    wide.save_weights(tmp_path / "wide.weights.h5")
    with pytest.warns(UserWarning, match="could not be loaded"):
        other.load_weights(tmp_path / "wide.weights.h5", skip_mismatch=True)
    assert ep.pruning_step(other) == -1 and constraint_masks.masked_weights(other)[0].mask().all()


def test_the_optimizer_of_a_loaded_model_goes_on_too(tmp_path):
    model = fit(under_pruning(), epochs=2)
    model.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert loaded.optimizer.iterations == 2 * STEPS
    loaded = ep.prune_low_magnitude(loaded, ep.PolynomialDecay(0.0, 0.8, end_step=4 * STEPS, frequency=2))
    loaded.load_weights(tmp_path / "half.keras")
    assert_same_state(fit(loaded, initial_epoch=2), fit(model, initial_epoch=2))


def test_a_model_loaded_in_the_scope_goes_on_being_pruned(tmp_path):
    """TF-MOT's checkpoint lines: no call of prune_low_magnitude, no settings."""
    model = fit(under_pruning(scope="global"), epochs=2)
    model.save(tmp_path / "half.keras")
    with ep.prune_scope():
        loaded = keras.models.load_model(tmp_path / "half.keras")
    assert_same_state(loaded, model)
    assert len({weight.run for weight in constraint_masks.masked_weights(loaded)}) == 1  # one call, one threshold
    assert_same_state(fit(loaded, initial_epoch=2), fit(model, initial_epoch=2))
    assert [weight.run.final_sparsity for weight in constraint_masks.masked_weights(loaded)] == [0.8, 0.8]
    assert not ep.is_pruned(keras.models.load_model(tmp_path / "half.keras"))  # outside of it, a plain model


def test_settings_of_each_layer_go_on(tmp_path):
    schedules = {"first": ep.ConstantSparsity(0.25, 0, frequency=1), "head": ep.PolynomialDecay(0.0, 0.75)}
    model = ep.prune_low_magnitude(net(), schedules, block_size=(2, 1))
    model.save(tmp_path / "folder", zipped=False)  # end_step is still open
    with ep.prune_scope():
        loaded = keras.models.load_model(tmp_path / "folder")
    loaded.compile("sgd", "sparse_categorical_crossentropy")
    fit(loaded)
    assert {row.layer: row.sparsity for row in ep.sparsity_report(loaded).rows} == {"inner/first": 0.25, "head": 0.75}
    kernel = loaded.get_layer("head").kernel.numpy().reshape(16, 2, 3)
    assert ((kernel == 0).all(axis=1) == (kernel == 0).any(axis=1)).all()


class EveryStep(ep.PruningSchedule):
    """A schedule of the user's own."""

    def __init__(self, sparsity):
        self.sparsity = sparsity

    def __call__(self, step):
        return step > 0, self.sparsity

    def get_config(self):
        return {"class_name": "EveryStep", "config": {"sparsity": self.sparsity}}


def test_a_schedule_of_the_users_own_goes_on_where_its_class_is_known(tmp_path):
    model = ep.prune_low_magnitude(net(), EveryStep(0.5))
    model.save(tmp_path / "own.keras")
    with (
        ep.prune_scope(),
        pytest.warns(UserWarning, match="'first' does not continue to be pruned: the class 'EveryStep'"),
    ):
        assert not ep.is_pruned(keras.models.load_model(tmp_path / "own.keras"))
    with ep.prune_scope(), keras.saving.custom_object_scope({"EveryStep": EveryStep}):
        loaded = keras.models.load_model(tmp_path / "own.keras")
    loaded.compile("sgd", "sparse_categorical_crossentropy")
    assert ep.sparsity_report(ep.strip_pruning(fit(loaded, epochs=1))).sparsity == 0.5


def test_a_function_as_schedule_is_not_in_the_file(tmp_path):
    ep.prune_low_magnitude(net(), lambda step: (True, 0.5)).save(tmp_path / "function.keras")
    with ep.prune_scope(), pytest.warns(UserWarning, match="its schedule is a function, which is not in the file"):
        keras.models.load_model(tmp_path / "function.keras")


def test_a_file_without_masks_is_warned_of(tmp_path):
    """Keras 3 writes neither masks nor step into `.h5`; a `.keras` file has them, for those who load them."""
    model = fit(under_pruning(), epochs=2)
    for name in ("half.h5", "half.keras"):
        model.save(tmp_path / name)
        loaded = ep.prune_low_magnitude(keras.models.load_model(tmp_path / name), ep.PolynomialDecay(0.0, 0.8))
        loaded.compile("sgd", "sparse_categorical_crossentropy")
        with pytest.warns(UserWarning, match=r"zeros already: first/kernel \(\d+%\), head/kernel .* grow back"):
            fit(loaded, epochs=1)
    with ep.prune_scope(), pytest.warns(UserWarning, match="writes neither masks nor step into an .h5 file"):
        assert not ep.is_pruned(keras.models.load_model(tmp_path / "half.h5"))


def test_zeros_that_the_first_update_keeps_bring_no_warning(tmp_path):
    model = fit(under_pruning(), epochs=2)
    stripped = ep.strip_pruning(model)
    again = ep.prune_low_magnitude(stripped, ep.ConstantSparsity(0.9, 1, frequency=1))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Pruning begins")
        fit(again, epochs=1)


def test_n_by_m_of_a_wrapped_model_goes_on_from_a_file(tmp_path):
    tf_keras = flavors.keras_module("tf_keras")
    model = tf_keras.Sequential([tf_keras.Input((12,)), tf_keras.layers.Dense(3, activation="softmax")])
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.25, 0, frequency=1), sparsity_m_by_n=(2, 4))
    for name in ("model.h5", "model.keras"):
        model.save(tmp_path / name)
        with ep.prune_scope():
            loaded = tf_keras.models.load_model(tmp_path / name)
        loaded.compile("sgd", "sparse_categorical_crossentropy")
        kernel = ep.strip_pruning(fit(loaded, epochs=1)).layers[0].kernel.numpy()
        assert ((kernel == 0).reshape(3, 4, 3).sum(axis=1) == 2).all()


def test_weights_from_before_pruning_load_as_ever(tmp_path):
    plain = net(seed=3)
    plain.save_weights(tmp_path / "plain.weights.h5")
    model = under_pruning()
    model.load_weights(tmp_path / "plain.weights.h5")
    assert ep.pruning_step(model) == -1
    np.testing.assert_array_equal(model.get_weights()[0], plain.get_weights()[0])


def test_files_load_without_this_package(tmp_path, elsewhere):
    model = fit(under_pruning(), epochs=2)
    path = tmp_path / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert b"edgeprune" not in archive.read("config.json")
    np.testing.assert_allclose(elsewhere.outputs("keras", path, X), model(X), rtol=1e-5, atol=1e-6)


def test_stripped_models_are_plain(tmp_path):
    model = ep.strip_pruning(fit(under_pruning()))
    model.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert all(weight.constraint is None for weight in model.weights)


@pytest.mark.parametrize("settings", [dict(scope="global"), dict(importance="taylor")], ids=str)
def test_a_wrapped_model_from_a_file_keeps_its_settings(settings, tmp_path):
    tf_keras = flavors.keras_module("tf_keras")
    model = tf_keras.Sequential([tf_keras.Input((12,)), tf_keras.layers.Dense(3, activation="softmax")])
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8), **settings)  # end_step is still open
    model.save(tmp_path / "model.h5")
    with ep.prune_scope():
        loaded = tf_keras.models.load_model(tmp_path / "model.h5")
    loaded.compile("sgd", "sparse_categorical_crossentropy")
    (wrapper,) = loaded.layers
    run = wrapper.pruning_schedule.run
    assert {"scope": run.scope, "importance": run.importance}.items() >= settings.items()
    assert isinstance(run.schedule, ep.PolynomialDecay) and run.schedule.end_step is None
    fit(loaded)
    assert ep.sparsity_report(ep.strip_pruning(loaded)).zeros == 36 - masks.kept_count(36, 0.8)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model"])
def test_a_wrapped_model_is_loaded_with_its_wrappers(name, tmp_path):
    tf_keras = flavors.keras_module("tf_keras")
    model = tf_keras.Sequential([tf_keras.Input((12,)), tf_keras.layers.Dense(3, name="dense")])
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0))
    model.save(tmp_path / name)
    assert [row.layer for row in ep.sparsity_report(flavors.load_model(tmp_path / name)).rows] == ["dense"]


def test_the_wrappers_of_tfmot_resume(tmp_path):
    tf_keras = flavors.keras_module("tf_keras")

    def wrapped():
        tf_keras.utils.set_random_seed(3)
        model = tf_keras.Sequential([tf_keras.Input((12,)), tf_keras.layers.Dense(3, activation="softmax")])
        model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8, end_step=4 * STEPS, frequency=2))
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    half = fit(wrapped(), epochs=2)
    half.save_weights(tmp_path / "half.h5")
    resumed = wrapped()
    resumed.load_weights(tmp_path / "half.h5")
    fit(resumed, initial_epoch=2)
    stripped = ep.strip_pruning(resumed)
    assert ep.sparsity_report(stripped).zeros == 36 - masks.kept_count(36, 0.8)
