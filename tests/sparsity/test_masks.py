"""Masks against TF-MOT's own, bit for bit, and their properties."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeprune import flavor
from edgeprune.sparsity import masks, schedules
from edgeprune.sparsity.settings import PruningRun

flavor.import_tfmot()
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl  # noqa: E402

# TensorFlow rounds subnormal numbers to zero and NumPy does not; no weight or sparsity is one.
SPARSITIES = st.floats(0, 0.984375, width=32, allow_subnormal=False)
# Few distinct values, so that ties are common.
COARSE = st.sampled_from([0.0, -0.5, 0.5, 0.25, -1.0, 1.0, 2.0, -0.0])
FINE = st.floats(-10, 10, width=32, allow_subnormal=False)


def weights(dimensions, longest=13):
    shapes = hnp.array_shapes(min_dims=dimensions, max_dims=dimensions, max_side=longest)
    return hnp.arrays(np.float32, shapes, elements=st.one_of(COARSE, FINE))


def distinct_weights(shape):
    """Weights of distinct magnitudes, in random order and with random signs."""
    rng = np.random.default_rng(int(np.prod(shape)))
    values = (rng.permutation(int(np.prod(shape))) + 1) * rng.choice([-1.0, 1.0], int(np.prod(shape)))
    return values.reshape(shape).astype(np.float32)


def tfmot_mask(weight, sparsity, block_size=(1, 1), pooling="AVG", m_by_n=None):
    variable = tf.Variable(weight)
    pruning = pruning_impl.Pruning(
        lambda: 1,
        [(variable, variable, 0.0)],
        schedules.ConstantSparsity(sparsity, 0),
        block_size,
        pooling,
        m_by_n,
    )
    return pruning._maybe_update_block_mask(variable)[1].numpy().astype(bool)


@settings(max_examples=150, deadline=None)
@given(weight=st.one_of(weights(1), weights(2), weights(4, longest=5)), sparsity=SPARSITIES)
def test_unstructured_masks_equal_tfmots(weight, sparsity):
    ours = masks.unstructured_mask(np.abs(weight), sparsity)
    np.testing.assert_array_equal(ours, tfmot_mask(weight, sparsity))


@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
@settings(max_examples=100, deadline=None)
@given(
    weight=weights(2),
    sparsity=SPARSITIES,
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(lambda b: b != (1, 1)),
)
def test_block_masks_equal_tfmots(pooling, weight, sparsity, block):
    if min(weight.shape) < 2:  # TF-MOT squeezes such a matrix and then refuses it
        return
    if 1 in (-(-weight.shape[0] // block[0]), -(-weight.shape[1] // block[1])):
        return  # a single row or column of blocks: squeezed and refused too
    ours = masks.block_mask(np.abs(weight), sparsity, block, pooling)
    np.testing.assert_array_equal(ours, tfmot_mask(weight, sparsity, block, pooling))


@settings(max_examples=100, deadline=None)
@given(
    weight=st.one_of(weights(2), weights(4, longest=6)),
    m_by_n=st.sampled_from([(2, 4), (1, 2), (3, 4), (1, 4), (5, 8)]),
)
def test_m_by_n_masks_equal_tfmots(weight, m_by_n):
    ours = masks.m_by_n_mask(np.abs(weight), m_by_n)
    np.testing.assert_array_equal(ours, tfmot_mask(weight, 0.5, m_by_n=m_by_n))


@settings(max_examples=200, deadline=None)
@given(shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=9), sparsity=SPARSITIES)
def test_sparsity_is_exact_without_ties(shape, sparsity):
    weight = distinct_weights(shape)
    mask = masks.unstructured_mask(np.abs(weight), sparsity)
    assert mask.sum() == masks.kept_count(weight.size, sparsity)
    assert abs((1 - mask.mean()) - sparsity) <= 0.5 / weight.size + 1e-6 or mask.sum() == 1
    if 0 < mask.sum() < weight.size:
        assert np.abs(weight)[mask].min() > np.abs(weight)[~mask].max()


@settings(max_examples=100, deadline=None)
@given(weight=weights(2), sparsity=SPARSITIES, more=SPARSITIES)
def test_masks_are_nested_as_sparsity_grows(weight, sparsity, more):
    low, high = sorted((sparsity, more))
    kept_low = masks.unstructured_mask(np.abs(weight), low)
    kept_high = masks.unstructured_mask(np.abs(weight), high)
    assert not (kept_high & ~kept_low).any()


@settings(max_examples=100, deadline=None)
@given(shape=st.tuples(st.integers(1, 20), st.integers(1, 20)), m_by_n=st.sampled_from([(2, 4), (1, 2), (3, 8)]))
def test_m_by_n_leaves_exactly_the_zeros_asked_for(shape, m_by_n):
    mask = masks.m_by_n_mask(np.abs(distinct_weights(shape)), m_by_n)
    m, n = m_by_n
    for column in mask.T:  # inputs of one output, the axis TFLite stores last
        for start in range(0, shape[0] - n + 1, n):
            assert (~column[start : start + n]).sum() == m


@settings(max_examples=100, deadline=None)
@given(
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    block=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sparsity=SPARSITIES,
    pooling=st.sampled_from(["AVG", "MAX"]),
)
def test_blocks_live_and_die_together(blocks, block, sparsity, pooling):
    shape = (blocks[0] * block[0], blocks[1] * block[1])
    mask = masks.block_mask(np.abs(distinct_weights(shape)), sparsity, block, pooling)
    tiles = mask.reshape(blocks[0], block[0], blocks[1], block[1])
    assert (tiles.all(axis=(1, 3)) | ~tiles.any(axis=(1, 3))).all()


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), sparsity=SPARSITIES)
def test_global_masks_rank_all_weights_together(sizes, sparsity):
    everything = distinct_weights((sum(sizes),))
    parts = np.split(np.abs(everything), np.cumsum(sizes)[:-1])
    kept = masks.global_masks(parts, sparsity)
    together = masks.unstructured_mask(np.abs(everything), sparsity)
    for part, ours, expected in zip(parts, kept, np.split(together, np.cumsum(sizes)[:-1]), strict=True):
        if expected.any():
            np.testing.assert_array_equal(ours, expected)
        else:  # a layer below the threshold keeps its best weight
            assert ours.sum() == 1 and ours[part.argmax()]


@settings(max_examples=200, deadline=None)
@given(
    importance=hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 4, width=32)),
    sparsity=st.floats(0, 1),
    near=st.floats(0, 5, width=32),
)
def test_a_guess_does_not_change_the_threshold(importance, sparsity, near):
    expected = masks.threshold_at(importance, sparsity)
    assert masks.threshold_at(importance, sparsity, near) == expected
    assert masks.threshold_at(importance, sparsity, expected) == expected


@settings(max_examples=100, deadline=None)
@given(scores=hnp.arrays(np.float32, 20, elements=st.sampled_from([0.0, 0.0, 0.1, 3.0])), seed=st.integers(0, 99))
def test_taylor_importance_breaks_ties_at_zero_by_magnitude(scores, seed):
    weight = np.random.default_rng(seed).permutation(np.arange(20, dtype=np.float32))
    importance = masks.taylor_importance(scores, weight)
    silent = scores == 0
    assert (np.argsort(importance[silent]) == np.argsort(weight[silent])).all()
    assert (importance[~silent] == scores[~silent]).all()
    if silent.any() and (~silent).any():
        assert importance[silent].max() < importance[~silent].min()


@settings(max_examples=300, deadline=None)
@given(
    initial=st.floats(0, 0.99).map(lambda x: round(x, 9)),
    final=st.floats(0, 0.99).map(lambda x: round(x, 9)),
    begin=st.integers(0, 50),
    length=st.integers(1, 3000),
    power=st.sampled_from([1, 2, 3, 4, 0.5, 3.0]),
    frequency=st.integers(1, 120),
    step=st.integers(0, 3200),
)
def test_schedule_shortcuts_equal_the_schedule_itself(initial, final, begin, length, power, frequency, step):
    schedule = schedules.PolynomialDecay(initial, final, begin, begin + length, power, frequency)
    due, sparsity = schedule(tf.constant(step, tf.int64))
    assert schedules.is_due(schedule, step) == bool(due)
    assert schedules.sparsity_at(schedule, step) == float(sparsity)
    constant = schedules.ConstantSparsity(final, begin, begin + length, frequency)
    assert schedules.is_due(constant, step) == bool(constant(step)[0])
    assert schedules.sparsity_at(constant, step) == float(constant(step)[1])


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(1, 5000), begin=st.integers(0, 400), frequency=st.integers(1, 500), final=st.floats(0.01, 0.99)
)
def test_an_open_end_is_reached_within_training_and_monotonely(total, begin, frequency, final):
    schedule = schedules.PolynomialDecay(0.0, final, begin, frequency=frequency)
    if begin >= total:
        with pytest.raises(ValueError, match="lower begin_step"):
            schedule.set_end_step(total)
        return
    schedule.set_end_step(total)
    assert schedule.end_step <= total and schedules.is_due(schedule, schedule.end_step)
    assert schedules.sparsity_at(schedule, schedule.end_step) == pytest.approx(final, abs=1e-6)
    due = [step for step in range(begin, total + 1) if schedules.is_due(schedule, step)]
    assert len(due) >= min(10, total - begin)
    levels = [schedules.sparsity_at(schedule, step) for step in due[:: max(1, len(due) // 20)]]
    assert levels == sorted(levels)


def test_a_schedule_of_the_users_own_is_asked_itself():
    class EveryThird(schedules.PruningSchedule):
        def __call__(self, step):
            return tf.equal(step % 3, 0), tf.constant(0.25)

        def get_config(self):
            return {}

    assert [schedules.is_due(EveryThird(), step) for step in range(1, 7)] == [False, False, True, False, False, True]
    assert schedules.sparsity_at(EveryThird(), 3) == 0.25
    assert schedules.final_sparsity(EveryThird()) is None


NOT_STEPS = [1.5, 2.0, np.nan, np.inf, "3", 2**63, None]
NOT_FRACTIONS = [np.nan, np.inf, -0.1, 1.0, "0.5", None]


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("begin_step", [*NOT_STEPS, -1]),
        ("end_step", [*NOT_STEPS[:-1], -1, 4]),  # None leaves it open; 4 is before begin_step
        ("frequency", [*NOT_STEPS, 0]),
        ("power", [np.nan, np.inf, 0, -1, "3", None]),
        ("initial_sparsity", NOT_FRACTIONS),
        ("final_sparsity", NOT_FRACTIONS),
    ],
)
def test_settings_of_a_schedule_are_checked_at_once(setting, values):
    good = dict(initial_sparsity=0.1, final_sparsity=0.8, begin_step=5, end_step=20, power=3, frequency=2)
    constant = dict(target_sparsity=0.8, begin_step=5, end_step=20, frequency=2)
    schedules.PolynomialDecay(**good), schedules.ConstantSparsity(**constant)
    for value in values:
        with pytest.raises(ValueError, match=setting):
            schedules.PolynomialDecay(**{**good, setting: value})
        name = "target_sparsity" if setting == "final_sparsity" else setting
        if name in constant and (name, value) != ("end_step", -1):
            with pytest.raises(ValueError, match=name):
                schedules.ConstantSparsity(**{**constant, name: value})


@pytest.mark.parametrize("setting", [dict(power=np.nan), dict(frequency=1.5), dict(begin_step=0.5)], ids=str)
def test_a_schedule_of_tfmots_own_class_is_checked_too(setting):
    given = flavor.import_tfmot().sparsity.keras.PolynomialDecay(
        **{**dict(initial_sparsity=0.0, final_sparsity=0.8, begin_step=0, end_step=9), **setting}
    )
    with pytest.raises(ValueError, match=next(iter(setting))):
        schedules.checked(given, "pruning_schedule")


def test_numbers_of_numpy_are_taken():
    schedule = schedules.PolynomialDecay(
        np.float32(0.5), 0.75, np.int64(2), np.ceil(7.2).astype(np.int32), 3, np.uint8(2)
    )
    assert (schedule.begin_step, schedule.end_step, schedule.frequency) == (2, 8, 2)
    assert schedules.written(schedule)["config"]["end_step"] == 8


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (dict(block_size=(0, 1)), "block_size must be two positive integers"),
        (dict(block_size=3), "block_size must be two positive integers"),
        (dict(block_size=(1.5, 2)), "block_size must be two positive integers"),
        (dict(block_size=(np.nan, 1)), "block_size must be two positive integers"),
        (dict(block_size=(1, np.inf)), "block_size must be two positive integers"),
        (dict(sparsity_m_by_n=(np.nan, 4)), "sparsity_m_by_n must be two positive integers"),
        (dict(sparsity_m_by_n="24"), "sparsity_m_by_n must be two positive integers"),
        (dict(sparsity_m_by_n=(4, 4)), "m zeros must be fewer than n"),
        (dict(sparsity_m_by_n=(1, 2, 3)), "sparsity_m_by_n must be two positive integers"),
        (dict(block_pooling_type="MIN"), "'MIN' is unknown; choose one of 'AVG', 'MAX'"),
        (dict(scope="network"), "'network' is unknown"),
        (dict(importance="l3"), "'l3' is unknown"),
        (dict(block_size=(2, 2), scope="global"), "ranks single weights"),
    ],
)
def test_settings_are_checked_at_once(settings_, message):
    with pytest.raises(ValueError, match=message):
        PruningRun(schedules.ConstantSparsity(0.5, 0), **settings_)
