"""Nets that take texts."""

import numpy as np

from edgeprune import flavor as flavors

WORDS = np.array([["good", "film"], ["bad", "film"], ["good", "plot"], ["bad", "plot"]] * 8)
SENTENCES = np.array([" ".join(words) for words in WORDS])
LABELS = np.array([1, 0, 1, 0] * 8)


def word_classifier(flavor: str):
    """Two words to two classes: a vocabulary learned from the words, an embedding, two dense layers; compiled."""
    layers = flavors.keras_module(flavor).layers
    lookup = layers.StringLookup()
    lookup.adapt(WORDS)
    return _classifier(flavor, (2,), lookup)


def sentence_classifier(flavor: str):
    """The same of sentences, which it takes apart itself: by operations that LiteRT has no kernels for."""
    layers = flavors.keras_module(flavor).layers
    words = layers.TextVectorization(output_sequence_length=2)
    words.adapt(SENTENCES)
    return _classifier(flavor, (), words)


def _classifier(flavor: str, shape: tuple[int, ...], lookup):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x = keras.Input(shape, dtype="string", name="texts")
    found = keras.layers.Flatten()(keras.layers.Embedding(8, 16, name="embedding")(lookup(x)))
    found = keras.layers.Dense(32, activation="relu", name="hidden")(found)
    model = keras.Model(x, keras.layers.Dense(2, name="classes")(found))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model
