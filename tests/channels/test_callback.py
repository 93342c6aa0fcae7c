"""Channels masked while training: exact zeros after every step, a target that is met, and a stripped model that is
the trained one."""

from __future__ import annotations

import numpy as np
import pytest
from nets.masked_nets import STEPS, X, Y, fit, net, schedule

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.callback import ChannelPruning, strip_channels
from edgeprune.channels.masks import is_channel_pruned, masks_of
from edgeprune.channels.plan.data_importance import STATISTICS
from edgeprune.channels.plan.importance import class_scores
from edgeprune.dead_channels.removal import remove_dead_channels
from edgeprune.measure.macs import count_macs


def outputs(model, x=X):
    return np.asarray(model(x, training=False))


def masked_values(model):
    """Everything that masked channels own, but the statistics of batch norms."""
    masks = masks_of(model)
    dropped = ~masks.kept_mask
    values = [
        np.take(np.asarray(slot.weight), np.flatnonzero(dropped[slot.classes]), axis=slot.axis).ravel()
        for slot in masks.graph.slots
        if slot.name not in STATISTICS
    ]
    return np.concatenate(values)


def watcher(flavor, watch):
    keras = flavors.keras_module(flavor)
    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: watch())


@pytest.mark.parametrize(
    ("flavor", "arguments"),
    [
        (flavors.KERAS_3, {"recover": True}),
        (flavors.KERAS_3, {"group_lasso": 0.003}),
        (flavors.TF_KERAS, {}),
    ],
)
def test_half_the_macs_on_images(flavor, sample, arguments):
    (x, y), _ = sample
    x, y = x[:128], y[:128]
    keras = flavors.keras_module(flavor)
    model = net(flavor, (28, 28, 1), 10, keras.optimizers.SGD(0.1), width=12)
    pruning = ChannelPruning(ep.PolynomialDecay(0.0, 0.5), target_macs=0.5, **arguments)
    history = model.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[pruning])
    smaller = strip_channels(model)
    assert count_macs(smaller).total / count_macs(model).total == pytest.approx(0.5, rel=0.04)
    assert len(masked_values(model)) and not masked_values(model).any()
    np.testing.assert_allclose(outputs(smaller, x[:64]), outputs(model, x[:64]), rtol=1e-4, atol=1e-6)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
    assert smaller.evaluate(x, y, verbose=0) < losses[0]
    assert smaller.compiled if flavor == flavors.KERAS_3 else smaller._is_compiled


def test_zeros_are_exact_after_every_step_and_only_grow(flavor):
    model = net(flavor, optimizer="adamw")  # which moves what has no gradient
    seen = []

    def watch():
        assert not masked_values(model).any()
        seen.append(masks_of(model).kept_mask)

    fit(model, ChannelPruning(schedule(0.6), pruning_ratio=0.6), callbacks=[watcher(flavor, watch)])
    assert len(seen) == 4 * STEPS
    assert len({mask.sum() for mask in seen}) > 3
    for earlier, later in zip(seen, seen[1:], strict=False):
        assert not (later & ~earlier).any()


def test_masks_hold_in_a_model_that_has_trained_before(flavor):
    model = net(flavor)
    model.fit(X, Y, batch_size=16, verbose=0)  # a step is compiled that knows no masks
    fit(model, ChannelPruning(schedule(0.5), pruning_ratio=0.5), callbacks=[watcher(flavor, lambda: None)])
    model.fit(X, Y, batch_size=16, verbose=0)  # and goes on without the callback
    assert len(masked_values(model)) and not masked_values(model).any()


def test_with_recover_channels_come_back_until_the_last_update(flavor):
    model = net(flavor, optimizer="adam")
    pruning = ChannelPruning(schedule(0.6), pruning_ratio=0.6, recover=True)
    chosen, alive = [], []

    def watch():
        masks = masks_of(model)
        assert masks.kept_mask.all() or pruning._is_final
        if pruning.plan is not None and masks.kept_mask.all():
            chosen.append(pruning.plan.kept_mask.copy())
            kernel = np.asarray(model.get_layer("stem").kernel)
            alive.append(np.abs(kernel).sum(axis=(0, 1, 2)).min() > 0)

    fit(model, pruning, callbacks=[watcher(flavor, watch)], epochs=5)
    assert alive and all(alive)  # a step after they were set to zero, they have grown again
    assert masks_of(model).kept_mask.sum() < chosen[0].sum()
    assert len(masked_values(model)) and not masked_values(model).any()
    np.testing.assert_allclose(outputs(strip_channels(model)), outputs(model), rtol=1e-4, atol=1e-6)


@pytest.mark.above_flavor
def test_recovered_channels_may_be_kept(flavor):
    """By an importance that changes its mind: the channels that went first are the last ones to go."""
    model = net(flavor)
    calls = []

    def importance(group):
        calls.append(group.name)
        order = np.arange(group.size, dtype=float)
        return order if len(calls) < 12 else -order

    pruning = ChannelPruning(schedule(0.5), pruning_ratio=0.5, importance=importance, recover=True, scope="local")
    fit(model, pruning, epochs=4)
    (stem,) = [group for group in masks_of(model).graph.groups if group.name == "stem"]
    assert masks_of(model).kept_mask[stem.classes].tolist() == [True] * 6 + [False] * 6


@pytest.mark.above_flavor
def test_group_lasso_shrinks_the_channels_that_go(flavor):
    def share(group_lasso):
        """What a half of the channels that starts weak is of all, in norm, just before it would be masked."""
        model = net(flavor, optimizer="sgd")
        expand, norm, project = (model.get_layer(name) for name in ("expand", "expand_norm", "project"))
        for weight, at in (
            (expand.kernel, np.s_[..., :12]),
            (norm.gamma, np.s_[:12]),
            (project.kernel, np.s_[..., :12, :]),
        ):
            values = np.asarray(weight).copy()
            values[at] *= 0.5
            weight.assign(values)
        pruning = ChannelPruning(
            schedule(0.5, begin_step=1, end_step=21),
            pruning_ratio=0.5,
            group_lasso=group_lasso,
            recover=True,
            scope="local",
        )
        pruning._mask = lambda step, is_last: None  # nothing is masked: what is seen is the lasso's
        fit(model, pruning, epochs=5)
        graph = masks_of(model).graph
        (expand,) = [group for group in graph.groups if group.name == "expand"]
        norms = class_scores(graph, "l2")[expand.classes]
        return norms[:12].sum() / norms.sum()

    assert share(0.02) < 0.9 * share(0.0)


@pytest.mark.above_flavor
def test_a_lasso_that_leaves_nothing_still_leaves_a_channel(flavor):
    model = net(flavor, optimizer="sgd")
    pruning = ChannelPruning(schedule(0.5), pruning_ratio=0.5, group_lasso=1.0, scope="local")
    fit(model, pruning)
    assert strip_channels(model).get_layer("stem").filters == 6


@pytest.mark.above_flavor
@pytest.mark.parametrize(
    "target", [{"pruning_ratio": 0.4}, {"target_params": 0.6}, {"target_macs": 0.3, "round_to": 4}]
)
def test_other_targets(flavor, target):
    model = net(flavor)
    pruning = ChannelPruning(schedule(0.9), **target)
    fit(model, pruning)
    (kind, asked), *_ = target.items()
    assert pruning.plan.target.kind == kind and pruning.plan.target.requested == pytest.approx(asked)
    if "round_to" in target:
        assert {row.after % 4 for row in pruning.plan.planned} == {0}
    assert pruning.plan.target.achieved == pytest.approx(asked, abs=0.06 if "round_to" in target else 0.03)


@pytest.mark.above_flavor
def test_a_schedule_that_is_constant_goes_all_the_way_at_once(flavor):
    model = net(flavor)
    pruning = ChannelPruning(ep.ConstantSparsity(0.5, 3, frequency=100), pruning_ratio=0.25)
    fit(model, pruning, epochs=1)
    channels = pruning.plan.channels
    assert channels.after == round(0.75 * channels.before)


@pytest.mark.above_flavor
def test_a_schedule_of_the_users_own_gives_the_way(flavor):
    class Stairs(ep.PruningSchedule):
        def __call__(self, step):
            import tensorflow as tf

            return step % 4 == 0, tf.cast(step, tf.float32) / 16

        def get_config(self):
            return {}

    model = net(flavor)
    pruning = ChannelPruning(Stairs(), target_macs=0.5)
    seen = []
    fit(
        model, pruning, callbacks=[watcher(flavor, lambda: seen.append(pruning.plan and pruning.plan.target.requested))]
    )
    assert seen[2] is None and seen[3] == pytest.approx(0.875) and seen[-1] == pytest.approx(0.5)


@pytest.mark.above_flavor
def test_layers_that_are_ignored_stay(flavor):
    model = net(flavor)
    fit(model, ChannelPruning(schedule(0.5), pruning_ratio=0.5, ignore=["expand*"]))
    assert strip_channels(model).get_layer("expand").filters == 24
    assert strip_channels(model).get_layer("stem").filters == 6


def test_what_a_checkpoint_holds_has_the_zeros(flavor, tmp_path):
    model = net(flavor)
    keras = flavors.keras_module(flavor)
    path = str(tmp_path / "{epoch}.keras")
    fit(
        model,
        ChannelPruning(schedule(0.5), pruning_ratio=0.5, scope="local"),
        callbacks=[keras.callbacks.ModelCheckpoint(path)],
    )
    middle = keras.models.load_model(path.format(epoch=2))
    assert not is_channel_pruned(middle)
    smaller = remove_dead_channels(middle)
    assert 6 < smaller.get_layer("stem").filters < 12
    np.testing.assert_allclose(outputs(smaller), outputs(middle), rtol=1e-4, atol=1e-6)


def test_a_training_that_was_interrupted_goes_on(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    model = net(flavor)
    first = ChannelPruning(schedule(0.5, end_step=4 * STEPS), pruning_ratio=0.5)
    with pytest.warns(UserWarning, match="ended at step 8"):
        fit(model, first, epochs=2)
    model.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    second = ChannelPruning(schedule(0.5, end_step=4 * STEPS), pruning_ratio=0.5)
    fit(loaded, second, epochs=4, initial_epoch=2)
    dropped = ~masks_of(model).kept_mask
    assert dropped.any() and not (masks_of(loaded).kept_mask & dropped).any()
    assert second.plan.target.requested == 0.5


@pytest.mark.above_flavor
def test_a_second_fit_goes_on(flavor):
    model = net(flavor)
    pruning = ChannelPruning(schedule(0.5, end_step=4 * STEPS), pruning_ratio=0.5)
    with pytest.warns(UserWarning, match="ended at step 8"):
        fit(model, pruning, epochs=2)
    fit(model, pruning, epochs=2)
    assert pruning.plan.target.requested == 0.5 and pruning.plan.target.met


@pytest.mark.above_flavor
def test_a_callback_is_for_one_model(flavor):
    pruning = ChannelPruning(schedule(0.5), pruning_ratio=0.5)
    fit(net(flavor), pruning)
    with pytest.raises(ValueError, match="has made .* steps with another model"):
        fit(net(flavor), pruning)


def test_a_loop_of_ones_own(flavor):
    model = net(flavor)
    pruning = ChannelPruning(schedule(0.5, end_step=8), pruning_ratio=0.5)
    pruning.set_model(model)
    pruning.on_train_begin()
    for batch in range(8):
        pruning.on_train_batch_begin(batch)
        model.train_on_batch(X[:16], Y[:16])
        pruning.on_train_batch_end(batch)
    pruning.on_train_end()
    assert pruning.plan.target.met and not masked_values(model).any()


def test_several_steps_in_one_execution(flavor):
    model = net(flavor)
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=3)
    pruning = ChannelPruning(schedule(0.5), pruning_ratio=0.5)
    fit(model, pruning)
    assert pruning.plan.target.met and not masked_values(model).any()


def test_averaged_weights_have_the_zeros(flavor):
    keras = flavors.keras_module(flavor)
    model = net(flavor, optimizer=keras.optimizers.SGD(use_ema=True, ema_momentum=0.9))
    fit(model, ChannelPruning(schedule(0.5), pruning_ratio=0.5))
    assert len(masked_values(model)) and not masked_values(model).any()
    np.testing.assert_allclose(outputs(strip_channels(model)), outputs(model), rtol=1e-4, atol=1e-6)


def test_the_layers_own_constraint_stays(flavor):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", kernel_constraint=keras.constraints.NonNeg(), name="hidden"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(
        X[:, 0, :, 0],
        Y,
        batch_size=16,
        epochs=4,
        verbose=0,
        callbacks=[ChannelPruning(schedule(0.5), pruning_ratio=0.5)],
    )
    assert not masked_values(model).any()
    assert (np.asarray(model.get_layer("hidden").kernel) >= 0).all()
    assert isinstance(strip_channels(model).get_layer("hidden").kernel_constraint, keras.constraints.NonNeg)


def test_under_a_strategy(flavor, two_replicas):
    with two_replicas.scope():
        model = net(flavor)
    fit(model, ChannelPruning(schedule(0.5), pruning_ratio=0.5, group_lasso=0.01))
    assert len(masked_values(model)) and not masked_values(model).any()
    np.testing.assert_allclose(outputs(strip_channels(model)), outputs(model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("flavor", "policy"), [(flavors.KERAS_3, "mixed_bfloat16"), (flavors.TF_KERAS, "mixed_float16")]
)
def test_in_mixed_precision(flavor, policy):
    keras = flavors.keras_module(flavor)
    before = keras.mixed_precision.global_policy() if flavor == flavors.TF_KERAS else keras.config.dtype_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = net(flavor)
        fit(model, ChannelPruning(schedule(0.5), pruning_ratio=0.5))
        assert len(masked_values(model)) and not masked_values(model).any()
        np.testing.assert_allclose(outputs(strip_channels(model)), outputs(model), rtol=2e-2, atol=2e-3)
    finally:
        keras.mixed_precision.set_global_policy(before)


def test_with_zeros_inside_the_channels_too(flavor):
    """Unstructured pruning and channel pruning in one training."""
    model = ep.prune_low_magnitude(net(flavor), ep.ConstantSparsity(0.8, 1, frequency=1))
    model.compile("sgd", net(flavor).loss)
    fit(model, ChannelPruning(schedule(0.5), target_macs=0.5), epochs=3, callbacks=[ep.UpdatePruningStep()])
    assert len(masked_values(model)) and not masked_values(model).any()
    smaller = ep.strip_pruning(model)
    assert not ep.is_pruned(smaller) and ep.count_macs(smaller).total < 0.6 * ep.count_macs(net(flavor)).total
    left = np.asarray(smaller.get_layer("expand").kernel)
    assert 0 < np.count_nonzero(left == 0) < left.size


@pytest.mark.above_flavor
def test_norms_over_channels_are_told(flavor):
    """A LayerNormalization sees fewer channels after the strip: the plan says so, and the proof knows it."""
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, name="hidden"),
            layers.LayerNormalization(name="norm"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    pruning = ChannelPruning(schedule(0.5), pruning_ratio=0.5)
    model.fit(X[:, 0, :, 0], Y, batch_size=16, epochs=4, verbose=0, callbacks=[pruning])
    assert any(note.startswith("norm") for note in pruning.plan.graph.notes)
    assert strip_channels(model).get_layer("hidden").units == 8
