"""Every stock layer of both Kerases in a small net: half of every group goes, proven, saved and loaded.

What cannot be followed keeps its channels, with its reason; nothing crashes.
"""

from __future__ import annotations

import numpy as np
import pytest
from nets.cuts import halved

import edgeprune as ep
from edgeprune import flavor as flavors

# Stand for no layer of their own, need another framework, or are no layers of tensors of numbers.
LEFT_OUT = {
    *("Layer", "InputLayer", "Wrapper", "AbstractRNNCell", "StackedRNNCells", "SimpleRNNCell", "GRUCell", "LSTMCell"),
    *("FlaxLayer", "JaxLayer", "TorchModuleWrapper", "TFSMLayer", "DenseFeatures"),
    *("StringLookup", "IntegerLookup", "TextVectorization", "Hashing", "HashedCrossing", "CategoryEncoding"),
    # Give what no dense layer takes (whole numbers, other sizes than they say), or take three channels.
    *("Discretization", "Equalization", "RandomCrop", "RandomColorDegeneration", "RandomWidth"),
    # Take labels and boxes.
    *("MixUp", "CutMix", "MaxNumBoundingBoxes"),
    *("MelSpectrogram", "STFTSpectrogram", "ReversibleEmbedding"),  # of long signals; of words
}
ARGUMENTS = {
    "Activation": lambda L: ["relu"],
    "Bidirectional": lambda L: [L.GRU(6, return_sequences=True)],
    "Cropping1D": lambda L: [1],
    "Cropping2D": lambda L: [1],
    "Cropping3D": lambda L: [1],
    "CenterCrop": lambda L: [4, 4],
    "EinsumDense": lambda L: ["abc,cd->abd", (6, 6)],
    "GroupNormalization": lambda L: [2],
    "RandomPosterization": lambda L: [4],
    "Lambda": lambda L: [abs],
    "MultiHeadAttention": lambda L: [2, 4],
    "GroupQueryAttention": lambda L: [4, 4, 2],
    "Permute": lambda L: [(2, 1)],
    "Pipeline": lambda L: [[L.RandomFlip(), L.RandomZoom(0.1)]],
    "Reshape": lambda L: [(-1,)],
    "RepeatVector": lambda L: [3],
    "Rescaling": lambda L: [0.5],
    "Resizing": lambda L: [5, 5],
    "RNN": lambda L: [[L.GRUCell(6), L.LSTMCell(4)]],
    "SpectralNormalization": lambda L: [L.Dense(6)],
    "TimeDistributed": lambda L: [L.Dense(6)],
    "Embedding": lambda L: [4, 6],
    "RandomHeight": lambda L: [0.1],
}
UNITS = {"filters": 6, "units": 6, "kernel_size": 2, "pool_size": 2, "rate": 0.5, "stddev": 0.1, "output_size": 2}
UNITS |= {"factor": 0.1, "height_factor": 0.1, "width_factor": 0.1, "seed": 1}
SHAPES = ((8,), (6, 8), (6, 6, 8), (4, 4, 4, 8), (2, 6, 6, 8), (2, 4, 4, 4, 8))
JOINING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot", "Attention"}
JOINING |= {"AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention"}
CHOSEN = ("Bidirectional", "ConvLSTM1D", "EinsumDense", "GroupQueryAttention", "Lambda", "Masking", "RNN")
CHOSEN += ("SpectralNormalization", "TimeDistributed", "UnitNormalization")


def layer_names(flavor):
    keras = flavors.keras_module(flavor)
    kinds = {name: kind for name, kind in vars(keras.layers).items() if isinstance(kind, type)}
    return sorted(name for name, kind in kinds.items() if issubclass(kind, keras.layers.Layer) and name not in LEFT_OUT)


def made(keras, name):
    """The layer, with as few arguments as it needs."""
    import inspect

    L = keras.layers
    kind = getattr(L, name)
    if name in ARGUMENTS:
        return kind(*ARGUMENTS[name](L))
    if name == "Dot":
        return kind(axes=-1)
    needed = [
        parameter.name
        for parameter in inspect.signature(kind.__init__).parameters.values()
        if parameter.name in UNITS
        and (parameter.default is parameter.empty or parameter.name in ("factor", "height_factor", "width_factor"))
    ]
    return kind(**{argument: UNITS[argument] for argument in needed})


def net(keras, name):
    """The layer between two others, on tensors of the ranks that it takes."""
    L = keras.layers
    for shape in SHAPES:
        try:
            i = keras.Input(shape, dtype="int32" if name == "Embedding" else "float32")
            x = i if name == "Embedding" else L.Dense(8, name="before")(i)
            y = None if name == "Embedding" else L.Dense(8, name="beside")(i)
            layer = made(keras, name)
            if name in ("MultiHeadAttention", "GroupQueryAttention"):
                x = layer(x, y)
            else:
                x = layer([x, y]) if name in JOINING else layer(x)
            model = keras.Model(i, L.Dense(2, name="head")(L.Flatten()(x)))
            model(np.zeros((2, *shape), np.float32), training=False)
        except Exception:  # it takes no tensors of this rank, in Keras's own words
            continue
        return model
    raise AssertionError(f"{name} takes none of the shapes")


def check(flavor, name, tmp_path):
    keras = flavors.keras_module(flavor)
    model = net(keras, name)
    try:
        graph, smaller, proof = halved(model)
    except ValueError as error:
        raise AssertionError(f"{name}: {error}") from error
    assert proof.passed, (name, str(proof))
    assert smaller.count_params() <= model.count_params()
    ep.inspect(model)
    x = np.random.default_rng(0).random((2, *model.inputs[0].shape[1:]), np.float32)
    x = x.round().astype("int32") if name == "Embedding" else x
    try:
        model.save(tmp_path / "model.keras")
        keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    except Exception:  # nor does the model as it was come back
        return graph
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras", safe_mode=False)
    expected, given = (np.asarray(one(x, training=False)) for one in (smaller, loaded))
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)
    return graph


@pytest.mark.parametrize("name", CHOSEN)
def test_a_stock_layer(flavor, name, tmp_path):
    if name in layer_names(flavor):
        graph = check(flavor, name, tmp_path)
        assert "head" in graph.frozen and (name != "Lambda" or "Lambda is unknown" in graph.frozen["before"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("keras", "tf_keras") for name in layer_names(kind)]
)
def test_every_stock_layer(kind, name, tmp_path):
    check(kind, name, tmp_path)


def test_a_layer_called_on_a_rank_that_it_is_not_made_for():
    """`tf_keras` then scales the channels themselves up; they stay, and nothing crashes."""
    keras = flavors.keras_module("tf_keras")
    L = keras.layers
    i = keras.Input((6, 6, 3))
    x = L.UpSampling3D(2, name="up")(L.Dense(8, name="before")(i))
    graph, _, proof = halved(keras.Model(i, L.Dense(2, name="head")(L.Flatten()(x))))
    assert proof.passed and "it returns 16 channels where its rule has 8" in graph.frozen["before"]
