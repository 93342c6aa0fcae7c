import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets.catalogue import built
from nets.cuts import halved
from nets.pieces import block_class

from edgeprune.channels import rule
from edgeprune.channels.graph.rules import CannotFollow
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.planning import plan_channels
from edgeprune.flavor import keras_module


def sizes(graph):
    return [group.size for group in graph.groups if not group.frozen]


def test_a_residual_stream_is_one_group(flavor):
    graph = trace(built("residual", flavor))
    stream = graph.groups[0]
    assert stream.size == 16 and len(stream.layers) == 3
    assert sizes(graph) == [16, 8, 8]
    assert list(graph.frozen.values()) == [f"output of the model ({graph.groups[-1].name})"]


def test_each_growth_of_a_dense_net_is_a_group(flavor):
    graph = trace(built("dense_connections", flavor))
    assert sizes(graph) == [6, 8, 4, 8, 4, 8, 4]


def test_grouped_and_shuffled_channels_go_together(flavor):
    graph = trace(built("shuffle", flavor))
    # 24 channels in 4 groups of 6, shuffled: places 0..3 of each run of 4 belong to different groups.
    assert sizes(graph)[0] == 6
    graph = trace(built("grouped", flavor))
    assert sizes(graph) == [4, 6, 8, 6]


def test_a_reshaped_dense_layer_drops_channels_at_all_places(flavor):
    graph = trace(built("generator_of_padded_images", flavor))
    assert graph.groups[0].size == 16
    (kernel,) = [slot for slot in graph.groups[0].slots if slot.makes]
    assert len(kernel.classes) == 256 and kernel.name == "kernel" and kernel.axis == 1


def test_heads_go_whole():
    graph = trace(built("attention_by_hand", "keras"))
    assert 3 in sizes(graph)
    assert not any("softmax" in note for note in graph.notes)


def test_tokens_and_channels_of_a_mixer_are_pruned_apart(flavor):
    graph = trace(built("mixer", flavor))
    assert sizes(graph) == [12, 10, 20]


def test_names_of_nested_layers_and_of_several_groups_of_one_layer(flavor):
    graph = trace(built("nested", flavor))
    assert [group.name for group in graph.groups][1:3] == ["both/one/c1", "both/two/c2"]
    names = [group.name for group in trace(built("slicing", flavor)).groups]
    assert len(set(names)) == len(names) and any(":" in name for name in names)


def test_statistics_over_channels_are_noted_if_any_can_be_dropped(flavor):
    notes = trace(built("normalisations", flavor)).notes
    assert len(notes) == 3 and all("kept channels" in note for note in notes)
    assert trace(built("plain_convolutions", flavor)).notes == ()


def test_a_shared_layer_that_also_reads_the_input_is_frozen(flavor):
    K = keras_module(flavor)
    i = K.Input((8,))
    layer = K.layers.Dense(8, name="shared")
    graph = trace(K.Model(i, K.layers.Dense(2, name="out")(layer(layer(i)))))
    assert "also called on" in graph.frozen["shared"]
    x = layer(K.layers.Dense(8, name="a")(i)) + layer(i)
    graph = trace(K.Model(i, K.layers.Dense(2, name="out")(x)))
    assert "also called on" in graph.frozen["a"] and "shared" not in graph.frozen


def test_what_a_lambda_touches_is_frozen_and_the_reason_names_it(flavor):
    K = keras_module(flavor)
    i = K.Input((8,))
    x = K.layers.Lambda(lambda t: t * 2, output_shape=(12,), name="double")(K.layers.Dense(12, name="a")(i))
    graph, _, found = halved(K.Model(i, K.layers.Dense(3)(K.layers.Dense(5, name="b")(x))))
    assert found.passed
    assert graph.frozen["a"].startswith("double: the layer Lambda is unknown") and "b" not in graph.frozen


def test_constants_freeze_what_they_meet(flavor):
    K = keras_module(flavor)
    i = K.Input((8,))
    x = K.layers.Dense(4, name="a")(i) * np.arange(4, dtype="float32")
    graph = trace(K.Model(i, K.layers.Dense(3)(x)))
    assert "cannot be dropped" in graph.frozen["a"]


def test_a_single_channel_stays(flavor):
    graph = trace(built("gate_of_one_channel", flavor))
    assert "it has a single channel" in graph.frozen.values()


def gain_layer(K):
    class Gain(K.layers.Layer):
        def build(self, shape):
            self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")
            super().build(shape)

        def call(self, x):
            return x * self.gain

    return Gain


def test_a_rule_teaches_a_custom_layer(flavor):
    """Without one the call is followed, and the class is lost."""
    K = keras_module(flavor)
    Gain = gain_layer(K)
    i = K.Input((8,))
    model = K.Model(i, K.layers.Dense(3)(Gain(name="own")(K.layers.Dense(6, name="a")(i))))
    _, smaller, found = halved(model)
    assert found.passed and smaller.get_layer("own_gain").kernel.shape == (1, 3)

    @rule(Gain)
    def gain(call):
        call.index(call.layer.gain, 0, call.line(call.x, -1))
        return call.x

    graph, smaller, found = halved(model)
    assert found.passed and "a" not in graph.frozen
    assert smaller.get_layer("own").gain.shape == (3,)


def test_a_rule_that_forgets_an_argument_is_told():
    K = keras_module("keras")

    class Wide(K.layers.Layer):
        def __init__(self, units=6, **settings):
            super().__init__(**settings)
            self.units = units

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

        def call(self, x):
            return x @ self.kernel

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    @rule(Wide)
    def wide(call):
        call.read(call.x, -1, call.layer.kernel, 0)
        return call.output({1: call.make(call.layer.kernel, 1)})

    i = K.Input((8,))
    model = K.Model(i, K.layers.Dense(3)(Wide(name="wide")(i)))
    with pytest.raises(ValueError, match=r"wide: what is left of 'kernel'.*\(8, 3\).*\(8, 6\).*call.resize"):
        halved(model)


def test_a_subclass_with_a_call_of_its_own_does_not_inherit_the_rule(flavor):
    K = keras_module(flavor)

    class Doubled(K.layers.Dense):
        def call(self, x):
            return super().call(x) * 2

    class Renamed(K.layers.Dense):
        pass

    i = K.Input((8,))
    x = Renamed(6, name="same")(K.layers.Dense(6, name="first")(i))
    x = Doubled(6, name="other")(K.layers.Dense(6, name="a")(x))
    graph = trace(K.Model(i, K.layers.Dense(3)(x)))
    assert sizes(graph) == [6, 6, 6, 6] and "a" not in graph.frozen, "its call is followed"


def test_a_composite_layer_is_entered_where_its_call_can_be_followed(flavor):
    K = keras_module(flavor)
    i = K.Input((6, 5))
    block = block_class(K.layers)(8, name="block")
    model = K.Model(i, K.layers.Dense(3, name="out")(block(K.layers.Dense(8, name="a")(i))))
    graph, smaller, found = halved(model)
    assert found.passed
    assert "a" not in graph.frozen
    assert len(model.layers) == 4 and len(block._inbound_nodes) == 1 and not block.a._inbound_nodes[1:]


def test_a_rule_may_give_up(flavor):
    K = keras_module(flavor)
    Gain = gain_layer(K)

    @rule(Gain)
    def give_up(call):
        raise CannotFollow("no time")

    i = K.Input((8,))
    graph = trace(K.Model(i, K.layers.Dense(3)(Gain(name="own")(K.layers.Dense(6, name="a")(i)))))
    assert graph.frozen["a"] == "own: no time"


def test_unknown_activations_are_not_guessed(flavor):
    K = keras_module(flavor)
    i = K.Input((8,))
    x = K.layers.Dense(6, activation=lambda t: t - 1, name="a")(K.layers.Dense(5, name="before")(i))
    x = K.layers.Dense(
        6, activation=lambda t: t - K.backend.mean(t) if flavor == "tf_keras" else t - K.ops.mean(t), name="b"
    )(x)
    graph, _, found = halved(K.Model(i, K.layers.Dense(3)(x)))
    assert found.passed and "activation" in graph.frozen["a"]
    assert ("before" in graph.frozen) is (flavor == "tf_keras")  # each value less one: `keras` 3 shows what it calls


def test_what_is_no_model_or_not_built_or_cannot_be_followed_is_refused(flavor):
    K = keras_module(flavor)
    with pytest.raises(TypeError, match="Expected a Keras model"):
        trace(K.layers.Dense(3))
    with pytest.raises(ValueError, match="not built"):
        trace(K.Sequential([K.layers.Dense(3)]))


def test_subclassed_models_that_cannot_be_called_symbolically_are_refused():
    class Stubborn(keras.Model):
        def call(self, x):
            return keras.ops.convert_to_tensor(np.asarray(x)) * 2

    model = Stubborn(name="stubborn")
    model(np.zeros((1, 3), "float32"))
    with pytest.raises(ValueError, match="'stubborn' cannot be made on symbolic inputs"):
        trace(model)
    tf_keras = keras_module("tf_keras")

    class Net(tf_keras.Model):
        def call(self, x):
            return tf_keras.backend.constant(x.numpy())

    model = Net(name="stubborn")
    model(np.zeros((1, 3), "float32"))
    with pytest.raises(ValueError, match="'stubborn' cannot be made on symbolic inputs"):
        trace(model)


def test_a_trace_leaves_no_trace(flavor):
    model = built("subclassed_with_a_gate", "keras") if flavor == "keras" else built("nested", flavor)
    layers = list(model._flatten_layers())
    before = [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    trace(model)
    assert before == [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]


# Random graphs: every step takes the tensors that are there and adds one.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "conv strided depthwise multiplier grouped separable norm relu add multiply concat split slice shuffle "
                "pool excite gate permute transposed dense layer_norm pad"
            ).split()
        ),
        st.integers(0, 7),
        st.integers(0, 7),
    ),
    min_size=3,
    max_size=12,
)


def random_model(K, steps):
    """A valid graph; all tensors are (8, 8, channels) so that any two can meet."""
    L = K.layers
    i = K.Input((8, 8, 3))
    tensors = [L.Conv2D(8, 3, padding="same")(i)]
    for kind, first, second in steps:
        x, other = tensors[-1 - first % len(tensors)], tensors[second % len(tensors)]
        channels = x.shape[-1]
        fits = lambda t, channels=channels: t if t.shape[-1] == channels else L.Conv2D(channels, 1)(t)  # noqa: E731
        if kind == "conv":
            x = L.Conv2D(4 + 2 * second, 3, padding="same", activation="relu")(x)
        elif kind == "strided":
            x = L.UpSampling2D()(L.Conv2D(6, 3, strides=2, padding="same")(x))
        elif kind == "depthwise":
            x = L.DepthwiseConv2D(3, padding="same")(x)
        elif kind == "multiplier" and channels < 30:
            x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
        elif kind == "grouped" and channels % 2 == 0:
            x = L.Conv2D(8, 3, padding="same", groups=2)(x)
        elif kind == "separable":
            x = L.SeparableConv2D(6, 3, padding="same", depth_multiplier=1 + second % 2)(x)
        elif kind == "norm":
            x = L.BatchNormalization()(x)
        elif kind == "layer_norm":
            x = L.LayerNormalization()(x)
        elif kind == "relu":
            x = L.ReLU()(x)
        elif kind == "add":
            x = L.Add()([x, fits(other)])
        elif kind == "multiply":
            x = L.Multiply()([x, fits(other)])
        elif kind == "concat" and channels + other.shape[-1] < 60:
            x = L.Concatenate()([x, other])
        elif kind == "split" and channels % 2 == 0:
            x = L.Concatenate()([x[:, :, :, channels // 2 :], x[:, :, :, : channels // 2]])
        elif kind == "slice" and channels > 4:
            x = x[:, :, :, 1 : channels - 1]
        elif kind == "shuffle" and channels % 2 == 0:
            x = L.Permute((1, 2, 4, 3))(L.Reshape((8, 8, 2, channels // 2))(x))
            x = L.Reshape((8, 8, channels))(x)
        elif kind == "pool":
            x = L.MaxPooling2D(3, 1, padding="same")(x)
        elif kind == "excite":
            s = L.Dense(channels)(L.Dense(4, activation="relu")(L.GlobalAveragePooling2D()(x)))
            x = L.Multiply()([x, L.Reshape((1, 1, channels))(s)])
        elif kind == "gate":
            x = x * L.Conv2D(1, 1, activation="sigmoid")(other)
        elif kind == "permute":
            x = L.Permute((2, 1, 3))(x)
        elif kind == "transposed":
            x = L.Conv2DTranspose(5, 3, padding="same")(x)
        elif kind == "dense":
            x = L.Reshape((8, 8, 3))(L.Dense(192)(L.GlobalMaxPooling2D()(x)))
        elif kind == "pad":
            x = L.Cropping2D(1)(L.ZeroPadding2D(1)(x))
        tensors.append(x)
    outputs = [L.Dense(2)(L.Flatten()(x)) for x in tensors[-2:]]
    return K.Model(i, outputs)


@given(
    steps=STEPS,
    ratio=st.sampled_from([0.3, 0.5, 0.9]),
    seed=st.integers(0, 5),
    flavor=st.sampled_from(("keras", "tf_keras")),
)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_graphs_compute_the_same_without_random_channels(steps, ratio, seed, flavor):
    _, _, found = halved(random_model(keras_module(flavor), steps), ratio, seed)
    assert found.passed, found


def test_weights_used_outside_of_the_layers_that_hold_them_are_not_followed():
    """In a smaller model they would be constants, shared with the user's model."""
    embedding = keras.layers.Embedding(20, 16, name="embedding")

    class TiedOutput(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="tied")
            self.embedding = embedding

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.embedding.embeddings))

    i = keras.Input((6,), dtype="int32")
    graph = trace(keras.Model(i, TiedOutput()(keras.layers.Dense(16, name="dense")(embedding(i)))))
    assert set(graph.frozen) == {"embedding", "dense", "tied"}
    for reason in graph.frozen.values():
        assert "TiedOutput is unknown" in reason and "weights outside of the layers that hold them" in reason


def test_a_subclassed_model_may_use_weights_itself():
    class OwnWeight(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.head = keras.layers.Dense(8, name="dense"), keras.layers.Dense(3)
            self.gain = self.add_weight(shape=(8,), name="gain")

        def call(self, x):
            return self.head(self.dense(x) * self.gain)

    model = OwnWeight()
    model(np.ones((1, 4), np.float32))
    _, smaller, found = halved(model)
    assert found.passed and smaller.get_layer("dense").units == 4


def test_quantized_layers_stay_as_they_are():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, name="a"),
            keras.layers.Dense(8, name="b"),
            keras.layers.Dense(2, name="c"),
        ]
    )
    model.get_layer("b").quantize("int8")
    graph = trace(model)
    assert graph.frozen["a"] == "b: it is quantized: remove channels first, then quantize"
    assert set(graph.frozen) == {"a", "b", "c"}


def test_a_layer_on_the_input_that_cannot_be_followed_is_told(flavor):
    """No channel is frozen by it, as it takes none that could go and makes none that are known."""
    keras = keras_module(flavor)
    layers = keras.layers

    class Own(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 8), name="w")
            self.built = True

        def call(self, x, training=None):
            return (tf.nn.relu(x) if training else x) @ tf.convert_to_tensor(self.w)

        def compute_output_shape(self, shape):
            return (*shape[:-1], 8)

    class Cell(layers.Layer):
        state_size = output_size = 8

        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 8), name="w")
            self.built = True

        def call(self, x, states):
            new = x @ self.w + states[0]
            return new, [new]

    for first, shape, words in (
        (Own(name="first"), (4,), "the layer Own is unknown"),
        (layers.Lambda(lambda x: 2 * x, name="first"), (4,), "the layer Lambda is unknown"),
        (layers.RNN(Cell(), name="first"), (5, 4), "its cell Cell is unknown"),
        (layers.RNN([layers.GRUCell(8), Cell()], name="first"), (5, 4), "its cell Cell is unknown"),
    ):
        i = keras.Input(shape)
        hidden = layers.Dense(6, name="hidden")(first(i))
        graph = trace(keras.Model(i, layers.Dense(2, name="head")(hidden)))
        assert list(graph.frozen) == ["first", "head"] and words in graph.frozen["first"]
        alone = keras.Model(i, first(i))
        with pytest.raises(ValueError, match=f"No channels .* can be removed. first: .*{words}"):
            plan_channels(alone, pruning_ratio=0.5)
