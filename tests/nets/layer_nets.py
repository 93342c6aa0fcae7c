"""Nets for one kind of layer each: convolutions, normalisation, sizes, formats."""

import numpy as np
from nets.net import KERAS_3_ONLY, net


@net()
def plain_convolutions(k):
    x = i = k.Input((10, 10, 3))
    for filters in (8, 12, 6):
        x = k.ReLU()(k.BatchNormalization()(k.Conv2D(filters, 3, use_bias=filters == 8)(x)))
    return k.Model(i, k.Dense(4, activation="softmax")(k.Flatten()(x)))


@net()
def one_dimension(k):
    return k.Sequential(
        [
            k.Input((16, 3)),
            k.Conv1D(8, 3, padding="causal"),
            k.BatchNormalization(),
            k.MaxPooling1D(),
            k.SeparableConv1D(12, 3, depth_multiplier=2),
            k.Conv1DTranspose(6, 3),
            k.DepthwiseConv1D(3, depth_multiplier=2),
            k.GlobalAveragePooling1D(),
            k.Dense(4),
        ]
    )


@net()
def three_dimensions(k):
    return k.Sequential(
        [
            k.Input((8, 8, 8, 2)),
            k.Conv3D(8, 3),
            k.PReLU(shared_axes=[1, 2, 3]),
            k.Conv3DTranspose(6, 2),
            k.AveragePooling3D(2),
            k.Flatten(),
            k.Dense(10, activation="gelu"),
            k.Dense(4),
        ]
    )


@net()
def grouped(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(24, 3, groups=4)(k.Conv2D(16, 3)(i))
    x = k.Conv2D(24, 1, groups=24)(x)
    x = k.Conv2D(48, 1, groups=24)(x)
    x = k.DepthwiseConv2D(3, depth_multiplier=3)(x)
    x = k.SeparableConv2D(8, 3, padding="same")(x)
    x = k.Conv2DTranspose(6, 2, strides=2)(x)
    return k.Model(i, k.Dense(3)(k.Flatten()(x)))


@net()
def generator_of_padded_images(k):
    return k.Sequential(
        [
            k.Input((10,)),
            k.Dense(4 * 4 * 16),
            k.Reshape((4, 4, 16)),
            k.BatchNormalization(),
            k.LeakyReLU(),
            k.Conv2DTranspose(8, 3, strides=2, padding="same"),
            k.UpSampling2D(),
            k.ZeroPadding2D(),
            k.Cropping2D(),
            k.Conv2D(3, 3, padding="same"),
        ]
    )


@net()
def permuted_to_channels_first(k):
    i = k.Input((8, 8, 3))
    x = k.Permute((3, 1, 2))(k.Conv2D(8, 3, padding="same")(i))
    x = k.BatchNormalization(axis=1)(x)
    y = k.ZeroPadding2D(1, data_format="channels_first")(x)
    y = k.Cropping2D(1, data_format="channels_first")(y)
    x = k.Concatenate(axis=1)([x, y])
    return k.Model(i, k.Dense(3)(k.Flatten(data_format="channels_first")(x)))


@net()
def convolutions_on_channels_first(k):
    # Sides that differ from the numbers of channels: where they are equal, Keras 3 adds the bias along the wrong axis.
    first = {"data_format": "channels_first"}
    i = k.Input((3, 11, 13))
    x = k.BatchNormalization(axis=1)(k.Conv2D(8, 3, padding="same", **first)(i))
    x = k.DepthwiseConv2D(3, **first)(x)
    y = k.Reshape((5, 9, 11))(k.Dense(5 * 9 * 11)(k.Flatten(**first)(x)))
    x = k.Conv2D(6, 1, **first)(k.Concatenate(axis=1)([x, y]))
    x = k.MaxPooling2D(**first)(k.Conv2DTranspose(7, 2, **first)(x))
    x = k.Multiply()([x, k.GlobalAveragePooling2D(keepdims=True, **first)(x)])
    return k.Model(i, k.Dense(2)(k.GlobalAveragePooling2D(**first)(x)))


@net()
def normalisations(k):
    x = i = k.Input((8, 8, 3))
    layers = (k.LayerNormalization(), k.GroupNormalization(4), k.GroupNormalization(16), k.UnitNormalization())
    for layer in layers:
        x = layer(k.Conv2D(16, 1)(x))
    return k.Model(i, k.Dense(3)(k.Flatten()(k.PReLU()(x))))


@net(**KERAS_3_ONLY)
def normalisations_of_keras_3(k):
    i = k.Input((6, 6, 8))
    x = k.SpectralNormalization(k.Conv2D(10, 3))(k.Conv2D(12, 1)(i))
    x = k.RMSNormalization()(k.Flatten()(x))
    return k.Model(i, k.Dense(3)(k.Dense(7, activation="softmax")(x)))


@net()
def einsum_dense(k):
    i = k.Input((6, 8))
    x = k.EinsumDense("abc,cde->abde", output_shape=(6, 3, 4), bias_axes="de")(k.Dense(12)(i))
    x = k.EinsumDense("abde,def->abf", output_shape=(6, 9), bias_axes="f")(x)
    x = k.EinsumDense("...x,xy->...y", output_shape=7)(x)
    return k.Model(i, k.Dense(3)(x))


@net()
def embedding(k):
    i = k.Input((6,), dtype="int32")
    x = k.Embedding(11, 8)(i)
    x = k.Add()([k.Conv1D(8, 3, padding="same")(x), x])
    return k.Model(i, k.Dense(3)(k.GlobalMaxPooling1D()(x)))


@net()
def any_size(k):
    i = k.Input((None, None, 3))
    x = k.Conv2D(8, 3)(k.Conv2D(8, 3)(i))
    s = k.Reshape((1, 1, 8))(k.GlobalAveragePooling2D()(x))
    x = k.Multiply()([x, s])
    return k.Model(i, [k.Conv2D(2, 1)(x), k.Dense(3)(k.GlobalMaxPooling2D()(x))])


@net()
def preprocessing(k):
    scale = k.Normalization()
    scale.adapt(np.random.default_rng(0).normal(size=(10, 4)).astype("float32"))
    i = k.Input((4,))
    x = k.Rescaling(2.0)(k.Conv1D(4, 2)(k.RepeatVector(3)(k.Dense(8)(scale(i)))))
    return k.Model(i, k.Dense(2)(k.Flatten()(x)))


@net()
def dense_autoencoder(k):
    widths = (12, 6, 3, 6, 12)
    return k.Sequential([k.Input((20,)), *(k.Dense(w, activation="relu") for w in widths), k.Dense(20)])
