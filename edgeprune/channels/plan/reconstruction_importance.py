"""Importance by what reconstruction cannot make up for: the channels that the others explain best go first.

For each group, greedy backward elimination through the eyes of the layers that read it: each time the channel goes
without which their outputs can be computed best from the channels that are left, their weights solved again. The score
is the error that this adds, relative to the outputs, so that the scores of all groups compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph, Group
from edgeprune.channels.reconstruct.elimination import Parts, Reader, eliminate
from edgeprune.channels.reconstruct.readers import readers_of
from edgeprune.progress import status
from edgeprune.types import DataLike


def score_by_reconstruction(
    graph: ChannelGraph, data: DataLike, batch_size: int, steps: int | None, seed: int
) -> np.ndarray:
    """The scores of `importance.class_scores` for `"reconstruction"`.

    Returns:
        float64 array `(class_count,)`, ascending in the order in which the channels of a group go: the squared error
        that a removal adds to the outputs of the layers that read the group, in units of their mean squares, and
        `OUTPUT_WORTH` times that at the model's outputs. NaN for groups that no layer reads whose weights could be
        solved.

    Raises:
        ValueError: the data have no batches or do not fit the model, or what a layer reads is not finite.
    """
    readers = readers_of(graph, data, batch_size=batch_size, steps=steps, seed=seed)
    scores = np.zeros(graph.class_count)
    free = [group for group in graph.groups if group.frozen is None]
    with status("Importance (reconstruction)") as say:
        for number, group in enumerate(free):
            say(f"Importance (reconstruction), {group.name}, {number + 1} of {len(free)}")
            scores[group.classes] = _of_group(group, readers)
    return scores


def _of_group(group: Group, readers: Sequence[Reader | Parts]) -> np.ndarray:
    own = [reader for reader in readers if np.isin(reader.classes, group.classes).any()]
    if not own:
        return np.full(group.size, np.nan)
    order, errors = eliminate(own, group.classes)
    scores = np.empty(group.size)
    # A later removal may add less, as it is left over by the one before: it is still removed later.
    scores[order] = np.maximum.accumulate(errors) + 1e-12 * np.arange(len(order))
    return scores
