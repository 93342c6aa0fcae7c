"""Channel pruning during training: what makes no sense or cannot be reached is an error, early."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from nets.masked_nets import fit, net, schedule

import edgeprune as ep
from edgeprune.channels.callback import ChannelPruning, strip_channels
from edgeprune.channels.masks import is_channel_pruned


@functools.cache
def small(flavor):
    return net(flavor)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"schedule": 0.5}, TypeError, "schedule must be a PruningSchedule"),
        (
            {"target_macs": 0.5, "pruning_ratio": 0.5},
            ValueError,
            "exactly one of .*; got pruning_ratio=0.5 and target_macs=0.5",
        ),
        ({}, ValueError, "exactly one of pruning_ratio=, target_macs= and target_params=; got none"),
        ({"target_macs": 0.0}, ValueError, "target_macs is the fraction to keep"),
        ({"target_macs": "half"}, TypeError, "target_macs must be a number"),
        ({"pruning_ratio": 1.0}, ValueError, "pruning_ratio is the fraction of the channels to remove"),
        ({"group_lasso": -1, "pruning_ratio": 0.5}, ValueError, "group_lasso"),
        ({"group_lasso": float("inf"), "pruning_ratio": 0.5}, ValueError, "group_lasso must be a finite number"),
        ({"recover": "yes", "pruning_ratio": 0.5}, TypeError, "recover must be True or False"),
        ({"sparsity": 0.5}, TypeError, "has no argument sparsity"),
        ({"pruning_ratio": float("nan")}, ValueError, "pruning_ratio must be a finite number"),
        ({"pruning_ratio": 0.5, "round_to": float("inf")}, ValueError, "round_to must be a finite number"),
        ({"pruning_ratio": 0.5, "steps": 0}, ValueError, "steps must be a whole number of 1 or more"),
        ({"pruning_ratio": 0.5, "importance": "taylor"}, ValueError, "measured on data"),
        ({"schedule": ep.ConstantSparsity(0.0, 0)}, ValueError, "sparsity of 0"),
    ],
)
def test_arguments_that_make_no_sense(arguments, error, message):
    with pytest.raises(error, match=message):
        ChannelPruning(**{"schedule": ep.ConstantSparsity(0.5, 0), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pruning_ratio": 0.95}, "max_ratio"),
        ({"target_macs": 0.01}, "cannot be reached"),
        ({"pruning_ratio": 0.5, "scope": "universal"}, "scope must be one of"),
        ({"pruning_ratio": 0.5, "ignore": ["nothing"]}, "belong to 'nothing'"),
        ({"pruning_ratio": 0.5, "importance": "taylor"}, "measured on data"),
    ],
)
@pytest.mark.above_flavor
def test_what_cannot_be_reached_is_told_early(flavor, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(net(flavor), ChannelPruning(ep.ConstantSparsity(0.5, 1, frequency=1), **arguments), epochs=1)


@pytest.mark.above_flavor
def test_an_open_end_needs_a_known_length(flavor):
    model = net(flavor)
    pruning = ChannelPruning(schedule(0.5), pruning_ratio=0.5)
    pruning.set_model(model)
    pruning.on_train_begin()
    with pytest.raises(ValueError, match="end_step"):
        pruning.on_train_batch_begin(0)


@pytest.mark.above_flavor
def test_diverged_training_is_told(flavor):
    model = net(flavor)
    kernel = model.get_layer("stem").kernel
    kernel.assign(np.full(tuple(kernel.shape), np.nan, np.float32))
    with pytest.raises(ValueError, match="stem/kernel.* holds NaN or infinite values"):
        fit(model, ChannelPruning(ep.ConstantSparsity(0.5, 1), pruning_ratio=0.5))


@pytest.mark.above_flavor
def test_strip_says_what_is_missing(flavor):
    model = net(flavor)
    assert not is_channel_pruned(model)
    with pytest.raises(ValueError, match="not trained with ChannelPruning"):
        strip_channels(model)
    with pytest.warns(UserWarning, match="ended at step 4"):
        fit(model, ChannelPruning(schedule(0.5, end_step=100), pruning_ratio=0.5, recover=True), epochs=1)
    assert is_channel_pruned(model)
    with pytest.raises(ValueError, match="No channel of 'net' is masked yet"):
        strip_channels(model)
