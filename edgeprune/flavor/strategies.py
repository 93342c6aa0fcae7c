"""The `tf.distribute` strategy that a model was made under."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgeprune.flavor.kinds import KERAS_3, flavor_of
from edgeprune.types import Model


@contextlib.contextmanager
def strategy_of(model: Model) -> Iterator[None]:
    """The scope of the strategy that a model was made under; of none where it was made under none.

    Raises:
        ValueError: as `check_strategy`.
    """
    import tensorflow as tf

    check_strategy(model)
    strategy = model.distribute_strategy
    with contextlib.nullcontext() if strategy is tf.distribute.get_strategy() else strategy.scope():
        yield


def check_strategy(model: Model) -> None:
    """Refuse a model that its Keras cannot train under its strategy.

    Raises:
        ValueError: it is one of Keras 3 and of several workers.
    """
    import tensorflow as tf

    strategy = model.distribute_strategy
    if flavor_of(model) != KERAS_3 or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    if sum(map(len, strategy.cluster_resolver.cluster_spec().as_dict().values())) > 1:
        raise ValueError(
            f"The fit of Keras 3 itself fails under a MultiWorkerMirroredStrategy of several workers, which model "
            f"{model.name!r} was made under: make it of tf_keras, or under a MirroredStrategy."
        )


def is_distributed(model: Model) -> bool:
    """Whether a model was made under a strategy, or one is in force."""
    import tensorflow as tf

    return tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy()
