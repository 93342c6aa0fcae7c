"""The `tf.distribute` strategy that a model was made under."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeprune.flavor.kinds import KERAS_3, flavor_of
from edgeprune.types import Model

if TYPE_CHECKING:
    import tensorflow as tf


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


def check_outside_scope(model: Model) -> None:
    """Refuse to convert a model inside the scope of a strategy, whose variables what is converted would be made of.

    Raises:
        ValueError: the scope of one is in force.
    """
    import tensorflow as tf

    if tf.distribute.has_strategy():
        raise ValueError(
            f"Model {model.name!r} is passed inside the scope of a tf.distribute strategy, where it cannot be "
            "converted: end the with block first. One that was made under a strategy can be converted outside of it."
        )


def mirrored_strategy(model: Model) -> tf.distribute.Strategy | None:
    """The `MirroredStrategy` that a model was made under, None where it was made under none.

    Raises:
        ValueError: it was made under another strategy, or the scope of one is in force.
    """
    import tensorflow as tf

    check_outside_scope(model)
    strategy = model.distribute_strategy
    if strategy is tf.distribute.get_strategy():
        return None
    if not isinstance(strategy, tf.distribute.MirroredStrategy):
        raise ValueError(
            f"Model {model.name!r} was made under a {type(strategy).__name__}, and a tf.distribute.MirroredStrategy is "
            "the one that a search trains under: outside its scope pass keras.models.clone_model(model) with the "
            "weights of model. What is found can be trained on under the strategy with distill."
        )
    return strategy
