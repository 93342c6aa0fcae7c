"""Reconstruction: the smaller model's weights solved on unlabelled data so that it computes what the original did.

Layer by layer, in the order of the graph, each weight that reads what the removal has changed is solved by least
squares: its output, on the inputs that it has in the smaller model, comes as near to the original's as it can.

Source: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017, for the least squares on sampled
places. Frantar and Alistarh, Optimal Brain Compression, 2022, for the same on single weights.
"""

from __future__ import annotations

import warnings

from edgeprune import flavor
from edgeprune.channels.reconstruct.removal import Removal
from edgeprune.channels.reconstruct.report import Reconstruction
from edgeprune.channels.reconstruct.stream import Store, Stream, input_streams
from edgeprune.channels.reconstruct.walk import Walk, values_of
from edgeprune.measure.distance import distance
from edgeprune.progress import steps as progress_steps
from edgeprune.types import DataLike, Model


def reconstruct(
    removal: Removal, data: DataLike, *, batch_size: int = 32, steps: int | None = None, seed: int = 0
) -> Reconstruction:
    """Solve the weights of what is left of a model on data, in place.

    Args:
        removal: what was removed; its smaller model gets the new weights.
        data: samples in any form that `model.fit` accepts; labels are not looked at.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.
        seed: of the choice of places.

    Returns:
        The errors before and after.

    Raises:
        TypeError: `batch_size` or `steps` is no number.
        ValueError: the data have no batches or do not fit the model, or what a layer returns for them is not finite;
            or the model is quantization-aware.
    """
    graph, smaller = removal.graph, removal.smaller
    if any(map(flavor.rounds_values, flavor.layers_of(graph.model))):
        raise ValueError(
            f"Model {graph.model.name!r} is quantization-aware, and its rounded kernels cannot be solved for: "
            "reconstruct the float model, and call quantize_aware on what is left."
        )
    with Store() as store, flavor.state_restored(graph.model), flavor.state_restored(smaller):
        inputs = input_streams(graph.walked, data, batch_size, steps, store)
        cut, cut_values = _outputs(smaller, inputs, store), values_of(flavor.weights_of(smaller))
        num_samples = sum(int(x.shape[0]) for x in inputs[0])
        walk = Walk(removal, store, seed)
        with progress_steps("Reconstruction", len(graph.steps)) as done:
            outputs = walk.run(inputs, done)
        before = distance(zip(pair.old, x, strict=True) for pair, x in zip(outputs, cut, strict=True))
        after = distance(zip(pair.old, pair.new, strict=True) for pair in outputs)
        solved = values_of(walk.fitted)
    # What is not trained was put back with what calls change. Solved layers can together do worse than the cut.
    for variable, value in solved if after <= before else cut_values:
        variable.assign(value)
    if after > before:
        reason = f"the error of the output would grow from {before:.1%} to {after:.1%}"
        unsolved = {**walk.unsolved, **{layer.name: reason for layer in walk.solved}}
        return Reconstruction(smaller, (), (), unsolved, before, before, num_samples)
    few = [layer.name for layer in walk.solved if layer.rows < layer.inputs]
    if few:
        warnings.warn(
            f"There are fewer samples than weights to solve for in {', '.join(few[:4])}: pass more data.", stacklevel=3
        )
    return Reconstruction(
        smaller, tuple(walk.solved), tuple(walk.recalibrated), walk.unsolved, before, after, num_samples
    )


def _outputs(model: Model, inputs: list[Stream], store: Store) -> list[Stream]:
    return store.streams(flavor.call_model(model, list(batch)) for batch in zip(*inputs, strict=True))
