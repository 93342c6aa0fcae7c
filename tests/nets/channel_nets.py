"""Small networks whose channels the tests remove, and the random weights and masks they do it with.

`NETS` maps a name to a function `net(keras, layers)` and to the Kerases it works on.
"""

from __future__ import annotations

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.proof import Proof, prove
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.flavor import keras_module


def randomize(model, seed=0):
    """Give a model weights under which every channel matters and nothing saturates."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.name.rpartition("/")[2]
        if not np.issubdtype(np.asarray(weight).dtype, np.floating):
            continue
        if len(shape) > 1 and "kernel" in name or "embeddings" in name:
            depthwise = "depthwise" in name or (shape[-1] == 1 and len(shape) > 2)
            fan_in = np.prod(shape[:-2] if depthwise else shape[:-1])
            values = rng.normal(size=shape) * np.sqrt(2 / max(fan_in, 1))
        elif "gamma" in name:  # below one, so that deep residual networks do not grow out of float32
            values = rng.uniform(0.4, 0.9, shape)
        elif "variance" in name:
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(size=shape) * 0.3
        weight.assign(values.astype(np.float32))
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def random_mask(graph: ChannelGraph, ratio=0.5, seed=0) -> np.ndarray:
    """Drop `ratio` of the channels of every group that is not frozen, chosen at random (in each head); one stays."""
    rng = np.random.default_rng(seed)
    mask = graph.full_mask()
    for group in graph.groups:
        if not group.frozen:
            for own in group.classes.reshape(group.heads or 1, -1):
                mask[rng.choice(own, min(round(group.count * ratio), group.count - 1), replace=False)] = False
    return mask


def halved(model, ratio=0.5, seed=0) -> tuple[ChannelGraph, object, Proof]:
    """Trace a model with random weights, drop half of every group, and compare."""
    graph = trace(randomize(model, seed))
    mask = random_mask(graph, ratio, seed)
    rebuilt = rebuild(graph, mask)
    return graph, rebuilt, prove(graph, mask, rebuilt, seed)


BOTH = ("keras", "tf_keras")
NETS: dict[str, tuple] = {}


def net(*flavors):
    """Enter a network into NETS."""

    def enter(build):
        NETS[build.__name__] = (build, flavors or BOTH)
        return build

    return enter


@net()
def plain_convolutions(K, L):
    x = i = K.Input((10, 10, 3))
    for filters in (8, 12, 6):
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(filters, 3, use_bias=filters == 8)(x)))
    return K.Model(i, L.Dense(4, activation="softmax")(L.Flatten()(x)))


@net()
def one_dimension(K, L):
    return K.Sequential(
        [
            K.Input((16, 3)),
            L.Conv1D(8, 3, padding="causal"),
            L.BatchNormalization(),
            L.MaxPooling1D(),
            L.SeparableConv1D(12, 3, depth_multiplier=2),
            L.Conv1DTranspose(6, 3),
            L.DepthwiseConv1D(3, depth_multiplier=2),
            L.GlobalAveragePooling1D(),
            L.Dense(4),
        ]
    )


@net()
def three_dimensions(K, L):
    return K.Sequential(
        [
            K.Input((8, 8, 8, 2)),
            L.Conv3D(8, 3),
            L.PReLU(shared_axes=[1, 2, 3]),
            L.Conv3DTranspose(6, 2),
            L.AveragePooling3D(2),
            L.Flatten(),
            L.Dense(10, activation="gelu"),
            L.Dense(4),
        ]
    )


@net()
def grouped(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(24, 3, groups=4)(L.Conv2D(16, 3)(i))
    x = L.Conv2D(24, 1, groups=24)(x)
    x = L.Conv2D(48, 1, groups=24)(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=3)(x)
    x = L.SeparableConv2D(8, 3, padding="same")(x)
    x = L.Conv2DTranspose(6, 2, strides=2)(x)
    return K.Model(i, L.Dense(3)(L.Flatten()(x)))


@net()
def generator(K, L):
    return K.Sequential(
        [
            K.Input((10,)),
            L.Dense(4 * 4 * 16),
            L.Reshape((4, 4, 16)),
            L.BatchNormalization(),
            L.LeakyReLU(),
            L.Conv2DTranspose(8, 3, strides=2, padding="same"),
            L.UpSampling2D(),
            L.ZeroPadding2D(),
            L.Cropping2D(),
            L.Conv2D(3, 3, padding="same"),
        ]
    )


@net()
def channels_first(K, L):
    i = K.Input((8, 8, 3))
    x = L.Permute((3, 1, 2))(L.Conv2D(8, 3, padding="same")(i))
    x = L.BatchNormalization(axis=1)(x)
    y = L.ZeroPadding2D(1, data_format="channels_first")(x)
    y = L.Cropping2D(1, data_format="channels_first")(y)
    x = L.Concatenate(axis=1)([x, y])
    return K.Model(i, L.Dense(3)(L.Flatten(data_format="channels_first")(x)))


@net()
def convolutions_on_channels_first(K, L):
    # Sides that differ from the numbers of channels: where they are equal, Keras 3 adds the bias along the wrong axis.
    first = {"data_format": "channels_first"}
    i = K.Input((3, 11, 13))
    x = L.BatchNormalization(axis=1)(L.Conv2D(8, 3, padding="same", **first)(i))
    x = L.DepthwiseConv2D(3, **first)(x)
    y = L.Reshape((5, 9, 11))(L.Dense(5 * 9 * 11)(L.Flatten(**first)(x)))
    x = L.Conv2D(6, 1, **first)(L.Concatenate(axis=1)([x, y]))
    x = L.MaxPooling2D(**first)(L.Conv2DTranspose(7, 2, **first)(x))
    x = L.Multiply()([x, L.GlobalAveragePooling2D(keepdims=True, **first)(x)])
    return K.Model(i, L.Dense(2)(L.GlobalAveragePooling2D(**first)(x)))


@net()
def normalisations(K, L):
    x = i = K.Input((8, 8, 3))
    layers = (L.LayerNormalization(), L.GroupNormalization(4), L.GroupNormalization(16), L.UnitNormalization())
    for layer in layers:
        x = layer(L.Conv2D(16, 1)(x))
    return K.Model(i, L.Dense(3)(L.Flatten()(L.PReLU()(x))))


@net("keras")
def normalisations_of_keras_3(K, L):
    i = K.Input((6, 6, 8))
    x = L.SpectralNormalization(L.Conv2D(10, 3))(L.Conv2D(12, 1)(i))
    x = L.RMSNormalization()(L.Flatten()(x))
    return K.Model(i, L.Dense(3)(L.Dense(7, activation="softmax")(x)))


@net()
def residual(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same")(i)
    for _ in range(2):
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 1)(x)))
        x = L.Add()([x, L.Conv2D(16, 3, padding="same")(y)])
    return K.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@net()
def inverted_residual(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same")(i)
    for _ in range(2):
        y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(24, 1, use_bias=False)(x)))
        y = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
        x = L.Add()([x, L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(y))])
    return K.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@net()
def dense_connections(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(6, 3, padding="same")(i)
    for _ in range(3):
        y = L.Conv2D(8, 1)(L.ReLU()(L.BatchNormalization()(x)))
        x = L.Concatenate()([x, L.Conv2D(4, 3, padding="same")(y)])
    return K.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(L.BatchNormalization()(x))))


@net()
def inception(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same")(i)
    branches = [L.Conv2D(4, 1)(x), L.Conv2D(6, 3, padding="same")(L.Conv2D(5, 1)(x))]
    branches += [L.Conv2D(3, 1)(L.AveragePooling2D(3, 1, padding="same")(x)), L.MaxPooling2D(3, 1, padding="same")(x)]
    return K.Model(i, L.Dense(3)(L.Flatten()(L.Conv2D(8, 1)(L.Concatenate()(branches)))))


@net()
def u_net(K, L):
    i = K.Input((8, 8, 3))
    a = L.Conv2D(6, 3, padding="same", activation="relu")(i)
    b = L.Conv2D(10, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2D(12, 3, padding="same", activation="relu")(L.MaxPooling2D()(b))
    x = L.Concatenate()([L.UpSampling2D()(c), b])
    x = L.Conv2D(8, 3, padding="same")(x)
    x = L.Concatenate()([L.Conv2DTranspose(6, 2, strides=2)(x), a])
    return K.Model(i, L.Conv2D(2, 1)(x))


@net()
def feature_pyramid(K, L):
    i = K.Input((16, 16, 3))
    x, levels = i, []
    for filters in (8, 12, 16):
        x = L.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
        levels.append(L.Conv2D(10, 1)(x))
    top = levels.pop()
    head = L.Conv2D(4, 3, padding="same")
    outputs = [head(top)]
    for level in reversed(levels):
        top = L.Add()([L.UpSampling2D()(top), level])
        outputs.append(head(top))
    return K.Model(i, outputs)


@net()
def merges(K, L):
    i = K.Input((8,))
    a, b, c = (L.Dense(12)(i) for _ in range(3))
    x = L.Multiply()([L.Add()([a, b]), c])
    d, e = L.Dense(5)(x), L.Dense(6)(x)
    f = L.Dense(17)(L.Concatenate()([d, e, i]))
    z = L.Subtract()([L.Maximum()([L.Concatenate()([d, x]), f]), f])
    z = L.Minimum()([L.Average()([z, f]), f])
    return K.Model(i, [L.Dense(3)(z), L.Dense(2)(d)])


@net()
def siamese(K, L):
    i = K.Input((8, 8, 1))
    tower = K.Model(i, L.Dense(6, name="embedding")(L.Flatten()(L.Conv2D(8, 3, name="inner")(i))), name="tower")
    a, b = K.Input((8, 8, 1)), K.Input((8, 8, 1))
    return K.Model([a, b], [L.Dot(1)([tower(a), tower(b)]), L.Dense(2)(L.Concatenate()([tower(a), tower(b)]))])


@net()
def nested(K, L):
    one = K.Sequential([K.Input((8, 8, 6)), L.Conv2D(8, 3, name="c1"), L.BatchNormalization(name="bn")], name="one")
    i = K.Input((6, 6, 8))
    two = K.Model(i, L.ReLU()(L.Conv2D(7, 1, name="c2")(i)), name="two")
    both = K.Sequential([K.Input((8, 8, 6)), one, two], name="both")
    i = K.Input((10, 10, 3))
    return K.Model(i, L.Dense(3)(L.GlobalMaxPooling2D()(both(L.Conv2D(6, 3)(i)))), name="outer")


@net()
def shared_layer(K, L):
    i = K.Input((8,))
    layer = L.Dense(8, name="shared")
    x = layer(L.ReLU()(layer(L.Dense(8)(i))))
    return K.Model(i, L.Dense(2)(L.Dense(9)(x)))


@net()
def squeeze_excite(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3)(i)
    s = L.Reshape((1, 1, 16))(L.GlobalAveragePooling2D()(x))
    s = L.Conv2D(16, 1, activation="sigmoid")(L.Conv2D(4, 1, activation="relu")(s))
    x = x * s
    s = L.Dense(16)(L.Dense(5)(L.GlobalAveragePooling2D(keepdims=True)(x)))
    x = L.Multiply()([x, s])
    return K.Model(i, L.Dense(3)(L.Flatten()(x)))


@net()
def gate_of_one_channel(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3)(i)
    x = L.Multiply()([x, L.Conv2D(1, 3, padding="same", activation="sigmoid")(L.Conv2D(6, 1)(x))])
    return K.Model(i, L.Dense(3)(L.Flatten()(x)))


@net()
def arithmetic(K, L):
    i = K.Input((8,))
    a, b = L.Dense(12)(i), L.Dense(12)(i)
    x = 1.0 - ((a + b) * a - b / 2.0)
    x = abs(-x) ** 2.0
    return K.Model(i, L.Dense(3)(L.Dense(6)(x) + 1))


@net()
def slicing(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3)(i)
    parts = (x[:, :, :, :6], x[:, :, :, 6:], x[:, 1:3, ::2, 4:10], x[:, :, :, 1::2], x[:, 0], x[:, :, :, -3:])
    return K.Model(i, [L.Dense(3)(L.Flatten()(part)) for part in parts])


@net()
def shuffle(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(24, 1, groups=4)(L.Conv2D(24, 3)(i))
    x = L.Reshape((6, 6, 24))(L.Permute((1, 2, 4, 3))(L.Reshape((6, 6, 4, 6))(x)))
    x = L.Conv2D(16, 1, groups=4)(L.DepthwiseConv2D(3)(x))
    return K.Model(i, L.Dense(3)(L.Flatten()(x)))


@net()
def shuffle_units(K, L):
    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same")(i)
    for _ in range(2):
        a, b = x[:, :, :, :8], x[:, :, :, 8:]
        b = L.Conv2D(8, 1)(L.DepthwiseConv2D(3, padding="same")(L.Conv2D(8, 1, activation="relu")(b)))
        x = L.Reshape((8, 8, 2, 8))(L.Concatenate()([a, b]))
        x = L.Reshape((8, 8, 16))(L.Permute((1, 2, 4, 3))(x))
    return K.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@net()
def mixer(K, L):
    i = K.Input((8, 8, 3))
    x = L.Reshape((16, 12))(L.Conv2D(12, 2, strides=2)(i))
    y = L.Dense(16)(L.Dense(10, activation="gelu")(L.Permute((2, 1))(x)))
    x = L.Add()([x, L.Permute((2, 1))(y)])
    x = L.Add()([x, L.Dense(12)(L.Dense(20, activation="gelu")(x))])
    return K.Model(i, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


@net()
def einsum_dense(K, L):
    i = K.Input((6, 8))
    x = L.EinsumDense("abc,cde->abde", output_shape=(6, 3, 4), bias_axes="de")(L.Dense(12)(i))
    x = L.EinsumDense("abde,def->abf", output_shape=(6, 9), bias_axes="f")(x)
    x = L.EinsumDense("...x,xy->...y", output_shape=7)(x)
    return K.Model(i, L.Dense(3)(x))


@net()
def embedding(K, L):
    i = K.Input((6,), dtype="int32")
    x = L.Embedding(11, 8)(i)
    x = L.Add()([L.Conv1D(8, 3, padding="same")(x), x])
    return K.Model(i, L.Dense(3)(L.GlobalMaxPooling1D()(x)))


@net()
def dilated_residual(K, L):
    i = K.Input((16, 3))
    x = L.Conv1D(8, 1)(i)
    for rate in (1, 2):
        y = L.Conv1D(6, 3, padding="causal", dilation_rate=rate, activation="relu")(x)
        x = L.Add()([x, L.SpatialDropout1D(0.1)(L.Conv1D(8, 1)(y))])
    return K.Model(i, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


@net()
def any_size(K, L):
    i = K.Input((None, None, 3))
    x = L.Conv2D(8, 3)(L.Conv2D(8, 3)(i))
    s = L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(x))
    x = L.Multiply()([x, s])
    return K.Model(i, [L.Conv2D(2, 1)(x), L.Dense(3)(L.GlobalMaxPooling2D()(x))])


@net()
def two_inputs_three_outputs(K, L):
    a, b = K.Input((6, 6, 2), name="a"), K.Input((4,), name="b")
    x = L.Conv2D(8, 3)(a)
    y = L.Dense(8)(b)
    z = L.Multiply()([x, L.Reshape((1, 1, 8))(y)])
    return K.Model({"a": a, "b": b}, [L.Dense(2)(L.Flatten()(z)), L.Dense(3)(y), L.Dense(1)(L.Flatten()(x))])


@net()
def preprocessing(K, L):
    scale = L.Normalization()
    scale.adapt(np.random.default_rng(0).normal(size=(10, 4)).astype("float32"))
    i = K.Input((4,))
    x = L.Rescaling(2.0)(L.Conv1D(4, 2)(L.RepeatVector(3)(L.Dense(8)(scale(i)))))
    return K.Model(i, L.Dense(2)(L.Flatten()(x)))


@net()
def autoencoder(K, L):
    widths = (12, 6, 3, 6, 12)
    return K.Sequential([K.Input((20,)), *(L.Dense(w, activation="relu") for w in widths), L.Dense(20)])


@net("keras")
def operations(K, L):
    from keras import ops

    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same")(i)
    a, b = ops.split(x, 2, axis=-1)
    c, d, e = ops.split(x, [4, 10], axis=-1)
    x = ops.relu6(ops.concatenate([a, e], -1))
    y = ops.reshape(ops.stack([a, b], axis=3), (-1, 8, 8, 16))
    w = ops.where(a > 0, a, b)
    results = [
        *(c, d, x, y, w),
        ops.mean(ops.transpose(y, (0, 3, 1, 2)), axis=(2, 3)),
        L.Conv2D(5, 1)(ops.pad(y, ((0, 0), (1, 1), (1, 1), (2, 1)))),
        ops.sum(y, axis=-1, keepdims=True) * L.Conv2D(4, 1)(y),
        ops.max(y, axis=-1, keepdims=True),
        ops.tile(a, (1, 1, 1, 2)),
        ops.repeat(b, 2, axis=-1),
        ops.flip(b, axis=-1),
        ops.moveaxis(ops.swapaxes(w, 1, 3), 1, -1),
        ops.softmax(ops.squeeze(ops.expand_dims(w, 1), 1)),
        ops.space_to_depth(ops.depth_to_space(y, 2), 2),
        ops.image.extract_patches(w, (2, 2)),
        ops.average_pool(w, 2),
    ]
    return K.Model(i, [L.Dense(2)(L.Flatten()(result)) for result in results])


@net("tf_keras")
def tensorflow_functions(K, L):
    import tensorflow as tf

    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same")(i)
    a, b = tf.split(x, 2, axis=-1)
    c, d, e = tf.split(x, [4, 6, 6], axis=-1)
    x = tf.nn.relu6(tf.concat([a, e], -1))
    y = tf.reshape(tf.stack([a, b], axis=3), (-1, 8, 8, 16))
    y = tf.reshape(y, [tf.shape(y)[0], 8, 8, 16])
    w = tf.where(a > 0, a, b)
    results = [
        *(c, d, x, y, w),
        tf.reduce_mean(tf.transpose(y, (0, 3, 1, 2)), axis=(2, 3)),
        L.Conv2D(5, 1)(tf.pad(y, ((0, 0), (1, 1), (1, 1), (2, 1)))),
        tf.reduce_sum(y, axis=-1, keepdims=True) * L.Conv2D(4, 1)(y),
        tf.reduce_max(y, axis=-1, keepdims=True),
        tf.tile(a, (1, 1, 1, 2)),
        tf.repeat(b, 2, axis=-1),
        tf.reverse(b, axis=[-1]),
        tf.nn.softmax(tf.squeeze(tf.expand_dims(w, 1), 1)),
        tf.nn.space_to_depth(tf.nn.depth_to_space(y, 2), 2),
        tf.image.extract_patches(w, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"),
        tf.nn.avg_pool2d(w, 2, 2, "SAME"),
    ]
    return K.Model(i, [L.Dense(2)(L.Flatten()(result)) for result in results])


@net("keras")
def attention_by_hand(K, L):
    from keras import ops

    i = K.Input((6, 5))
    x = L.Dense(12)(i)
    q, k, v = (ops.transpose(ops.reshape(L.Dense(12)(x), (-1, 6, 3, 4)), (0, 2, 1, 3)) for _ in range(3))
    y = ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 2.0), v)
    y = L.Dense(12)(ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, 6, 12))) + x
    return K.Model(i, [L.Dense(3)(y), L.Dense(2)(ops.einsum("btc,bsc->bts", y, L.Dense(12)(x)))])


@net("tf_keras")
def attention_by_tensorflow(K, L):
    import tensorflow as tf

    i = K.Input((6, 5))
    x = L.Dense(12)(i)
    q, k, v = (tf.transpose(tf.reshape(L.Dense(12)(x), (-1, 6, 3, 4)), (0, 2, 1, 3)) for _ in range(3))
    y = tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / 2.0), v)
    y = L.Dense(12)(tf.reshape(tf.transpose(y, (0, 2, 1, 3)), (-1, 6, 12))) + x
    return K.Model(i, L.Dense(3)(y))


@net("keras")
def subclassed(K, L):
    class Net(K.Model):
        def __init__(self):
            super().__init__(name="net")
            self.a = L.Conv2D(8, 3, name="a")
            self.b = K.Sequential([L.Conv2D(12, 3), L.ReLU()], name="b")
            self.c = L.Dense(12, name="c")
            self.d = L.Dense(3, name="d")

        def call(self, x, training=None):
            s = K.ops.mean(self.b(self.a(x)), axis=(1, 2))
            return self.d(s * K.ops.sigmoid(self.c(s)))

    model = Net()
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


def block_class(K, L):
    """A composite layer without a rule."""

    class Block(L.Layer):
        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.a, self.b, self.norm = L.Dense(2 * width, activation="gelu"), L.Dense(width), L.LayerNormalization()

        def call(self, x):
            return x + self.b(self.a(self.norm(x)))

    return Block


@net("keras")
def composite_layers(K, L):
    Block = block_class(K, L)

    class Pair(L.Layer):
        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.one, self.two = Block(width), Block(width)

        def call(self, x):
            return self.two(self.one(x))

    i = K.Input((6, 5))
    return K.Model(i, L.Dense(3)(Pair(8, name="pair")(L.Dense(8)(i))))


def built(name, flavor):
    """A network of NETS in one Keras."""
    keras = keras_module(flavor)
    return NETS[name][0](keras, keras.layers)
