"""Nets for one kind of connection each: sums, joins, slices, shuffles, gates, attention by hand, nesting."""

import numpy as np
from nets.net import KERAS_3_ONLY, TF_KERAS_ONLY, net
from nets.pieces import block_class


@net()
def residual(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(16, 3, padding="same")(i)
    for _ in range(2):
        y = k.ReLU()(k.BatchNormalization()(k.Conv2D(8, 1)(x)))
        x = k.Add()([x, k.Conv2D(16, 3, padding="same")(y)])
    return k.Model(i, k.Dense(3)(k.GlobalAveragePooling2D()(x)))


@net()
def inverted_residual(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(8, 3, padding="same")(i)
    for _ in range(2):
        y = k.ReLU(6.0)(k.BatchNormalization()(k.Conv2D(24, 1, use_bias=False)(x)))
        y = k.ReLU(6.0)(k.BatchNormalization()(k.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
        x = k.Add()([x, k.BatchNormalization()(k.Conv2D(8, 1, use_bias=False)(y))])
    return k.Model(i, k.Dense(3)(k.GlobalAveragePooling2D()(x)))


@net()
def dense_connections(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(6, 3, padding="same")(i)
    for _ in range(3):
        y = k.Conv2D(8, 1)(k.ReLU()(k.BatchNormalization()(x)))
        x = k.Concatenate()([x, k.Conv2D(4, 3, padding="same")(y)])
    return k.Model(i, k.Dense(3)(k.GlobalAveragePooling2D()(k.BatchNormalization()(x))))


@net()
def pyramid_with_one_head(k):
    i = k.Input((16, 16, 3))
    x, levels = i, []
    for filters in (8, 12, 16):
        x = k.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
        levels.append(k.Conv2D(10, 1)(x))
    top = levels.pop()
    head = k.Conv2D(4, 3, padding="same")
    outputs = [head(top)]
    for level in reversed(levels):
        top = k.Add()([k.UpSampling2D()(top), level])
        outputs.append(head(top))
    return k.Model(i, outputs)


@net()
def merges(k):
    i = k.Input((8,))
    a, b, c = (k.Dense(12)(i) for _ in range(3))
    x = k.Multiply()([k.Add()([a, b]), c])
    d, e = k.Dense(5)(x), k.Dense(6)(x)
    f = k.Dense(17)(k.Concatenate()([d, e, i]))
    z = k.Subtract()([k.Maximum()([k.Concatenate()([d, x]), f]), f])
    z = k.Minimum()([k.Average()([z, f]), f])
    return k.Model(i, [k.Dense(3)(z), k.Dense(2)(d)])


@net()
def siamese_product(k):
    i = k.Input((8, 8, 1))
    tower = k.Model(i, k.Dense(6, name="embedding")(k.Flatten()(k.Conv2D(8, 3, name="inner")(i))), name="tower")
    a, b = k.Input((8, 8, 1)), k.Input((8, 8, 1))
    return k.Model([a, b], [k.Dot(1)([tower(a), tower(b)]), k.Dense(2)(k.Concatenate()([tower(a), tower(b)]))])


@net()
def nested(k):
    one = k.Sequential([k.Input((8, 8, 6)), k.Conv2D(8, 3, name="c1"), k.BatchNormalization(name="bn")], name="one")
    i = k.Input((6, 6, 8))
    two = k.Model(i, k.ReLU()(k.Conv2D(7, 1, name="c2")(i)), name="two")
    both = k.Sequential([k.Input((8, 8, 6)), one, two], name="both")
    i = k.Input((10, 10, 3))
    return k.Model(i, k.Dense(3)(k.GlobalMaxPooling2D()(both(k.Conv2D(6, 3)(i)))), name="outer")


@net()
def shared_layer(k):
    i = k.Input((8,))
    layer = k.Dense(8, name="shared")
    x = layer(k.ReLU()(layer(k.Dense(8)(i))))
    return k.Model(i, k.Dense(2)(k.Dense(9)(x)))


@net()
def gates_by_reshape_and_by_pooling(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(16, 3)(i)
    s = k.Reshape((1, 1, 16))(k.GlobalAveragePooling2D()(x))
    s = k.Conv2D(16, 1, activation="sigmoid")(k.Conv2D(4, 1, activation="relu")(s))
    x = x * s
    s = k.Dense(16)(k.Dense(5)(k.GlobalAveragePooling2D(keepdims=True)(x)))
    x = k.Multiply()([x, s])
    return k.Model(i, k.Dense(3)(k.Flatten()(x)))


@net()
def gate_of_one_channel(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(16, 3)(i)
    x = k.Multiply()([x, k.Conv2D(1, 3, padding="same", activation="sigmoid")(k.Conv2D(6, 1)(x))])
    return k.Model(i, k.Dense(3)(k.Flatten()(x)))


@net()
def arithmetic(k):
    i = k.Input((8,))
    a, b = k.Dense(12)(i), k.Dense(12)(i)
    x = 1.0 - ((a + b) * a - b / 2.0)
    x = abs(-x) ** 2.0
    return k.Model(i, k.Dense(3)(k.Dense(6)(x) + 1))


@net()
def slicing(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(16, 3)(i)
    parts = (x[:, :, :, :6], x[:, :, :, 6:], x[:, 1:3, ::2, 4:10], x[:, :, :, 1::2], x[:, 0], x[:, :, :, -3:])
    return k.Model(i, [k.Dense(3)(k.Flatten()(part)) for part in parts])


@net()
def shuffle(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(24, 1, groups=4)(k.Conv2D(24, 3)(i))
    x = k.Reshape((6, 6, 24))(k.Permute((1, 2, 4, 3))(k.Reshape((6, 6, 4, 6))(x)))
    x = k.Conv2D(16, 1, groups=4)(k.DepthwiseConv2D(3)(x))
    return k.Model(i, k.Dense(3)(k.Flatten()(x)))


@net()
def shuffle_units(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(16, 3, padding="same")(i)
    for _ in range(2):
        a, b = x[:, :, :, :8], x[:, :, :, 8:]
        b = k.Conv2D(8, 1)(k.DepthwiseConv2D(3, padding="same")(k.Conv2D(8, 1, activation="relu")(b)))
        x = k.Reshape((8, 8, 2, 8))(k.Concatenate()([a, b]))
        x = k.Reshape((8, 8, 16))(k.Permute((1, 2, 4, 3))(x))
    return k.Model(i, k.Dense(3)(k.GlobalAveragePooling2D()(x)))


@net()
def mixer(k):
    i = k.Input((8, 8, 3))
    x = k.Reshape((16, 12))(k.Conv2D(12, 2, strides=2)(i))
    y = k.Dense(16)(k.Dense(10, activation="gelu")(k.Permute((2, 1))(x)))
    x = k.Add()([x, k.Permute((2, 1))(y)])
    x = k.Add()([x, k.Dense(12)(k.Dense(20, activation="gelu")(x))])
    return k.Model(i, k.Dense(3)(k.GlobalAveragePooling1D()(x)))


@net()
def dict_of_inputs(k):
    a, b = k.Input((6, 6, 2), name="a"), k.Input((4,), name="b")
    x = k.Conv2D(8, 3)(a)
    y = k.Dense(8)(b)
    z = k.Multiply()([x, k.Reshape((1, 1, 8))(y)])
    return k.Model({"a": a, "b": b}, [k.Dense(2)(k.Flatten()(z)), k.Dense(3)(y), k.Dense(1)(k.Flatten()(x))])


@net(**KERAS_3_ONLY)
def operations(k):
    i = k.Input((8, 8, 3))
    x = k.Conv2D(16, 3, padding="same")(i)
    a, b = k.ops.split(x, 2, axis=-1)
    c, d, e = k.ops.split(x, [4, 10], axis=-1)
    x = k.ops.relu6(k.ops.concatenate([a, e], -1))
    y = k.ops.reshape(k.ops.stack([a, b], axis=3), (-1, 8, 8, 16))
    w = k.ops.where(a > 0, a, b)
    results = [
        *(c, d, x, y, w),
        k.ops.mean(k.ops.transpose(y, (0, 3, 1, 2)), axis=(2, 3)),
        k.Conv2D(5, 1)(k.ops.pad(y, ((0, 0), (1, 1), (1, 1), (2, 1)))),
        k.ops.sum(y, axis=-1, keepdims=True) * k.Conv2D(4, 1)(y),
        k.ops.max(y, axis=-1, keepdims=True),
        k.ops.tile(a, (1, 1, 1, 2)),
        k.ops.repeat(b, 2, axis=-1),
        k.ops.flip(b, axis=-1),
        k.ops.moveaxis(k.ops.swapaxes(w, 1, 3), 1, -1),
        k.ops.softmax(k.ops.squeeze(k.ops.expand_dims(w, 1), 1)),
        k.ops.space_to_depth(k.ops.depth_to_space(y, 2), 2),
        k.ops.image.extract_patches(w, (2, 2)),
        k.ops.average_pool(w, 2),
    ]
    return k.Model(i, [k.Dense(2)(k.Flatten()(result)) for result in results])


@net(**TF_KERAS_ONLY)
def tensorflow_functions(k):
    import tensorflow as tf

    i = k.Input((8, 8, 3))
    x = k.Conv2D(16, 3, padding="same")(i)
    a, b = tf.split(x, 2, axis=-1)
    c, d, e = tf.split(x, [4, 6, 6], axis=-1)
    x = tf.nn.relu6(tf.concat([a, e], -1))
    y = tf.reshape(tf.stack([a, b], axis=3), (-1, 8, 8, 16))
    y = tf.reshape(y, [tf.shape(y)[0], 8, 8, 16])
    w = tf.where(a > 0, a, b)
    results = [
        *(c, d, x, y, w),
        tf.reduce_mean(tf.transpose(y, (0, 3, 1, 2)), axis=(2, 3)),
        k.Conv2D(5, 1)(tf.pad(y, ((0, 0), (1, 1), (1, 1), (2, 1)))),
        tf.reduce_sum(y, axis=-1, keepdims=True) * k.Conv2D(4, 1)(y),
        tf.reduce_max(y, axis=-1, keepdims=True),
        tf.tile(a, (1, 1, 1, 2)),
        tf.repeat(b, 2, axis=-1),
        tf.reverse(b, axis=[-1]),
        tf.nn.softmax(tf.squeeze(tf.expand_dims(w, 1), 1)),
        tf.nn.space_to_depth(tf.nn.depth_to_space(y, 2), 2),
        tf.image.extract_patches(w, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"),
        tf.nn.avg_pool2d(w, 2, 2, "SAME"),
    ]
    return k.Model(i, [k.Dense(2)(k.Flatten()(result)) for result in results])


@net(**KERAS_3_ONLY)
def attention_by_hand(k):
    i = k.Input((6, 5))
    x = k.Dense(12)(i)
    q, key, v = (k.ops.transpose(k.ops.reshape(k.Dense(12)(x), (-1, 6, 3, 4)), (0, 2, 1, 3)) for _ in range(3))
    y = k.ops.matmul(k.ops.softmax(k.ops.matmul(q, k.ops.transpose(key, (0, 1, 3, 2))) / 2.0), v)
    y = k.Dense(12)(k.ops.reshape(k.ops.transpose(y, (0, 2, 1, 3)), (-1, 6, 12))) + x
    return k.Model(i, [k.Dense(3)(y), k.Dense(2)(k.ops.einsum("btc,bsc->bts", y, k.Dense(12)(x)))])


@net(**TF_KERAS_ONLY)
def attention_by_tensorflow(k):
    import tensorflow as tf

    i = k.Input((6, 5))
    x = k.Dense(12)(i)
    q, key, v = (tf.transpose(tf.reshape(k.Dense(12)(x), (-1, 6, 3, 4)), (0, 2, 1, 3)) for _ in range(3))
    y = tf.matmul(tf.nn.softmax(tf.matmul(q, key, transpose_b=True) / 2.0), v)
    y = k.Dense(12)(tf.reshape(tf.transpose(y, (0, 2, 1, 3)), (-1, 6, 12))) + x
    return k.Model(i, k.Dense(3)(y))


@net(**KERAS_3_ONLY)
def subclassed_with_a_gate(k):
    class Net(k.Model):
        def __init__(self):
            super().__init__(name="net")
            self.a = k.Conv2D(8, 3, name="a")
            self.b = k.Sequential([k.Conv2D(12, 3), k.ReLU()], name="b")
            self.c = k.Dense(12, name="c")
            self.d = k.Dense(3, name="d")

        def call(self, x, training=None):
            s = k.ops.mean(self.b(self.a(x)), axis=(1, 2))
            return self.d(s * k.ops.sigmoid(self.c(s)))

    model = Net()
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


@net(**KERAS_3_ONLY)
def composite_layers(k):
    Block = block_class(k)

    class Pair(k.Layer):
        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.one, self.two = Block(width), Block(width)

        def call(self, x):
            return self.two(self.one(x))

    i = k.Input((6, 5))
    return k.Model(i, k.Dense(3)(Pair(8, name="pair")(k.Dense(8)(i))))
