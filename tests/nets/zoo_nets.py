"""Small networks of many architectures, each with the channels that can go and those that must stay.

`ZOO` maps a name to a `Net`. A net is written once for both Kerases: `k.layers` are the layers, `k.ops` the few
functions in the graph that the nets use, under the names of `keras.ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from edgeprune import flavor as flavors


@dataclass(frozen=True)
class Net:
    """An architecture and what a trace of it must find.

    Attributes:
        build: takes the names of a Keras, returns a model.
        prunable: the names of the groups that can be pruned.
        frozen: the names of the groups that must stay.
        flavors: the Kerases it is written for.
        notes: how many layers are told of that mix statistics across channels.
    """

    build: Callable[[Any], Any]
    prunable: list[str]
    frozen: list[str]
    flavors: tuple[str, ...] = (flavors.KERAS_3, flavors.TF_KERAS)
    notes: int = 0


ZOO: dict[str, Net] = {}


def net(prunable: str, frozen: str = "head", **more: Any) -> Callable[[Callable], Callable]:
    """Put an architecture into the zoo under its function's name."""

    def register(build: Callable) -> Callable:
        ZOO[build.__name__] = Net(build, prunable.split(), frozen.split(), **more)
        return build

    return register


KERAS_3_ONLY = {"flavors": (flavors.KERAS_3,)}


@cache
def written_in(flavor: str) -> SimpleNamespace:
    """The names that a net is written with, for one Keras."""
    keras = flavors.keras_module(flavor)
    names = SimpleNamespace(
        keras=keras, layers=keras.layers, Input=keras.Input, Model=keras.Model, Sequential=keras.Sequential
    )
    if flavor == flavors.KERAS_3:
        names.ops = keras.ops
    else:
        import tensorflow as tf

        names.ops = SimpleNamespace(
            concatenate=tf.concat, einsum=tf.einsum, expand_dims=tf.expand_dims, matmul=tf.matmul,
            max=tf.reduce_max, mean=tf.reduce_mean, relu=tf.nn.relu, relu6=tf.nn.relu6,
            reshape=tf.reshape, roll=tf.roll, softmax=tf.nn.softmax, split=tf.split, stack=tf.stack,
            sum=tf.reduce_sum, transpose=tf.transpose,
        )  # fmt: skip
    return names


# Pieces


def conv(k, x, filters, size=3, name=None, strides=1, activation="relu", norm=True, groups=1):
    """Convolution, batch normalisation, activation."""
    x = k.layers.Conv2D(filters, size, strides, padding="same", use_bias=not norm, groups=groups, name=name)(x)
    x = k.layers.BatchNormalization()(x) if norm else x
    return k.layers.Activation(activation)(x) if activation else x


def depthwise(k, x, size=3, strides=1, activation="relu", multiplier=1):
    x = k.layers.DepthwiseConv2D(size, strides, padding="same", use_bias=False, depth_multiplier=multiplier)(x)
    return k.layers.Activation(activation)(k.layers.BatchNormalization()(x))


def classify(k, x, name="head", classes=3):
    return k.layers.Dense(classes, name=name)(k.layers.GlobalAveragePooling2D()(x))


def squeeze_excite(k, x, width, name, ratio=2):
    """A gate for each channel from the mean of all."""
    y = k.layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = k.layers.Conv2D(width // ratio, 1, activation="relu", name=f"{name}_squeeze")(y)
    y = k.layers.Conv2D(width, 1, activation="sigmoid", name=f"{name}_excite")(y)
    return k.layers.Multiply()([x, y])


def transformer_block(k, x, width, name, mask=None, heads=4):
    y = k.layers.LayerNormalization()(x)
    y = k.layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(y, y, attention_mask=mask)
    x = k.layers.Add()([x, y])
    y = k.layers.Dense(2 * width, activation="gelu", name=f"{name}_up")(k.layers.LayerNormalization()(x))
    return k.layers.Add()([x, k.layers.Dense(width, name=f"{name}_down")(y)])


# Images


@net("stem:0 stem:1 stem:2 first unit_a")
def shuffle_net(k):
    """Half of the channels pass by, then both halves are shuffled; a channel goes with its place in the other half."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem")
    for unit in ("first", "unit"):
        passed, taken = k.ops.split(x, 2, axis=-1)
        y = conv(k, taken, 8, 1, name=unit if unit == "first" else "unit_a")
        y = depthwise(k, y, activation="linear")
        y = conv(k, y, 8, 1, name=f"{unit}_c")
        x = k.ops.concatenate([passed, y], axis=-1)
        x = k.ops.reshape(x, (-1, 8, 8, 2, 8))
        x = k.ops.reshape(k.ops.transpose(x, (0, 1, 2, 4, 3)), (-1, 8, 8, 16))
    return k.Model(inputs, classify(k, x))


@net("down_0 down_1 bottom up_1 merge_1 up_0 merge_0", "mask")
def u_net(k):
    inputs = k.Input((16, 16, 3))
    x, skips = inputs, []
    for level in range(2):
        x = conv(k, x, 8 * (level + 1), name=f"down_{level}")
        skips.append(x)
        x = k.layers.MaxPooling2D(2)(x)
    x = conv(k, x, 24, name="bottom")
    for level in (1, 0):
        x = k.layers.Conv2DTranspose(8 * (level + 1), 2, 2, name=f"up_{level}")(x)
        x = conv(k, k.layers.Concatenate()([skips[level], x]), 8 * (level + 1), name=f"merge_{level}")
    return k.Model(inputs, k.layers.Conv2D(2, 1, activation="softmax", name="mask")(x))


@net("stem a_reduce a_group b_reduce b_group")
def res_ne_xt(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem")
    for block in ("a", "b"):
        y = conv(k, x, 8, 1, name=f"{block}_reduce")
        y = conv(k, y, 8, groups=4, name=f"{block}_group")
        y = conv(k, y, 16, 1, name=f"{block}_expand", activation=None)
        x = k.layers.ReLU()(k.layers.Add()([x, y]))
    return k.Model(inputs, classify(k, x))


@net("stem a_conv a_squeeze b_conv b_squeeze")
def se_res_net(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    for block in ("a", "b"):
        y = conv(k, x, 8, name=f"{block}_conv")
        y = conv(k, y, 12, name=f"{block}_project", activation=None)
        x = k.layers.ReLU()(k.layers.Add()([x, squeeze_excite(k, y, 12, block)]))
    return k.Model(inputs, classify(k, x))


@net("stem mlp", "place head", notes=2)
def cbam(k):
    """A gate for each channel from mean and maximum through shared layers, then one for each place."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    hidden, out = k.layers.Dense(6, activation="relu", name="mlp"), k.layers.Dense(12, name="mlp_out")
    pooled = [k.layers.GlobalAveragePooling2D()(x), k.layers.GlobalMaxPooling2D()(x)]
    gate = k.layers.Activation("sigmoid")(k.layers.Add()([out(hidden(p)) for p in pooled]))
    x = k.layers.Multiply()([x, k.layers.Reshape((1, 1, 12))(gate)])
    maps = [k.ops.mean(x, axis=-1, keepdims=True), k.ops.max(x, axis=-1, keepdims=True)]
    place = k.layers.Conv2D(1, 7, padding="same", activation="sigmoid", name="place")(k.layers.Concatenate()(maps))
    return k.Model(inputs, classify(k, k.layers.Multiply()([x, place])))


@net("stem one three_in three five_in five pool next")
def inception(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    branches = [
        conv(k, x, 4, 1, name="one"),
        conv(k, conv(k, x, 4, 1, name="three_in"), 6, 3, name="three"),
        conv(k, conv(k, x, 4, 1, name="five_in"), 6, 5, name="five"),
        conv(k, k.layers.MaxPooling2D(3, 1, padding="same")(x), 4, 1, name="pool"),
    ]
    x = conv(k, k.layers.Concatenate()(branches), 8, name="next")
    return k.Model(inputs, classify(k, x))


@net("stem:0 stem:1 dense_0 dense_1 transition")
def csp_dense_net(k):
    """Only the second half of the stem goes through the dense layers; each layer reads all that came before."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    passed, x = k.ops.split(x, 2, axis=-1)
    for number in range(2):
        y = conv(k, k.layers.ReLU()(k.layers.BatchNormalization()(x)), 6, name=f"dense_{number}")
        x = k.layers.Concatenate()([x, y])
    x = conv(k, k.layers.Concatenate()([passed, x]), 8, 1, name="transition")
    return k.Model(inputs, classify(k, x))


@net("feature expand", "out")
def pixel_shuffle(k):
    """Super-resolution: the four channels that make one channel of four places go together."""
    inputs = k.Input((8, 8, 1))
    x = conv(k, inputs, 8, name="feature")
    x = conv(k, x, 16, name="expand", activation=None)
    x = k.ops.reshape(x, (-1, 8, 8, 2, 2, 4))
    x = k.ops.reshape(k.ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, 16, 4))
    return k.Model(inputs, k.layers.Conv2D(1, 3, padding="same", name="out")(x))


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
        y = k.layers.Conv2D(8, 1, name=f"lateral_{level}")(levels[level])
        merged = y if merged is None else k.layers.Add()([y, k.layers.UpSampling2D()(merged)])
        smooth = conv(k, merged, 6, name=f"smooth_{level}")
        outputs.insert(0, k.layers.Conv2D(4, 1, name=f"box_{level}")(smooth))
    return k.Model(inputs, outputs)


@net("patches tokens_up channels_up", "tokens_down head", notes=3)
def mlp_mixer(k):
    """One layer mixes places, the other channels; the places of the residual stream stay."""
    inputs = k.Input((8, 8, 3))
    x = k.layers.Reshape((16, 12))(k.layers.Conv2D(12, 2, 2, name="patches")(inputs))
    y = k.layers.Permute((2, 1))(k.layers.LayerNormalization()(x))
    y = k.layers.Dense(16, name="tokens_down")(k.layers.Dense(10, activation="gelu", name="tokens_up")(y))
    x = k.layers.Add()([x, k.layers.Permute((2, 1))(y)])
    y = k.layers.Dense(24, activation="gelu", name="channels_up")(k.layers.LayerNormalization()(x))
    x = k.layers.Add()([x, k.layers.Dense(12, name="channels_down")(y)])
    x = k.layers.GlobalAveragePooling1D()(k.layers.LayerNormalization()(x))
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("patches a_attention a_up b_attention b_up", notes=5)
def vision_transformer(k):
    inputs = k.Input((8, 8, 3))
    x = k.layers.Reshape((16, 16))(k.layers.Conv2D(16, 2, 2, name="patches")(inputs))
    for block in ("a", "b"):
        x = transformer_block(k, x, 16, block)
    x = k.layers.LayerNormalization()(x)[:, 0]
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("patches attention up", notes=2)
def shifted_windows(k):
    """Swin: the picture is rolled, cut into windows, attended to in each, put together and rolled back."""
    inputs = k.Input((8, 8, 3))
    x = k.layers.Conv2D(12, 1, name="patches")(inputs)
    y = k.ops.roll(k.layers.LayerNormalization()(x), (-2, -2), axis=(1, 2))
    y = k.ops.transpose(k.ops.reshape(y, (-1, 2, 4, 2, 4, 12)), (0, 1, 3, 2, 4, 5))
    y = k.ops.reshape(y, (-1, 16, 12))
    y = k.layers.MultiHeadAttention(3, 4, name="attention")(y, y)
    y = k.ops.transpose(k.ops.reshape(y, (-1, 2, 2, 4, 4, 12)), (0, 1, 3, 2, 4, 5))
    y = k.ops.roll(k.ops.reshape(y, (-1, 8, 8, 12)), (2, 2), axis=(1, 2))
    x = k.layers.Add()([x, y])
    y = k.layers.Dense(24, activation="gelu", name="up")(k.layers.LayerNormalization()(x))
    x = k.layers.Add()([x, k.layers.Dense(12, name="down")(y)])
    return k.Model(inputs, classify(k, x))


@net("stem up", notes=1)
def conv_next(k):
    inputs = k.Input((8, 8, 3))
    x = k.layers.Conv2D(12, 2, 2, name="stem")(inputs)
    y = k.layers.DepthwiseConv2D(7, padding="same")(x)
    y = k.layers.Dense(24, activation="gelu", name="up")(k.layers.LayerNormalization()(y))
    y = k.layers.Dense(12, name="down")(y)
    scale = k.layers.EinsumDense("abcd,d->abcd", output_shape=(4, 4, 12), name="scale")  # LayerScale's product
    return k.Model(inputs, classify(k, k.layers.Add()([x, scale(y)])))


@net("stem expand se_squeeze top")
def efficient_net(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem", activation="swish")
    y = conv(k, x, 24, 1, name="expand", activation="swish")
    y = squeeze_excite(k, depthwise(k, y, 5, activation="swish"), 24, "se", ratio=4)
    y = k.layers.Dropout(0.2, noise_shape=(None, 1, 1, 1))(conv(k, y, 8, 1, name="project", activation=None))
    x = conv(k, k.layers.Add()([x, y]), 16, 1, name="top", activation="swish")
    return k.Model(inputs, classify(k, x))


@net("stem expand se_squeeze project last")
def mobile_net_v3(k):
    """Hard-swish and hard-sigmoid written out with relu6."""

    def hard_sigmoid(x):
        return k.ops.relu6(x + 3.0) * (1.0 / 6.0)

    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem", activation=None)
    x = x * hard_sigmoid(x)
    y = conv(k, x, 16, 1, name="expand", activation=None)
    y = depthwise(k, y * hard_sigmoid(y), strides=2)
    gate = k.layers.Conv2D(4, 1, activation="relu", name="se_squeeze")(
        k.layers.GlobalAveragePooling2D(keepdims=True)(y)
    )
    y = k.layers.Multiply()([y, hard_sigmoid(k.layers.Conv2D(16, 1, name="se_excite")(gate))])
    y = conv(k, y, 12, 1, name="project", activation=None)
    x = k.layers.Dense(10, name="last")(k.layers.GlobalAveragePooling2D()(y))
    return k.Model(inputs, k.layers.Dense(3, name="head")(x * hard_sigmoid(x)))


@net("stem expand project")
def mobile_net_v2(k):
    """Inverted residuals; the paddings are layers of their own."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    y = k.layers.ZeroPadding2D(1)(conv(k, x, 24, 1, name="expand"))
    y = k.layers.ReLU(6.0)(k.layers.BatchNormalization()(k.layers.DepthwiseConv2D(3, 2, use_bias=False)(y)))
    y = conv(k, y, 12, 1, name="project", activation=None)
    return k.Model(inputs, classify(k, y))


@net("stem primary")
def ghost_net(k):
    """Half of the channels are made from the other half by a cheap depthwise convolution."""

    def ghost(x, width, name):
        primary = conv(k, x, width // 2, 1, name=name)
        return k.layers.Concatenate()([primary, depthwise(k, primary)])

    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem")
    y = ghost(ghost(x, 24, "primary"), 16, "narrow")
    return k.Model(inputs, classify(k, k.layers.Add()([x, y])))


@net("stem next_one")
def rep_vgg(k):
    """A 3x3, a 1x1 and an identity branch, each normalised, are summed."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    branches = [conv(k, x, 12, size, name=f"b_{size}", activation=None) for size in (3, 1)]
    x = k.layers.ReLU()(k.layers.Add()([*branches, k.layers.BatchNormalization()(x)]))
    branches = [
        conv(k, x, 8, size, strides=2, name=f"next_{n}", activation=None) for size, n in ((3, "three"), (1, "one"))
    ]
    return k.Model(inputs, classify(k, k.layers.ReLU()(k.layers.Add()(branches))))


@net("stem low high_b low_b")
def hr_net(k):
    """Two resolutions side by side that exchange what they found."""
    inputs = k.Input((16, 16, 3))
    high = conv(k, inputs, 8, name="stem")
    low = conv(k, high, 12, name="low", strides=2)
    high = k.layers.Add()([high, k.layers.UpSampling2D()(conv(k, low, 8, 1, name="lift", activation=None))])
    low = k.layers.Add()([low, conv(k, high, 12, name="lower", strides=2, activation=None)])
    high, low = conv(k, high, 8, name="high_b"), conv(k, low, 12, name="low_b")
    x = k.layers.Concatenate()([high, k.layers.UpSampling2D(interpolation="bilinear")(low)])
    return k.Model(inputs, classify(k, x))


@net("stem narrow fuse")
def spatial_pyramid_pooling(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, conv(k, inputs, 16, name="stem"), 8, 1, name="narrow")
    pools = [k.layers.MaxPooling2D(size, 1, padding="same")(x) for size in (3, 5)]
    return k.Model(inputs, classify(k, conv(k, k.layers.Concatenate()([x, *pools]), 12, 1, name="fuse")))


@net("stem rate_1 rate_2 image fuse")
def atrous_pyramid(k):
    """DeepLab: dilated branches and one from the mean of the whole picture."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    branches = [k.layers.Conv2D(6, 3, padding="same", dilation_rate=rate, name=f"rate_{rate}")(x) for rate in (1, 2)]
    y = k.layers.Conv2D(6, 1, name="image")(k.layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = conv(k, k.layers.Concatenate()([*branches, k.layers.UpSampling2D(8)(y)]), 8, 1, name="fuse")
    return k.Model(inputs, k.layers.Conv2D(3, 1, name="head")(x))


@net("stem point")
def depthwise_multiplier(k):
    """Each channel of the stem makes three; the next layer reads all of them."""
    inputs = k.Input((8, 8, 3))
    x = depthwise(k, conv(k, inputs, 8, name="stem"), multiplier=3)
    return k.Model(inputs, classify(k, conv(k, x, 12, 1, name="point")))


@net("stem two four")
def grouped_convolutions(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem")
    x = conv(k, x, 24, groups=2, name="two")
    x = conv(k, x, 16, groups=4, name="four")
    return k.Model(inputs, classify(k, x))


@net("a b c")
def feature_reuse(k):
    """The head reads features of three depths, each also read by the next layer."""
    inputs = k.Input((8, 8, 3))
    a = conv(k, inputs, 8, name="a")
    b = conv(k, a, 12, name="b", strides=2)
    c = conv(k, b, 16, name="c", strides=2)
    pooled = [k.layers.GlobalAveragePooling2D()(x) for x in (a, b, c)]
    return k.Model(inputs, k.layers.Dense(3, name="head")(k.layers.Concatenate()(pooled)))


@net("stem fire_squeeze fire_one fire_three")
def squeeze_net(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem", norm=False)
    x = conv(k, x, 6, 1, name="fire_squeeze", norm=False)
    sides = [conv(k, x, 8, size, name=f"fire_{n}", norm=False) for size, n in ((1, "one"), (3, "three"))]
    x = k.layers.Conv2D(3, 1, name="head")(k.layers.Dropout(0.5)(k.layers.Concatenate()(sides)))
    return k.Model(inputs, k.layers.GlobalAveragePooling2D()(x))


@net("stem a b")
def xception(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    y = k.layers.SeparableConv2D(12, 3, padding="same", use_bias=False, name="a")(x)
    y = k.layers.SeparableConv2D(16, 3, padding="same", use_bias=False, name="b")(k.layers.ReLU()(y))
    y = k.layers.MaxPooling2D(3, 2, padding="same")(k.layers.BatchNormalization()(y))
    x = k.layers.Add()([conv(k, x, 16, 1, name="skip", strides=2, activation=None), y])
    return k.Model(inputs, classify(k, x))


@net("stem wide:0 wide:1 step_1")
def res2_net(k):
    """The parts of a split are added to each other one after the other, so they go together."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    parts = k.ops.split(conv(k, x, 12, 1, name="wide"), 3, axis=-1)
    made = [parts[0]]
    for number, part in enumerate(parts[1:]):
        made.append(conv(k, k.layers.Add()([part, made[-1]]), 4, name=f"step_{number}"))
    y = conv(k, k.ops.concatenate(made, axis=-1), 12, 1, name="back", activation=None)
    return k.Model(inputs, classify(k, k.layers.Add()([x, y])))


@net("stem five squeeze")
def selective_kernel(k):
    """Softmax over the branches (not over channels) weighs a 3x3 against a 5x5, channel by channel."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    three, five = conv(k, x, 12, 3, name="three"), conv(k, x, 12, 5, name="five")
    s = k.layers.GlobalAveragePooling2D()(k.layers.Add()([three, five]))
    s = k.layers.Dense(6, activation="relu", name="squeeze")(s)
    weights = k.ops.stack([k.layers.Dense(12, name=f"weigh_{n}")(s) for n in (3, 5)], axis=1)
    weights = k.ops.reshape(k.ops.softmax(weights, axis=1), (-1, 2, 1, 1, 12))
    x = k.ops.sum(k.ops.stack([three, five], axis=1) * weights, axis=1)
    return k.Model(inputs, classify(k, x))


@net("stem shrink")
def coordinate_attention(k):
    """Gates along the height and along the width, made together and split again along space."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    rows = k.ops.mean(x, axis=2, keepdims=True)
    columns = k.ops.transpose(k.ops.mean(x, axis=1, keepdims=True), (0, 2, 1, 3))
    y = conv(k, k.ops.concatenate([rows, columns], axis=1), 6, 1, name="shrink")
    rows, columns = k.ops.split(y, 2, axis=1)
    rows = k.layers.Conv2D(12, 1, activation="sigmoid", name="rows")(rows)
    columns = k.layers.Conv2D(12, 1, activation="sigmoid", name="columns")(k.ops.transpose(columns, (0, 2, 1, 3)))
    return k.Model(inputs, classify(k, x * rows * columns))


@net("stem a_one b_one")
def pre_activation_res_net(k):
    inputs = k.Input((8, 8, 3))
    x = k.layers.Conv2D(12, 3, padding="same", name="stem")(inputs)
    for block in ("a", "b"):
        y = k.layers.ReLU()(k.layers.BatchNormalization()(x))
        y = conv(k, y, 8, name=f"{block}_one")
        x = k.layers.Add()([x, k.layers.Conv2D(12, 3, padding="same", name=f"{block}_two")(y)])
    return k.Model(inputs, classify(k, k.layers.ReLU()(k.layers.BatchNormalization()(x))))


@net("stem wide")
def maxout(k):
    """The larger of two neighbouring channels: both go."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    x = k.layers.Conv2D(24, 3, padding="same", name="wide")(x)
    x = k.ops.max(k.ops.reshape(x, (-1, 8, 8, 12, 2)), axis=-1)
    return k.Model(inputs, classify(k, x))


@net("stem:0 stem:1 a b join", "box")
def yolo_routes(k):
    """A route takes the second half of the channels by slicing, and comes back by concatenation."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem", activation="leaky_relu")
    half = conv(k, x[..., 8:], 8, name="a", activation="leaky_relu")
    again = conv(k, half, 8, name="b", activation="leaky_relu")
    y = k.layers.Concatenate()([half, again])
    y = conv(k, k.layers.Concatenate()([x, y]), 12, 1, name="join", activation="leaky_relu")
    return k.Model(inputs, k.layers.Conv2D(5, 1, name="box")(k.layers.MaxPooling2D(2)(y)))


@net("stem", "head")
def multi_branch_pooling(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    pools = [
        k.layers.MaxPooling2D(2)(x),
        k.layers.AveragePooling2D(2)(x),
        k.layers.MaxPooling2D(3, 2, padding="same")(x),
    ]
    y = k.layers.Maximum()(pools)
    y = k.layers.Concatenate()([k.layers.GlobalAveragePooling2D()(y), k.layers.GlobalMaxPooling2D()(y)])
    return k.Model(inputs, k.layers.Dense(3, name="head")(y))


@net("one two")
def separable_filters(k):
    """Nx1 and 1xN convolutions, and cropping between them."""
    inputs = k.Input((8, 8, 3))
    x = k.layers.Conv2D(8, (5, 1), name="one")(inputs)
    x = k.layers.Conv2D(12, (1, 5), name="two")(k.layers.Cropping2D(((0, 0), (1, 1)))(x))
    return k.Model(inputs, classify(k, k.layers.PReLU(shared_axes=[1, 2])(x)))


@net("a b hidden")
def le_net(k):
    """All places of a channel are read by the layer behind Flatten."""
    inputs = k.Input((12, 12, 1))
    x = k.layers.AveragePooling2D(2)(k.layers.Conv2D(6, 5, activation="tanh", name="a")(inputs))
    x = k.layers.Flatten()(k.layers.Conv2D(10, 3, activation="tanh", name="b")(x))
    return k.Model(inputs, k.layers.Dense(3, name="head")(k.layers.Dense(12, activation="tanh", name="hidden")(x)))


@net("first second")
def channels_first(k):
    # Sides above the numbers of channels: where one equals it, Keras 3 adds the bias along the wrong axis.
    inputs = k.Input((3, 27, 29))
    options = {"padding": "same", "data_format": "channels_first"}
    x = k.layers.Conv2D(8, 3, name="first", **options)(inputs)
    x = k.layers.ReLU()(k.layers.BatchNormalization(axis=1)(x))
    x = k.layers.DepthwiseConv2D(3, **options)(x)
    x = k.layers.Conv2D(12, 3, 2, name="second", **options)(x)
    x = k.layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


# Making pictures


@net("encode_0 code decode_0 decode_1", "decode_2")
def autoencoder(k):
    inputs = k.Input((8, 8, 1))
    x = conv(k, inputs, 8, name="encode_0", strides=2)
    x = k.layers.Dense(6, name="code")(k.layers.Flatten()(x))
    x = k.layers.Reshape((4, 4, 8))(k.layers.Dense(128, activation="relu", name="decode_0")(x))
    x = k.layers.Conv2DTranspose(6, 3, 2, padding="same", activation="relu", name="decode_1")(x)
    return k.Model(inputs, k.layers.Conv2D(1, 3, padding="same", name="decode_2")(x))


@net("project up_0 up_1", "image")
def generator(k):
    """All places that one channel is reshaped to go together."""
    inputs = k.Input((10,))
    x = k.layers.Dense(4 * 4 * 12, use_bias=False, name="project")(inputs)
    x = k.layers.Reshape((4, 4, 12))(k.layers.LeakyReLU()(k.layers.BatchNormalization()(x)))
    for number, width in enumerate((8, 6)):
        x = k.layers.Conv2DTranspose(width, 5, 1 + number, padding="same", use_bias=False, name=f"up_{number}")(x)
        x = k.layers.LeakyReLU()(k.layers.BatchNormalization()(x))
    return k.Model(inputs, k.layers.Conv2DTranspose(1, 5, 2, padding="same", activation="tanh", name="image")(x))


@net("a b", "real kind")
def discriminator(k):
    inputs = k.Input((8, 8, 1))
    x = k.layers.Conv2D(8, 5, 2, padding="same", name="a")(inputs)
    x = k.layers.Dropout(0.3)(k.layers.LeakyReLU()(x))
    x = k.layers.LeakyReLU()(k.layers.Conv2D(12, 5, 2, padding="same", name="b")(x))
    x = k.layers.Flatten()(k.layers.SpatialDropout2D(0.3)(x))
    return k.Model(inputs, [k.layers.Dense(1, name="real")(x), k.layers.Dense(3, activation="softmax", name="kind")(x)])


@net("style mix", "image")
def modulation(k):
    """FiLM: one half of a vector scales the channels of a picture, the other is added to them."""
    inputs, style = k.Input((8, 8, 3)), k.Input((6,))
    x = conv(k, inputs, 12, name="content", activation=None)
    scale, shift = k.ops.split(k.layers.Dense(24, name="style")(style), 2, axis=-1)
    x = x * k.layers.Reshape((1, 1, 12))(scale) + k.layers.Reshape((1, 1, 12))(shift)
    return k.Model([inputs, style], k.layers.Conv2D(3, 3, padding="same", name="image")(conv(k, x, 8, name="mix")))


# Sequences


@net("stem block_0 block_1", "head")
def temporal_convolutions(k):
    """TCN: causal, dilated convolutions with residuals."""
    inputs = k.Input((12, 3))
    x = k.layers.Conv1D(8, 1, name="stem")(inputs)
    for number in range(2):
        y = k.layers.Conv1D(
            12, 3, padding="causal", dilation_rate=2**number, activation="relu", name=f"block_{number}"
        )(x)
        x = k.layers.Add()([x, k.layers.Conv1D(8, 1, name=f"back_{number}")(y)])
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("words both/forward_lstm next/forward_gru", "each/head")
def sequence_tagger(k):
    inputs = k.Input((8,), dtype="int32")
    x = k.layers.Embedding(20, 8, mask_zero=True, name="words")(inputs)
    x = k.layers.Bidirectional(k.layers.LSTM(6, return_sequences=True, name="lstm"), name="both")(x)
    x = k.layers.Bidirectional(k.layers.GRU(6, return_sequences=True, name="gru"), merge_mode="sum", name="next")(x)
    return k.Model(inputs, k.layers.TimeDistributed(k.layers.Dense(3, name="head"), name="each")(x))


@net("low middle high")
def gru_stack(k):
    return k.Sequential(
        [
            k.Input((6, 4)),
            k.layers.GRU(12, return_sequences=True, name="low"),
            k.layers.GRU(8, return_sequences=True, name="middle"),
            k.layers.GRU(6, name="high"),
            k.layers.Dense(3, name="head"),
        ]
    )


@net("stem point_0 point_1")
def keyword_spotting(k):
    """DS-CNN on a spectrogram."""
    inputs = k.Input((16, 10, 1))
    x = conv(k, inputs, 12, (10, 4), name="stem", strides=2)
    for number in range(2):
        x = conv(k, depthwise(k, x), 12, 1, name=f"point_{number}")
    x = k.layers.Dropout(0.4)(x)
    x = k.layers.Flatten()(k.layers.AveragePooling2D((8, 5))(x))
    return k.Model(inputs, k.layers.Dense(4, activation="softmax", name="head")(x))


@net("stem a_tanh a_skip b_tanh")
def wave_net(k):
    """The product of tanh and sigmoid; a residual to the next layer and a skip to the end."""
    inputs = k.Input((12, 1))
    x = k.layers.Conv1D(8, 2, padding="causal", name="stem")(inputs)
    skips = []
    for number, name in enumerate("ab"):
        options = {"padding": "causal", "dilation_rate": 2**number}
        gated = k.layers.Multiply()(
            [
                k.layers.Conv1D(10, 2, activation="tanh", name=f"{name}_tanh", **options)(x),
                k.layers.Conv1D(10, 2, activation="sigmoid", name=f"{name}_gate", **options)(x),
            ]
        )
        skips.append(k.layers.Conv1D(6, 1, name=f"{name}_skip")(gated))
        x = k.layers.Add()([x, k.layers.Conv1D(8, 1, name=f"{name}_back")(gated)])
    x = k.layers.ReLU()(k.layers.Add()(skips))
    return k.Model(inputs, k.layers.Conv1D(4, 1, name="head")(x))


@net("a b")
def separable_1d(k):
    return k.Sequential(
        [
            k.Input((12, 3)),
            k.layers.SeparableConv1D(8, 3, depth_multiplier=2, activation="relu", name="a"),
            k.layers.MaxPooling1D(2),
            k.layers.SeparableConv1D(12, 3, name="b"),
            k.layers.GlobalMaxPooling1D(),
            k.layers.Dense(3, name="head"),
        ]
    )


@net("words hidden")
def text_classifier(k):
    return k.Sequential(
        [
            k.Input((8,), dtype="int32"),
            k.layers.Embedding(30, 12, name="words"),
            k.layers.GlobalAveragePooling1D(),
            k.layers.Dense(10, activation="relu", name="hidden"),
            k.layers.Dense(1, activation="sigmoid", name="head"),
        ]
    )


@net("words a_attention a_up b_attention b_up", notes=4)
def transformer_encoder(k):
    """The padding is masked out of the keys."""
    inputs = k.Input((8,), dtype="int32")
    x = k.layers.Embedding(20, 12, name="words")(inputs)
    mask = k.ops.expand_dims(inputs > 0, 1)
    for block in ("a", "b"):
        x = transformer_block(k, x, 12, block, mask, heads=3)
    return k.Model(inputs, k.layers.Dense(3, name="head")(k.layers.GlobalAveragePooling1D()(x)))


@net("encoder attended")
def sequence_to_sequence(k):
    """An LSTM hands its states to another, which attends to what the first one gave."""
    source, target = k.Input((7, 3)), k.Input((5, 2))
    memory, *states = k.layers.LSTM(8, return_sequences=True, return_state=True, name="encoder")(source)
    x = k.layers.LSTM(8, return_sequences=True, name="decoder")(target, initial_state=states)
    context = k.layers.Attention(name="attention")([x, memory])
    x = k.layers.Dense(6, activation="tanh", name="attended")(k.layers.Concatenate()([x, context]))
    return k.Model([source, target], k.layers.Dense(3, name="head")(x))


@net("tokens hidden", "score head")
def attention_pooling(k):
    """Softmax over the steps weighs them; one score for each."""
    inputs = k.Input((9, 4))
    x = k.layers.Dense(12, activation="relu", name="tokens")(inputs)
    scores = k.layers.Dense(1, name="score")(k.layers.Dense(6, activation="tanh", name="hidden")(x))
    x = k.ops.sum(x * k.layers.Softmax(axis=1)(scores), axis=1)
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("frame/inner after/forward_lstm", "head")
def video_classifier(k):
    """The same layers on each picture of a film, then an LSTM in both directions."""
    inputs = k.Input((3, 8, 8, 2))
    each = k.layers.TimeDistributed
    x = each(k.layers.Conv2D(8, 3, activation="relu", name="inner"), name="frame")(inputs)
    x = each(k.layers.GlobalAveragePooling2D())(each(k.layers.MaxPooling2D(2))(x))
    x = k.layers.Bidirectional(k.layers.LSTM(6, name="lstm"), name="after")(x)
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("low high")
def convolutional_lstm(k):
    inputs = k.Input((3, 8, 8, 1))
    x = k.layers.ConvLSTM2D(6, 3, padding="same", return_sequences=True, name="low")(inputs)
    x = k.layers.ConvLSTM2D(4, 3, padding="same", name="high")(k.layers.BatchNormalization()(x))
    return k.Model(inputs, classify(k, x))


# Vectors, points, volumes


@net("input_0")
def highway(k):
    """A gate chooses between what a layer made and what it was given."""
    inputs = k.Input((6,))
    x = k.layers.Dense(10, name="input_0")(inputs)
    for number in range(2):
        made = k.layers.Dense(10, activation="relu", name=f"made_{number}")(x)
        gate = k.layers.Dense(10, activation="sigmoid", name=f"gate_{number}")(x)
        x = made * gate + x * (1.0 - gate)
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("trunk value_hidden advantage_hidden", "value advantage")
def dueling_heads(k):
    """The mean over all actions is subtracted from each: actions are outputs."""
    inputs = k.Input((8,))
    x = k.layers.Dense(16, activation="relu", name="trunk")(inputs)
    value = k.layers.Dense(1, name="value")(k.layers.Dense(8, activation="relu", name="value_hidden")(x))
    advantage = k.layers.Dense(8, activation="relu", name="advantage_hidden")(x)
    advantage = k.layers.Dense(4, name="advantage")(advantage)
    return k.Model(inputs, value + advantage - k.ops.mean(advantage, axis=1, keepdims=True))


@net("picture numbers trunk side", "a b c")
def two_inputs_three_outputs(k):
    picture, numbers = k.Input((8, 8, 3)), k.Input((5,))
    x = k.layers.GlobalAveragePooling2D()(conv(k, picture, 8, name="picture"))
    y = k.layers.Dense(6, activation="relu", name="numbers")(numbers)
    x = k.layers.Dense(12, activation="relu", name="trunk")(k.layers.Concatenate()([x, y]))
    side = k.layers.Dense(8, activation="relu", name="side")(x)
    outputs = [k.layers.Dense(2, name="a")(x), k.layers.Dense(3, name="b")(side), k.layers.Dense(1, name="c")(side)]
    return k.Model([picture, numbers], outputs)


@net("tower/a tower/b")
def siamese(k):
    """One tower on two pictures; their distance goes through a last layer."""
    tower = k.Sequential(
        [
            k.Input((8, 8, 1)),
            k.layers.Conv2D(8, 3, activation="relu", name="a"),
            k.layers.GlobalMaxPooling2D(),
            k.layers.Dense(10, name="b"),
        ],
        name="tower",
    )
    one, other = k.Input((8, 8, 1)), k.Input((8, 8, 1))
    distance = k.layers.Subtract()([tower(one), tower(other)])
    return k.Model(
        [one, other], k.layers.Dense(1, activation="sigmoid", name="head")(k.layers.Multiply()([distance, distance]))
    )


@net("user item", "")
def two_towers(k):
    """The product of two embeddings is the output: their width can go, together."""
    user, item = k.Input((6,)), k.Input((1,), dtype="int32")
    u = k.layers.Dense(8, name="user_out")(k.layers.Dense(12, activation="relu", name="user")(user))
    i = k.layers.Flatten()(k.layers.Embedding(20, 8, name="item")(item))
    return k.Model([user, item], k.layers.Dot(axes=1)([u, i]))


@net("words deep")
def wide_and_deep(k):
    numbers, word = k.Input((5,)), k.Input((1,), dtype="int32")
    x = k.layers.Concatenate()([numbers, k.layers.Flatten()(k.layers.Embedding(20, 8, name="words")(word))])
    deep = k.layers.Dense(12, activation="relu", name="deep")(x)
    return k.Model([numbers, word], k.layers.Dense(1, name="head")(k.layers.Concatenate()([deep, numbers])))


@net("each wide hidden")
def point_net(k):
    """The same layers on every point, and the maximum over all; then both are joined again for each point."""
    inputs = k.Input((16, 3))
    local = k.layers.Dense(8, activation="relu", name="each")(inputs)
    x = k.ops.max(k.layers.Dense(12, activation="relu", name="wide")(local), axis=1)
    x = k.layers.Concatenate()([local, k.layers.RepeatVector(16)(x)])
    return k.Model(inputs, k.layers.Dense(3, name="head")(k.layers.Dense(8, activation="relu", name="hidden")(x)))


@net("first second")
def graph_convolution(k):
    """Neighbours are summed with a matrix that is an input."""
    nodes, edges = k.Input((6, 4)), k.Input((6, 6))
    x = k.ops.matmul(edges, k.layers.Dense(10, name="first")(nodes))
    x = k.ops.matmul(edges, k.layers.Dense(8, name="second")(k.layers.ReLU()(x)))
    return k.Model([nodes, edges], k.layers.Dense(3, name="head")(k.ops.mean(x, axis=1)))


@net("expert_0_in expert_1_in expert_0", "gate head")
def mixture_of_experts(k):
    inputs = k.Input((8,))
    hidden = [k.layers.Dense(10, activation="relu", name=f"expert_{n}_in")(inputs) for n in range(2)]
    experts = [k.layers.Dense(6, name=f"expert_{n}")(h) for n, h in enumerate(hidden)]
    gate = k.layers.Dense(2, activation="softmax", name="gate")(inputs)
    x = k.ops.einsum("bn,bnd->bd", gate, k.ops.stack(experts, axis=1))
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("a c b")
def volumes(k):
    inputs = k.Input((6, 6, 6, 1))
    x = k.layers.Conv3D(6, 3, padding="same", activation="relu", name="a")(inputs)
    x = k.layers.BatchNormalization()(k.layers.MaxPooling3D(2)(x))
    x = k.layers.Conv3DTranspose(4, 2, 2, activation="relu", name="b")(
        k.layers.Conv3D(8, 3, padding="same", name="c")(x)
    )
    return k.Model(inputs, k.layers.Dense(3, name="head")(k.layers.GlobalAveragePooling3D()(x)))


@net("outer_in middle/inner/a middle/inner/b middle/c")
def nested_of_nested(k):
    inner = k.Sequential(
        [k.Input((8,)), k.layers.Dense(12, activation="relu", name="a"), k.layers.Dense(6, name="b")], name="inner"
    )
    tensor = k.Input((8,))
    middle = k.Model(tensor, k.layers.Dense(8, name="c")(inner(tensor)), name="middle")
    inputs = k.Input((5,))
    x = middle(k.layers.Dense(8, name="outer_in")(inputs))
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("stem a_in b_in", **KERAS_3_ONLY)
def subclassed(k):
    """A model whose call is Python, with a loop over blocks and a sum."""

    class Residual(k.Model):
        def __init__(self):
            super().__init__()
            self.stem = k.layers.Conv2D(8, 3, padding="same", name="stem")
            self.blocks = [
                (
                    k.layers.Conv2D(12, 3, padding="same", activation="relu", name=f"{n}_in"),
                    k.layers.Conv2D(8, 1, name=f"{n}_out"),
                )
                for n in "ab"
            ]
            self.pool = k.layers.GlobalAveragePooling2D(name="pool")
            self.head = k.layers.Dense(3, name="head")

        def call(self, x):
            x = self.stem(x)
            for grow, shrink in self.blocks:
                x = k.ops.relu(x + shrink(grow(x)))
            return self.head(self.pool(x))

    model = Residual()
    model(k.keras.ops.zeros((1, 8, 8, 3)))
    return model


@net("stem attention up", notes=2, **KERAS_3_ONLY)
def decoder_with_shared_heads(k):
    """A causal decoder: four heads of the query share two of keys and values, RMS normalisation, gated feed forward."""
    inputs = k.Input((8, 4))
    x = k.layers.Dense(12, name="stem")(inputs)
    y = k.layers.RMSNormalization()(x)
    x = x + k.layers.GroupQueryAttention(3, 4, 2, name="attention")(y, y, use_causal_mask=True)
    y = k.layers.RMSNormalization()(x)
    y = k.layers.Dense(16, activation="silu", name="up")(y) * k.layers.Dense(16, name="gate")(y)
    x = x + k.layers.Dense(12, name="down")(y)
    return k.Model(inputs, k.layers.Dense(3, name="head")(x))


@net("key")
def hand_written_attention(k):
    """Heads made by reshaping one projection, scores by matmul: a head's depth can go, the same for all heads."""
    inputs = k.Input((6, 5))
    q, key, value = (k.layers.Dense(12, name=n)(inputs) for n in ("query", "key", "value"))
    q, key, value = (k.ops.transpose(k.ops.reshape(t, (-1, 6, 3, 4)), (0, 2, 1, 3)) for t in (q, key, value))
    scores = k.ops.softmax(k.ops.matmul(q, k.ops.transpose(key, (0, 1, 3, 2))) * 0.5, axis=-1)
    x = k.ops.reshape(k.ops.transpose(k.ops.matmul(scores, value), (0, 2, 1, 3)), (-1, 6, 12))
    return k.Model(inputs, k.layers.Dense(3, name="head")(k.layers.GlobalAveragePooling1D()(x)))
