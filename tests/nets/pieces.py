"""Pieces that several nets are made of."""


def conv(k, x, filters, size=3, name=None, strides=1, activation="relu", norm=True, groups=1):
    """Convolution, batch normalisation, activation."""
    x = k.Conv2D(filters, size, strides, padding="same", use_bias=not norm, groups=groups, name=name)(x)
    x = k.BatchNormalization()(x) if norm else x
    return k.Activation(activation)(x) if activation else x


def depthwise(k, x, size=3, strides=1, activation="relu", multiplier=1):
    x = k.DepthwiseConv2D(size, strides, padding="same", use_bias=False, depth_multiplier=multiplier)(x)
    return k.Activation(activation)(k.BatchNormalization()(x))


def classify(k, x, name="head", classes=3):
    return k.Dense(classes, name=name)(k.GlobalAveragePooling2D()(x))


def squeeze_excite(k, x, width, name, ratio=2):
    """A gate for each channel from the mean of all."""
    y = k.GlobalAveragePooling2D(keepdims=True)(x)
    y = k.Conv2D(width // ratio, 1, activation="relu", name=f"{name}_squeeze")(y)
    y = k.Conv2D(width, 1, activation="sigmoid", name=f"{name}_excite")(y)
    return k.Multiply()([x, y])


def transformer_block(k, x, width, name, mask=None, heads=4):
    y = k.LayerNormalization()(x)
    y = k.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(y, y, attention_mask=mask)
    x = k.Add()([x, y])
    y = k.Dense(2 * width, activation="gelu", name=f"{name}_up")(k.LayerNormalization()(x))
    return k.Add()([x, k.Dense(width, name=f"{name}_down")(y)])


def block_class(k):
    """A composite layer without a rule."""

    class Block(k.Layer):
        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.a, self.b, self.norm = k.Dense(2 * width, activation="gelu"), k.Dense(width), k.LayerNormalization()

        def call(self, x):
            return x + self.b(self.a(self.norm(x)))

    return Block


def between_dense_layers(keras, shape, width, parts, nested=False):
    """Parts that keep a sequence's shape, between two dense layers; in a model inside another where asked for."""
    i = keras.Input(shape)
    x = keras.layers.Dense(width, name="stem")(i)
    if nested:
        inside = inner = keras.Input((shape[0], width))
        for part in parts:
            inner = part(inner)
        x = keras.Model(inside, inner, name="inside")(x)
    else:
        for part in parts:
            x = part(x)
    return keras.Model(i, keras.layers.Dense(2, name="head")(x))
