"""Recurrent layers: how each Keras computes them, and how to have one computed otherwise for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgeprune.flavor.kinds import is_keras_3, keras_of
from edgeprune.types import Layer


def is_recurrent(layer: Layer) -> bool:
    """Whether a layer runs a cell over the steps of a sequence."""
    return isinstance(layer, keras_of(layer).layers.RNN)


def is_plain_lstm(layer: Layer) -> bool:
    """Whether a layer is an LSTM with the activations and the bias that it has by default, without a carried state."""
    keras = keras_of(layer)
    return (
        type(layer) is keras.layers.LSTM
        and layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.use_bias
        and not (layer.stateful or layer.return_state or layer.unroll or getattr(layer, "time_major", False))
    )


def step_by_step(layer: Layer, *, unroll: bool) -> contextlib.AbstractContextManager[None]:
    """While the body runs, a recurrent layer runs its cell in a loop, or unrolled, rather than as one operation."""
    if is_keras_3(layer):
        # It would draw the masks of dropout, and so count on the seed, when not training too.
        return overridden(layer, unroll=unroll, _maybe_config_dropout_masks=lambda *_: None)
    # It is decided when an LSTM or a GRU is made whether it is one operation.
    return overridden(layer, unroll=unroll, _could_use_gpu_kernel=False)


@contextlib.contextmanager
def overridden(layer: Layer, **attributes: object) -> Iterator[None]:
    """While the body runs, some attributes of a layer, its methods included, are others."""
    own = {name: vars(layer)[name] for name in attributes if name in vars(layer)}
    try:
        for name, value in attributes.items():
            object.__setattr__(layer, name, value)  # a layer's own would track the value
        yield
    finally:
        for name in attributes:
            if name in own:
                object.__setattr__(layer, name, own[name])
            else:
                object.__delattr__(layer, name)
