import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.channels.graph.channel_values import Space, Value, placed
from edgeprune.channels.graph.ids import Ids

PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


def naive_sets(count, pairs):
    """The partition by repeated relabelling, as an oracle."""
    label = list(range(count))
    for a, b in pairs:
        keep, drop = label[a], label[b]
        label = [keep if one == drop else one for one in label]
    return label


@given(PAIRS, st.integers(1, 5))
@settings(deadline=None)
def test_unions_give_the_partition_whatever_the_batches(pairs, batches):
    ids = Ids()
    everything = ids.fresh(20)
    for batch in np.array_split(np.array(pairs, int).reshape(-1, 2), batches):
        ids.unite(batch[:, 0], batch[:, 1])
    found, expected = ids.find(everything), naive_sets(20, pairs)
    same = found[:, None] == found[None, :]
    assert (same == (np.array(expected)[:, None] == np.array(expected)[None, :])).all()


@given(PAIRS)
@settings(deadline=None)
def test_the_smallest_member_represents_its_set(pairs):
    ids = Ids()
    everything = ids.fresh(20)
    for a, b in pairs:
        ids.unite(np.array([a]), np.array([b]))
    found = ids.find(everything)
    for root in np.unique(found):
        assert np.flatnonzero(found == root).min() == root


def test_fresh_ids_are_new_however_many():
    ids = Ids()
    blocks = [ids.fresh(count) for count in (3, 5000, 1, 20000)]
    together = np.concatenate(blocks)
    assert len(np.unique(ids.find(together))) == len(together) == len(ids)


def test_freezing_follows_unions_made_later_and_tells_the_first_reason():
    ids = Ids()
    a, b, c = ids.fresh(2), ids.fresh(2), ids.fresh(1)
    ids.freeze(a[:1], "first")
    ids.freeze(b, "second")
    ids.unite(a, b)
    assert ids.frozen() == {0: "first", 1: "second"}
    assert int(ids.find(c)[0]) not in ids.frozen()


def test_tie_joins_along_one_axis():
    ids = Ids()
    block = ids.fresh(6).reshape(2, 3)
    ids.tie(block, 0)
    assert ids.find(block).tolist() == [[0, 1, 2], [0, 1, 2]]


def line_of(space, value, axis):
    return space.ids.find(space.line(value, axis)).tolist()


def test_reshape_follows_numpy_and_keeps_untouched_axes_small():
    space = Space()
    value = space.value((1, 56, 56, 6), {-1: space.ids.fresh(6)})
    moved = space.reshape(value, (1, 3136, 2, 3))
    assert moved.parts[0].shape == (1, 1, 2, 3)
    flat = space.reshape(moved, (1, 3136 * 6))
    assert (space.ids.find(flat.parts[0]).reshape(3136, 6) == np.arange(6)).all()


@pytest.mark.parametrize("axis,expected", [(1, [0, 0]), (2, [0, 1, 2])])
def test_who_uses_a_reshaped_tensor_says_along_which_axis_it_shrinks(axis, expected):
    space = Space()
    value = space.value((1, 6), {-1: space.ids.fresh(6)})
    loose = space.reshape(value, (1, 2, 3))
    found = line_of(space, loose, axis)
    assert len(set(found)) == (2 if axis == 1 else 3)
    space.settle()
    assert len(set(space.ids.find(np.arange(6)).tolist())) == len(set(found))


def test_what_nobody_uses_shrinks_along_its_last_axis():
    space = Space()
    space.reshape(space.value((1, 6), {-1: space.ids.fresh(6)}), (1, 2, 3))
    space.settle()
    assert space.ids.find(np.arange(6)).tolist() == [0, 1, 2, 0, 1, 2]


def test_merge_unites_what_meets_and_leaves_broadcast_axes_alone():
    space = Space()
    features = space.value((1, 4, 4, 3), {-1: space.ids.fresh(3)})
    gate = space.value((1, 1, 1, 3), {-1: space.ids.fresh(3)})
    spot = Value((1, 4, 4, 1))
    merged = space.merge([features, gate, spot], "why")
    assert line_of(space, merged, -1) == [0, 1, 2] and line_of(space, gate, -1) == [0, 1, 2]
    assert space.ids.frozen() == {}
    space.merge([features, Value((1, 4, 4, 3))], "why")
    assert set(space.ids.frozen().values()) == {"why"}


def test_tokens_and_channels_are_independent():
    space = Space()
    value = space.value((1, 4, 3), {1: space.ids.fresh(4), 2: space.ids.fresh(3)})
    turned = space.transpose(value, [0, 2, 1])
    assert line_of(space, turned, 1) == [4, 5, 6] and line_of(space, turned, 2) == [0, 1, 2, 3]


def test_concatenation_joins_lines_and_keeps_strangers():
    space = Space()
    a = space.value((1, 2, 3), {-1: space.ids.fresh(3)})
    joined = space.concatenate([a, Value((1, 2, 2)), a], -1)
    assert joined.shape == (1, 2, 8)
    assert line_of(space, joined, -1) == [0, 1, 2, 3, 4, 0, 1, 2]
    assert set(space.ids.frozen()) == {3, 4}
    below = space.concatenate([a, space.value((1, 5, 3), {-1: space.ids.fresh(3)})], 1)
    assert below.shape == (1, 7, 3) and line_of(space, below, -1) == [0, 1, 2]


def test_any_movement_can_be_run_on_the_ids():
    space = Space()
    value = space.value((1, 2, 2, 4), {-1: space.ids.fresh(4)})
    (moved,) = space.run(value, lambda a: np.pad(a, [(0, 0), (0, 0), (0, 0), (1, 0)]))
    line = line_of(space, moved, -1)
    assert line[1:] == [0, 1, 2, 3] and line[0] in space.ids.frozen()
    assert placed(np.arange(4), 3, 4).shape == (1, 1, 1, 4)


def test_two_sets_of_channels_folded_into_one_axis_keep_the_first():
    space = Space()
    value = space.value((1, 2, 3), {1: space.ids.fresh(2), 2: space.ids.fresh(3)})
    folded = space.reshape(value, (1, 6))
    assert line_of(space, folded, -1) == [2, 3, 4, 2, 3, 4]
    assert set(space.ids.frozen()) == {0, 1}
