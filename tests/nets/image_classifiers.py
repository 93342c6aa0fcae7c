"""Architectures that classify images."""

from nets.net import net
from nets.pieces import classify, conv, depthwise, squeeze_excite, transformer_block


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


@net("stem a_reduce a_group b_reduce b_group")
def res_ne_xt(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem")
    for block in ("a", "b"):
        y = conv(k, x, 8, 1, name=f"{block}_reduce")
        y = conv(k, y, 8, groups=4, name=f"{block}_group")
        y = conv(k, y, 16, 1, name=f"{block}_expand", activation=None)
        x = k.ReLU()(k.Add()([x, y]))
    return k.Model(inputs, classify(k, x))


@net("stem a_conv a_squeeze b_conv b_squeeze")
def se_res_net(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    for block in ("a", "b"):
        y = conv(k, x, 8, name=f"{block}_conv")
        y = conv(k, y, 12, name=f"{block}_project", activation=None)
        x = k.ReLU()(k.Add()([x, squeeze_excite(k, y, 12, block)]))
    return k.Model(inputs, classify(k, x))


@net("stem mlp", "place head", notes=2)
def cbam(k):
    """A gate for each channel from mean and maximum through shared layers, then one for each place."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    hidden, out = k.Dense(6, activation="relu", name="mlp"), k.Dense(12, name="mlp_out")
    pooled = [k.GlobalAveragePooling2D()(x), k.GlobalMaxPooling2D()(x)]
    gate = k.Activation("sigmoid")(k.Add()([out(hidden(p)) for p in pooled]))
    x = k.Multiply()([x, k.Reshape((1, 1, 12))(gate)])
    maps = [k.ops.mean(x, axis=-1, keepdims=True), k.ops.max(x, axis=-1, keepdims=True)]
    place = k.Conv2D(1, 7, padding="same", activation="sigmoid", name="place")(k.Concatenate()(maps))
    return k.Model(inputs, classify(k, k.Multiply()([x, place])))


@net("stem one three_in three five_in five pool next")
def inception(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    branches = [
        conv(k, x, 4, 1, name="one"),
        conv(k, conv(k, x, 4, 1, name="three_in"), 6, 3, name="three"),
        conv(k, conv(k, x, 4, 1, name="five_in"), 6, 5, name="five"),
        conv(k, k.MaxPooling2D(3, 1, padding="same")(x), 4, 1, name="pool"),
    ]
    x = conv(k, k.Concatenate()(branches), 8, name="next")
    return k.Model(inputs, classify(k, x))


@net("stem:0 stem:1 dense_0 dense_1 transition")
def csp_dense_net(k):
    """Only the second half of the stem goes through the dense layers; each layer reads all that came before."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    passed, x = k.ops.split(x, 2, axis=-1)
    for number in range(2):
        y = conv(k, k.ReLU()(k.BatchNormalization()(x)), 6, name=f"dense_{number}")
        x = k.Concatenate()([x, y])
    x = conv(k, k.Concatenate()([passed, x]), 8, 1, name="transition")
    return k.Model(inputs, classify(k, x))


@net("patches tokens_up channels_up", "tokens_down head", notes=3)
def mlp_mixer(k):
    """One layer mixes places, the other channels; the places of the residual stream are kept."""
    inputs = k.Input((8, 8, 3))
    x = k.Reshape((16, 12))(k.Conv2D(12, 2, 2, name="patches")(inputs))
    y = k.Permute((2, 1))(k.LayerNormalization()(x))
    y = k.Dense(16, name="tokens_down")(k.Dense(10, activation="gelu", name="tokens_up")(y))
    x = k.Add()([x, k.Permute((2, 1))(y)])
    y = k.Dense(24, activation="gelu", name="channels_up")(k.LayerNormalization()(x))
    x = k.Add()([x, k.Dense(12, name="channels_down")(y)])
    x = k.GlobalAveragePooling1D()(k.LayerNormalization()(x))
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("patches a_attention a_up b_attention b_up", notes=5)
def vision_transformer(k):
    inputs = k.Input((8, 8, 3))
    x = k.Reshape((16, 16))(k.Conv2D(16, 2, 2, name="patches")(inputs))
    for block in ("a", "b"):
        x = transformer_block(k, x, 16, block)
    x = k.LayerNormalization()(x)[:, 0]
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("patches attention up", notes=2)
def shifted_windows(k):
    """Swin: the picture is rolled, cut into windows, attended to in each, put together and rolled back."""
    inputs = k.Input((8, 8, 3))
    x = k.Conv2D(12, 1, name="patches")(inputs)
    y = k.ops.roll(k.LayerNormalization()(x), (-2, -2), axis=(1, 2))
    y = k.ops.transpose(k.ops.reshape(y, (-1, 2, 4, 2, 4, 12)), (0, 1, 3, 2, 4, 5))
    y = k.ops.reshape(y, (-1, 16, 12))
    y = k.MultiHeadAttention(3, 4, name="attention")(y, y)
    y = k.ops.transpose(k.ops.reshape(y, (-1, 2, 2, 4, 4, 12)), (0, 1, 3, 2, 4, 5))
    y = k.ops.roll(k.ops.reshape(y, (-1, 8, 8, 12)), (2, 2), axis=(1, 2))
    x = k.Add()([x, y])
    y = k.Dense(24, activation="gelu", name="up")(k.LayerNormalization()(x))
    x = k.Add()([x, k.Dense(12, name="down")(y)])
    return k.Model(inputs, classify(k, x))


@net("stem up", notes=1)
def conv_next(k):
    inputs = k.Input((8, 8, 3))
    x = k.Conv2D(12, 2, 2, name="stem")(inputs)
    y = k.DepthwiseConv2D(7, padding="same")(x)
    y = k.Dense(24, activation="gelu", name="up")(k.LayerNormalization()(y))
    y = k.Dense(12, name="down")(y)
    scale = k.EinsumDense("abcd,d->abcd", output_shape=(4, 4, 12), name="scale")  # LayerScale's product
    return k.Model(inputs, classify(k, k.Add()([x, scale(y)])))


@net("stem expand se_squeeze top")
def efficient_net(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem", activation="swish")
    y = conv(k, x, 24, 1, name="expand", activation="swish")
    y = squeeze_excite(k, depthwise(k, y, 5, activation="swish"), 24, "se", ratio=4)
    y = k.Dropout(0.2, noise_shape=(None, 1, 1, 1))(conv(k, y, 8, 1, name="project", activation=None))
    x = conv(k, k.Add()([x, y]), 16, 1, name="top", activation="swish")
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
    gate = k.Conv2D(4, 1, activation="relu", name="se_squeeze")(k.GlobalAveragePooling2D(keepdims=True)(y))
    y = k.Multiply()([y, hard_sigmoid(k.Conv2D(16, 1, name="se_excite")(gate))])
    y = conv(k, y, 12, 1, name="project", activation=None)
    x = k.Dense(10, name="last")(k.GlobalAveragePooling2D()(y))
    return k.Model(inputs, k.Dense(3, name="head")(x * hard_sigmoid(x)))


@net("stem expand project")
def mobile_net_v2(k):
    """Inverted residuals; the paddings are layers of their own."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    y = k.ZeroPadding2D(1)(conv(k, x, 24, 1, name="expand"))
    y = k.ReLU(6.0)(k.BatchNormalization()(k.DepthwiseConv2D(3, 2, use_bias=False)(y)))
    y = conv(k, y, 12, 1, name="project", activation=None)
    return k.Model(inputs, classify(k, y))


@net("stem primary")
def ghost_net(k):
    """Half of the channels are made from the other half by a cheap depthwise convolution."""

    def ghost(x, width, name):
        primary = conv(k, x, width // 2, 1, name=name)
        return k.Concatenate()([primary, depthwise(k, primary)])

    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 16, name="stem")
    y = ghost(ghost(x, 24, "primary"), 16, "narrow")
    return k.Model(inputs, classify(k, k.Add()([x, y])))


@net("stem next_one")
def rep_vgg(k):
    """A 3x3, a 1x1 and an identity branch, each normalised, are summed."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    branches = [conv(k, x, 12, size, name=f"b_{size}", activation=None) for size in (3, 1)]
    x = k.ReLU()(k.Add()([*branches, k.BatchNormalization()(x)]))
    branches = [
        conv(k, x, 8, size, strides=2, name=f"next_{n}", activation=None) for size, n in ((3, "three"), (1, "one"))
    ]
    return k.Model(inputs, classify(k, k.ReLU()(k.Add()(branches))))


@net("stem low high_b low_b")
def hr_net(k):
    """Two resolutions side by side that exchange what they found."""
    inputs = k.Input((16, 16, 3))
    high = conv(k, inputs, 8, name="stem")
    low = conv(k, high, 12, name="low", strides=2)
    high = k.Add()([high, k.UpSampling2D()(conv(k, low, 8, 1, name="lift", activation=None))])
    low = k.Add()([low, conv(k, high, 12, name="lower", strides=2, activation=None)])
    high, low = conv(k, high, 8, name="high_b"), conv(k, low, 12, name="low_b")
    x = k.Concatenate()([high, k.UpSampling2D(interpolation="bilinear")(low)])
    return k.Model(inputs, classify(k, x))


@net("stem narrow fuse")
def spatial_pyramid_pooling(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, conv(k, inputs, 16, name="stem"), 8, 1, name="narrow")
    pools = [k.MaxPooling2D(size, 1, padding="same")(x) for size in (3, 5)]
    return k.Model(inputs, classify(k, conv(k, k.Concatenate()([x, *pools]), 12, 1, name="fuse")))


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
    pooled = [k.GlobalAveragePooling2D()(x) for x in (a, b, c)]
    return k.Model(inputs, k.Dense(3, name="head")(k.Concatenate()(pooled)))


@net("stem fire_squeeze fire_one fire_three")
def squeeze_net(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem", norm=False)
    x = conv(k, x, 6, 1, name="fire_squeeze", norm=False)
    sides = [conv(k, x, 8, size, name=f"fire_{n}", norm=False) for size, n in ((1, "one"), (3, "three"))]
    x = k.Conv2D(3, 1, name="head")(k.Dropout(0.5)(k.Concatenate()(sides)))
    return k.Model(inputs, k.GlobalAveragePooling2D()(x))


@net("stem a b")
def xception(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    y = k.SeparableConv2D(12, 3, padding="same", use_bias=False, name="a")(x)
    y = k.SeparableConv2D(16, 3, padding="same", use_bias=False, name="b")(k.ReLU()(y))
    y = k.MaxPooling2D(3, 2, padding="same")(k.BatchNormalization()(y))
    x = k.Add()([conv(k, x, 16, 1, name="skip", strides=2, activation=None), y])
    return k.Model(inputs, classify(k, x))


@net("stem wide:0 wide:1 step_1")
def res2_net(k):
    """The parts of a split are added to each other one after the other, so they go together."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    parts = k.ops.split(conv(k, x, 12, 1, name="wide"), 3, axis=-1)
    made = [parts[0]]
    for number, part in enumerate(parts[1:]):
        made.append(conv(k, k.Add()([part, made[-1]]), 4, name=f"step_{number}"))
    y = conv(k, k.ops.concatenate(made, axis=-1), 12, 1, name="back", activation=None)
    return k.Model(inputs, classify(k, k.Add()([x, y])))


@net("stem five squeeze")
def selective_kernel(k):
    """Softmax over the branches (not over channels) weighs a 3x3 against a 5x5, channel by channel."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    three, five = conv(k, x, 12, 3, name="three"), conv(k, x, 12, 5, name="five")
    s = k.GlobalAveragePooling2D()(k.Add()([three, five]))
    s = k.Dense(6, activation="relu", name="squeeze")(s)
    weights = k.ops.stack([k.Dense(12, name=f"weigh_{n}")(s) for n in (3, 5)], axis=1)
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
    rows = k.Conv2D(12, 1, activation="sigmoid", name="rows")(rows)
    columns = k.Conv2D(12, 1, activation="sigmoid", name="columns")(k.ops.transpose(columns, (0, 2, 1, 3)))
    return k.Model(inputs, classify(k, x * rows * columns))


@net("stem a_one b_one")
def pre_activation_res_net(k):
    inputs = k.Input((8, 8, 3))
    x = k.Conv2D(12, 3, padding="same", name="stem")(inputs)
    for block in ("a", "b"):
        y = k.ReLU()(k.BatchNormalization()(x))
        y = conv(k, y, 8, name=f"{block}_one")
        x = k.Add()([x, k.Conv2D(12, 3, padding="same", name=f"{block}_two")(y)])
    return k.Model(inputs, classify(k, k.ReLU()(k.BatchNormalization()(x))))


@net("stem wide")
def maxout(k):
    """The larger of two neighbouring channels: both go."""
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 8, name="stem")
    x = k.Conv2D(24, 3, padding="same", name="wide")(x)
    x = k.ops.max(k.ops.reshape(x, (-1, 8, 8, 12, 2)), axis=-1)
    return k.Model(inputs, classify(k, x))


@net("stem", "head")
def multi_branch_pooling(k):
    inputs = k.Input((8, 8, 3))
    x = conv(k, inputs, 12, name="stem")
    pools = [
        k.MaxPooling2D(2)(x),
        k.AveragePooling2D(2)(x),
        k.MaxPooling2D(3, 2, padding="same")(x),
    ]
    y = k.Maximum()(pools)
    y = k.Concatenate()([k.GlobalAveragePooling2D()(y), k.GlobalMaxPooling2D()(y)])
    return k.Model(inputs, k.Dense(3, name="head")(y))


@net("one two")
def separable_filters(k):
    """Nx1 and 1xN convolutions, and cropping between them."""
    inputs = k.Input((8, 8, 3))
    x = k.Conv2D(8, (5, 1), name="one")(inputs)
    x = k.Conv2D(12, (1, 5), name="two")(k.Cropping2D(((0, 0), (1, 1)))(x))
    return k.Model(inputs, classify(k, k.PReLU(shared_axes=[1, 2])(x)))


@net("a b hidden")
def le_net(k):
    """All places of a channel are read by the layer behind Flatten."""
    inputs = k.Input((12, 12, 1))
    x = k.AveragePooling2D(2)(k.Conv2D(6, 5, activation="tanh", name="a")(inputs))
    x = k.Flatten()(k.Conv2D(10, 3, activation="tanh", name="b")(x))
    return k.Model(inputs, k.Dense(3, name="head")(k.Dense(12, activation="tanh", name="hidden")(x)))


@net("first second")
def channels_first(k):
    # Sides above the numbers of channels: where one equals it, Keras 3 adds the bias along the wrong axis.
    inputs = k.Input((3, 27, 29))
    options = {"padding": "same", "data_format": "channels_first"}
    x = k.Conv2D(8, 3, name="first", **options)(inputs)
    x = k.ReLU()(k.BatchNormalization(axis=1)(x))
    x = k.DepthwiseConv2D(3, **options)(x)
    x = k.Conv2D(12, 3, 2, name="second", **options)(x)
    x = k.GlobalAveragePooling2D(data_format="channels_first")(x)
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("a b", "real kind")
def discriminator(k):
    inputs = k.Input((8, 8, 1))
    x = k.Conv2D(8, 5, 2, padding="same", name="a")(inputs)
    x = k.Dropout(0.3)(k.LeakyReLU()(x))
    x = k.LeakyReLU()(k.Conv2D(12, 5, 2, padding="same", name="b")(x))
    x = k.Flatten()(k.SpatialDropout2D(0.3)(x))
    return k.Model(inputs, [k.Dense(1, name="real")(x), k.Dense(3, activation="softmax", name="kind")(x)])
