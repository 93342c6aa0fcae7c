"""Architectures whose outputs are images, or maps of one."""

from nets.net import net
from nets.pieces import conv


@net("down_0 down_1 bottom up_1 merge_1 up_0 merge_0", "mask")
def u_net(k):
    inputs = k.Input((16, 16, 3))
    x, skips = inputs, []
    for level in range(2):
        x = conv(k, x, 8 * (level + 1), name=f"down_{level}")
        skips.append(x)
        x = k.MaxPooling2D(2)(x)
    x = conv(k, x, 24, name="bottom")
    for level in (1, 0):
        x = k.Conv2DTranspose(8 * (level + 1), 2, 2, name=f"up_{level}")(x)
        x = conv(k, k.Concatenate()([skips[level], x]), 8 * (level + 1), name=f"merge_{level}")
    return k.Model(inputs, k.Conv2D(2, 1, activation="softmax", name="mask")(x))


@net("feature expand", "out")
def pixel_shuffle(k):
    """Super-resolution: the four channels that make one channel of four places go together."""
    inputs = k.Input((8, 8, 1))
    x = conv(k, inputs, 8, name="feature")
    x = conv(k, x, 16, name="expand", activation=None)
    x = k.ops.reshape(x, (-1, 8, 8, 2, 2, 4))
    x = k.ops.reshape(k.ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, 16, 4))
    return k.Model(inputs, k.Conv2D(1, 3, padding="same", name="out")(x))


@net("c_0 c_1 c_2 lateral_2 smooth_0 smooth_1 smooth_2", "box_0 box_1 box_2")
def feature_pyramid(k):
    """Three scales that are summed from the top; a head on each, not shared."""
    inputs = k.Input((16, 16, 3))
    x, levels = inputs, []
    for level in range(3):
        x = conv(k, x, 8, name=f"c_{level}", strides=2)
        levels.append(x)
    merged = None
    outputs = []
    for level in (2, 1, 0):
        y = k.Conv2D(8, 1, name=f"lateral_{level}")(levels[level])
        merged = y if merged is None else k.Add()([y, k.UpSampling2D()(merged)])
        smooth = conv(k, merged, 6, name=f"smooth_{level}")
        outputs.insert(0, k.Conv2D(4, 1, name=f"box_{level}")(smooth))
    return k.Model(inputs, outputs)


@net("stem rate_1 rate_2 image fuse")
def atrous_pyramid(k):
    """DeepLab: dilated branches and one from the mean of the whole picture."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    branches = [k.Conv2D(6, 3, padding="same", dilation_rate=rate, name=f"rate_{rate}")(x) for rate in (1, 2)]
    y = k.Conv2D(6, 1, name="image")(k.GlobalAveragePooling2D(keepdims=True)(x))
    x = conv(k, k.Concatenate()([*branches, k.UpSampling2D(8)(y)]), 8, 1, name="fuse")
    return k.Model(inputs, k.Conv2D(3, 1, name="head")(x))


@net("stem:0 stem:1 a b join", "box")
def yolo_routes(k):
    """A route reads the second half of the channels by slicing, and comes back by concatenation."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem", activation="leaky_relu")
    half = conv(k, x[..., 8:], 8, name="a", activation="leaky_relu")
    again = conv(k, half, 8, name="b", activation="leaky_relu")
    y = k.Concatenate()([half, again])
    y = conv(k, k.Concatenate()([x, y]), 12, 1, name="join", activation="leaky_relu")
    return k.Model(inputs, k.Conv2D(5, 1, name="box")(k.MaxPooling2D(2)(y)))


@net("encode_0 code decode_0 decode_1", "decode_2")
def autoencoder(k):
    inputs = k.Input((8, 8, 1))
    x = conv(k, inputs, 8, name="encode_0", strides=2)
    x = k.Dense(6, name="code")(k.Flatten()(x))
    x = k.Reshape((4, 4, 8))(k.Dense(128, activation="relu", name="decode_0")(x))
    x = k.Conv2DTranspose(6, 3, 2, padding="same", activation="relu", name="decode_1")(x)
    return k.Model(inputs, k.Conv2D(1, 3, padding="same", name="decode_2")(x))


@net("project up_0 up_1", "image")
def generator(k):
    """All places that one channel is reshaped to go together."""
    inputs = k.Input((10,))
    x = k.Dense(4 * 4 * 12, use_bias=False, name="project")(inputs)
    x = k.Reshape((4, 4, 12))(k.LeakyReLU()(k.BatchNormalization()(x)))
    for number, width in enumerate((8, 6)):
        x = k.Conv2DTranspose(width, 5, 1 + number, padding="same", use_bias=False, name=f"up_{number}")(x)
        x = k.LeakyReLU()(k.BatchNormalization()(x))
    return k.Model(inputs, k.Conv2DTranspose(1, 5, 2, padding="same", activation="tanh", name="image")(x))


@net("style mix", "image")
def modulation(k):
    """FiLM: one half of a vector scales the channels of a picture, the other is added to them."""
    inputs, style = k.Input((8, 8, 3)), k.Input((6,))
    x = conv(k, inputs, 12, name="content", activation=None)
    scale, shift = k.ops.split(k.Dense(24, name="style")(style), 2, axis=-1)
    x = x * k.Reshape((1, 1, 12))(scale) + k.Reshape((1, 1, 12))(shift)
    return k.Model([inputs, style], k.Conv2D(3, 3, padding="same", name="image")(conv(k, x, 8, name="mix")))
