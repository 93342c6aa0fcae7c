"""Small networks whose channels the tests remove, and the random weights and masks they do it with."""

from __future__ import annotations

import numpy as np

from edgeprune.channels.graph import ChannelGraph
from edgeprune.channels.rebuild import rebuild
from edgeprune.channels.trace import trace
from edgeprune.channels.verify import Verification, verify


def randomize(model, seed=0):
    """Give a model weights under which every channel matters and nothing saturates."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.name.rpartition("/")[2]
        if not np.issubdtype(np.asarray(weight).dtype, np.floating):
            continue
        if len(shape) > 1 and "kernel" in name or "embeddings" in name:
            depthwise = "depthwise" in name or (shape[-1] == 1 and len(shape) > 2)
            fan_in = np.prod(shape[:-2] if depthwise else shape[:-1])
            values = rng.normal(size=shape) * np.sqrt(2 / max(fan_in, 1))
        elif "variance" in name or "gamma" in name:
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(size=shape) * 0.3
        weight.assign(values.astype(np.float32))
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def random_mask(graph: ChannelGraph, ratio=0.5, seed=0) -> np.ndarray:
    """Drop `ratio` of the channels of every group that is not frozen, chosen at random; one stays."""
    rng = np.random.default_rng(seed)
    mask = graph.everything()
    for group in graph.groups:
        if not group.frozen:
            mask[rng.choice(group.classes, min(round(group.size * ratio), group.size - 1), replace=False)] = False
    return mask


def halved(model, ratio=0.5, seed=0) -> tuple[ChannelGraph, object, Verification]:
    """Trace a model with random weights, drop half of every group, and compare."""
    graph = trace(randomize(model, seed))
    mask = random_mask(graph, ratio, seed)
    rebuilt = rebuild(graph, mask)
    return graph, rebuilt, verify(graph, mask, rebuilt, seed)
