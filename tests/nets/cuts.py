"""Random weights and random masks, and a model cut by them."""

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.proof import Proof, prove
from edgeprune.channels.rebuild.slicing import rebuild


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
        elif "gamma" in name:  # below one, so that deep residual networks do not grow out of float32
            values = rng.uniform(0.4, 0.9, shape)
        elif "variance" in name:
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(size=shape) * 0.3
        weight.assign(values.astype(np.float32))
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def random_mask(graph: ChannelGraph, ratio=0.5, seed=0) -> np.ndarray:
    """Drop `ratio` of the channels of every group that is not frozen, chosen at random (in each head); one is kept."""
    rng = np.random.default_rng(seed)
    mask = graph.full_mask()
    for group in graph.groups:
        if not group.frozen:
            for own in group.classes.reshape(group.heads or 1, -1):
                mask[rng.choice(own, min(round(group.count * ratio), group.count - 1), replace=False)] = False
    return mask


def halved(model, ratio=0.5, seed=0) -> tuple[ChannelGraph, object, Proof]:
    """Trace a model with random weights, drop half of every group, and compare."""
    graph = trace(randomize(model, seed))
    mask = random_mask(graph, ratio, seed)
    rebuilt = rebuild(graph, mask)
    return graph, rebuilt, prove(graph, mask, rebuilt, seed)
