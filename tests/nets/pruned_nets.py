"""Tiny models of either Keras to prune, their data, and what their training and their zeros are judged by."""

from nets.samples import labelled

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.sparsity import masks

X, Y = labelled(96, 12)
STEPS = 6  # of 16 images, an epoch


def dense_net(flavor="keras", name="net"):
    keras = flavors.keras_module(flavor)
    return keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(32, activation="relu", name="first"),
            keras.layers.Dense(16, activation="relu", name="second"),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ],
        name=name,
    )


def conv_net(flavor="keras"):
    keras = flavors.keras_module(flavor)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.DepthwiseConv2D(3, name="depthwise"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="dense"),
        ]
    )


def fit(model, epochs=2, callbacks=(), x=X, y=Y, **arguments):
    return model.fit(
        x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=[ep.UpdatePruningStep(), *callbacks], **arguments
    )


def train_batches(model, count):
    """A loop of the user's own with `train_on_batch`; returns the callback it called."""
    pruning = ep.UpdatePruningStep()
    pruning.set_model(model)
    pruning.on_train_begin()
    for batch in range(count):
        pruning.on_train_batch_begin(batch)
        model.train_on_batch(X[:16], Y[:16])
        pruning.on_train_batch_end(batch)
    return pruning


def compiled(model, optimizer="sgd", **arguments):
    model.compile(optimizer, "sparse_categorical_crossentropy", **arguments)
    return model


def zeros_of(model):
    return {f"{row.layer}/{row.weight}": row.zeros for row in ep.sparsity_report(model).rows if row.weight}


def assert_exact(model, sparsity=0.8):
    """Every prunable weight has exactly the zeros that the schedule ends with."""
    for row in ep.sparsity_report(model).rows:
        if row.weight:
            assert row.zeros == row.size - masks.kept_count(row.size, sparsity), row


def keras3():
    return flavors.keras_module("keras")


def subclassed():
    keras = keras3()

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = keras.layers.Dense(32, activation="relu")
            self.head = keras.layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.head(self.body(inputs))

    return Net()
