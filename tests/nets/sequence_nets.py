"""Architectures for sequences: words, sound, films, steps of time."""

from nets.net import KERAS_3_ONLY, net
from nets.pieces import classify, conv, depthwise, transformer_block


@net("stem block_0 block_1", "head")
def temporal_convolutions(k):
    """TCN: causal, dilated convolutions with residuals."""
    inputs = k.Input((12, 3))
    x = k.Conv1D(8, 1, name="stem")(inputs)
    for number in range(2):
        y = k.Conv1D(12, 3, padding="causal", dilation_rate=2**number, activation="relu", name=f"block_{number}")(x)
        x = k.Add()([x, k.Conv1D(8, 1, name=f"back_{number}")(y)])
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("words both/forward_lstm next/forward_gru", "each/head")
def sequence_tagger(k):
    inputs = k.Input((8,), dtype="int32")
    x = k.Embedding(20, 8, mask_zero=True, name="words")(inputs)
    x = k.Bidirectional(k.LSTM(6, return_sequences=True, name="lstm"), name="both")(x)
    x = k.Bidirectional(k.GRU(6, return_sequences=True, name="gru"), merge_mode="sum", name="next")(x)
    return k.Model(inputs, k.TimeDistributed(k.Dense(3, name="head"), name="each")(x))


@net("low middle high")
def gru_stack(k):
    return k.Sequential(
        [
            k.Input((6, 4)),
            k.GRU(12, return_sequences=True, name="low"),
            k.GRU(8, return_sequences=True, name="middle"),
            k.GRU(6, name="high"),
            k.Dense(3, name="head"),
        ]
    )


@net("stem point_0 point_1")
def keyword_spotting(k):
    """DS-CNN on a spectrogram."""
    inputs = k.Input((16, 10, 1))
    x = conv(k, inputs, 12, (10, 4), name="stem", strides=2)
    for number in range(2):
        x = conv(k, depthwise(k, x), 12, 1, name=f"point_{number}")
    x = k.Dropout(0.4)(x)
    x = k.Flatten()(k.AveragePooling2D((8, 5))(x))
    return k.Model(inputs, k.Dense(4, activation="softmax", name="head")(x))


@net("stem a_tanh a_skip b_tanh")
def wave_net(k):
    """The product of tanh and sigmoid; a residual to the next layer and a skip to the end."""
    inputs = k.Input((12, 1))
    x = k.Conv1D(8, 2, padding="causal", name="stem")(inputs)
    skips = []
    for number, name in enumerate("ab"):
        options = {"padding": "causal", "dilation_rate": 2**number}
        gated = k.Multiply()(
            [
                k.Conv1D(10, 2, activation="tanh", name=f"{name}_tanh", **options)(x),
                k.Conv1D(10, 2, activation="sigmoid", name=f"{name}_gate", **options)(x),
            ]
        )
        skips.append(k.Conv1D(6, 1, name=f"{name}_skip")(gated))
        x = k.Add()([x, k.Conv1D(8, 1, name=f"{name}_back")(gated)])
    x = k.ReLU()(k.Add()(skips))
    return k.Model(inputs, k.Conv1D(4, 1, name="head")(x))


@net("a b")
def separable_1d(k):
    return k.Sequential(
        [
            k.Input((12, 3)),
            k.SeparableConv1D(8, 3, depth_multiplier=2, activation="relu", name="a"),
            k.MaxPooling1D(2),
            k.SeparableConv1D(12, 3, name="b"),
            k.GlobalMaxPooling1D(),
            k.Dense(3, name="head"),
        ]
    )


@net("words hidden")
def text_classifier(k):
    return k.Sequential(
        [
            k.Input((8,), dtype="int32"),
            k.Embedding(30, 12, name="words"),
            k.GlobalAveragePooling1D(),
            k.Dense(10, activation="relu", name="hidden"),
            k.Dense(1, activation="sigmoid", name="head"),
        ]
    )


@net("words a_attention a_up b_attention b_up", notes=4)
def transformer_encoder(k):
    """The padding is masked out of the keys."""
    inputs = k.Input((8,), dtype="int32")
    x = k.Embedding(20, 12, name="words")(inputs)
    mask = k.ops.expand_dims(inputs > 0, 1)
    for block in ("a", "b"):
        x = transformer_block(k, x, 12, block, mask, heads=3)
    return k.Model(inputs, k.Dense(3, name="head")(k.GlobalAveragePooling1D()(x)))


@net("encoder attended")
def sequence_to_sequence(k):
    """An LSTM hands its states to another, which attends to what the first one gave."""
    source, target = k.Input((7, 3)), k.Input((5, 2))
    memory, *states = k.LSTM(8, return_sequences=True, return_state=True, name="encoder")(source)
    x = k.LSTM(8, return_sequences=True, name="decoder")(target, initial_state=states)
    context = k.Attention(name="attention")([x, memory])
    x = k.Dense(6, activation="tanh", name="attended")(k.Concatenate()([x, context]))
    return k.Model([source, target], k.Dense(3, name="head")(x))


@net("tokens hidden", "score head")
def attention_pooling(k):
    """Softmax over the steps weighs them; one score for each."""
    inputs = k.Input((9, 4))
    x = k.Dense(12, activation="relu", name="tokens")(inputs)
    scores = k.Dense(1, name="score")(k.Dense(6, activation="tanh", name="hidden")(x))
    x = k.ops.sum(x * k.Softmax(axis=1)(scores), axis=1)
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("frame/inner after/forward_lstm", "head")
def video_classifier(k):
    """The same layers on each picture of a film, then an LSTM in both directions."""
    inputs = k.Input((3, 8, 8, 2))
    each = k.TimeDistributed
    x = each(k.Conv2D(8, 3, activation="relu", name="inner"), name="frame")(inputs)
    x = each(k.GlobalAveragePooling2D())(each(k.MaxPooling2D(2))(x))
    x = k.Bidirectional(k.LSTM(6, name="lstm"), name="after")(x)
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("low high")
def convolutional_lstm(k):
    inputs = k.Input((3, 8, 8, 1))
    x = k.ConvLSTM2D(6, 3, padding="same", return_sequences=True, name="low")(inputs)
    x = k.ConvLSTM2D(4, 3, padding="same", name="high")(k.BatchNormalization()(x))
    return k.Model(inputs, classify(k, x))


@net("stem attention up", notes=2, **KERAS_3_ONLY)
def decoder_with_shared_heads(k):
    """A causal decoder: four heads of the query share two of keys and values, RMS normalisation, gated feed forward."""
    inputs = k.Input((8, 4))
    x = k.Dense(12, name="stem")(inputs)
    y = k.RMSNormalization()(x)
    x = x + k.GroupQueryAttention(3, 4, 2, name="attention")(y, y, use_causal_mask=True)
    y = k.RMSNormalization()(x)
    y = k.Dense(16, activation="silu", name="up")(y) * k.Dense(16, name="gate")(y)
    x = x + k.Dense(12, name="down")(y)
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("key")
def hand_written_attention(k):
    """Heads made by reshaping one projection, scores by matmul: a head's depth can go, the same for all heads."""
    inputs = k.Input((6, 5))
    q, key, value = (k.Dense(12, name=n)(inputs) for n in ("query", "key", "value"))
    q, key, value = (k.ops.transpose(k.ops.reshape(t, (-1, 6, 3, 4)), (0, 2, 1, 3)) for t in (q, key, value))
    scores = k.ops.softmax(k.ops.matmul(q, k.ops.transpose(key, (0, 1, 3, 2))) * 0.5, axis=-1)
    x = k.ops.reshape(k.ops.transpose(k.ops.matmul(scores, value), (0, 2, 1, 3)), (-1, 6, 12))
    return k.Model(inputs, k.Dense(3, name="head")(k.GlobalAveragePooling1D()(x)))
