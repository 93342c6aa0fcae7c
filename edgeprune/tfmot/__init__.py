"""TF-MOT's own layout, so that a script that writes `tfmot.sparsity.keras.X` runs after a change of its import.

    import edgeprune.tfmot as tfmot  # was: import tensorflow_model_optimization as tfmot

The names serve both Kerases; those of `sparsity` are `edgeprune`'s own. They are loaded when first used, so importing
this module imports no TensorFlow. TF-MOT's clustering is not here.

Example:
    >>> import keras, numpy as np
    >>> import edgeprune.tfmot as tfmot
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=1)
    >>> model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
    >>> model.compile("sgd", "mse")
    >>> callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    >>> history = model.fit(np.ones((16, 8)), np.ones((16, 4)), callbacks=callbacks, verbose=0)
    >>> model = tfmot.sparsity.keras.strip_pruning(model)
    >>> int((model.layers[0].kernel.numpy() == 0).sum())
    16
"""

from edgeprune.tfmot import experimental, quantization, sparsity

__all__ = ["__version__", "experimental", "quantization", "sparsity"]

# The version of TF-MOT whose names and behaviour these are.
__version__ = "0.8.1"
