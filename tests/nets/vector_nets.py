"""Architectures for vectors, points, volumes and several inputs, and models made of models."""

from nets.net import KERAS_3_ONLY, net
from nets.pieces import conv


@net("input_0")
def highway(k):
    """A gate chooses between what a layer made and what it was given."""
    inputs = k.Input((6,))
    x = k.Dense(10, name="input_0")(inputs)
    for number in range(2):
        made = k.Dense(10, activation="relu", name=f"made_{number}")(x)
        gate = k.Dense(10, activation="sigmoid", name=f"gate_{number}")(x)
        x = made * gate + x * (1.0 - gate)
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("trunk value_hidden advantage_hidden", "value advantage")
def dueling_heads(k):
    """The mean over all actions is subtracted from each: actions are outputs."""
    inputs = k.Input((8,))
    x = k.Dense(16, activation="relu", name="trunk")(inputs)
    value = k.Dense(1, name="value")(k.Dense(8, activation="relu", name="value_hidden")(x))
    advantage = k.Dense(8, activation="relu", name="advantage_hidden")(x)
    advantage = k.Dense(4, name="advantage")(advantage)
    return k.Model(inputs, value + advantage - k.ops.mean(advantage, axis=1, keepdims=True))


@net("picture numbers trunk side", "a b c")
def two_inputs_three_outputs(k):
    picture, numbers = k.Input((8, 8, 3)), k.Input((5,))
    x = k.GlobalAveragePooling2D()(conv(k, picture, 8, name="picture"))
    y = k.Dense(6, activation="relu", name="numbers")(numbers)
    x = k.Dense(12, activation="relu", name="trunk")(k.Concatenate()([x, y]))
    side = k.Dense(8, activation="relu", name="side")(x)
    outputs = [k.Dense(2, name="a")(x), k.Dense(3, name="b")(side), k.Dense(1, name="c")(side)]
    return k.Model([picture, numbers], outputs)


@net("tower/a tower/b")
def siamese(k):
    """One tower on two pictures; their distance goes through a last layer."""
    tower = k.Sequential(
        [
            k.Input((8, 8, 1)),
            k.Conv2D(8, 3, activation="relu", name="a"),
            k.GlobalMaxPooling2D(),
            k.Dense(10, name="b"),
        ],
        name="tower",
    )
    one, other = k.Input((8, 8, 1)), k.Input((8, 8, 1))
    distance = k.Subtract()([tower(one), tower(other)])
    return k.Model([one, other], k.Dense(1, activation="sigmoid", name="head")(k.Multiply()([distance, distance])))


@net("user item", "")
def two_towers(k):
    """The product of two embeddings is the output: their width can go, together."""
    user, item = k.Input((6,)), k.Input((1,), dtype="int32")
    u = k.Dense(8, name="user_out")(k.Dense(12, activation="relu", name="user")(user))
    i = k.Flatten()(k.Embedding(20, 8, name="item")(item))
    return k.Model([user, item], k.Dot(axes=1)([u, i]))


@net("words deep")
def wide_and_deep(k):
    numbers, word = k.Input((5,)), k.Input((1,), dtype="int32")
    x = k.Concatenate()([numbers, k.Flatten()(k.Embedding(20, 8, name="words")(word))])
    deep = k.Dense(12, activation="relu", name="deep")(x)
    return k.Model([numbers, word], k.Dense(1, name="head")(k.Concatenate()([deep, numbers])))


@net("each wide hidden")
def point_net(k):
    """The same layers on every point, and the maximum over all; then both are joined again for each point."""
    inputs = k.Input((16, 3))
    local = k.Dense(8, activation="relu", name="each")(inputs)
    x = k.ops.max(k.Dense(12, activation="relu", name="wide")(local), axis=1)
    x = k.Concatenate()([local, k.RepeatVector(16)(x)])
    return k.Model(inputs, k.Dense(3, name="head")(k.Dense(8, activation="relu", name="hidden")(x)))


@net("first second")
def graph_convolution(k):
    """Neighbours are summed with a matrix that is an input."""
    nodes, edges = k.Input((6, 4)), k.Input((6, 6))
    x = k.ops.matmul(edges, k.Dense(10, name="first")(nodes))
    x = k.ops.matmul(edges, k.Dense(8, name="second")(k.ReLU()(x)))
    return k.Model([nodes, edges], k.Dense(3, name="head")(k.ops.mean(x, axis=1)))


@net("expert_0_in expert_1_in expert_0", "gate head")
def mixture_of_experts(k):
    inputs = k.Input((8,))
    hidden = [k.Dense(10, activation="relu", name=f"expert_{n}_in")(inputs) for n in range(2)]
    experts = [k.Dense(6, name=f"expert_{n}")(h) for n, h in enumerate(hidden)]
    gate = k.Dense(2, activation="softmax", name="gate")(inputs)
    x = k.ops.einsum("bn,bnd->bd", gate, k.ops.stack(experts, axis=1))
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("a c b")
def volumes(k):
    inputs = k.Input((6, 6, 6, 1))
    x = k.Conv3D(6, 3, padding="same", activation="relu", name="a")(inputs)
    x = k.BatchNormalization()(k.MaxPooling3D(2)(x))
    x = k.Conv3DTranspose(4, 2, 2, activation="relu", name="b")(k.Conv3D(8, 3, padding="same", name="c")(x))
    return k.Model(inputs, k.Dense(3, name="head")(k.GlobalAveragePooling3D()(x)))


@net("outer_in middle/inner/a middle/inner/b middle/c")
def nested_of_nested(k):
    inner = k.Sequential([k.Input((8,)), k.Dense(12, activation="relu", name="a"), k.Dense(6, name="b")], name="inner")
    tensor = k.Input((8,))
    middle = k.Model(tensor, k.Dense(8, name="c")(inner(tensor)), name="middle")
    inputs = k.Input((5,))
    x = middle(k.Dense(8, name="outer_in")(inputs))
    return k.Model(inputs, k.Dense(3, name="head")(x))


@net("stem a_in b_in", **KERAS_3_ONLY)
def subclassed(k):
    """A model whose call is Python, with a loop over blocks and a sum."""

    class Residual(k.Model):
        def __init__(self):
            super().__init__()
            self.stem = k.Conv2D(8, 3, padding="same", name="stem")
            self.blocks = [
                (
                    k.Conv2D(12, 3, padding="same", activation="relu", name=f"{n}_in"),
                    k.Conv2D(8, 1, name=f"{n}_out"),
                )
                for n in "ab"
            ]
            self.pool = k.GlobalAveragePooling2D(name="pool")
            self.head = k.Dense(3, name="head")

        def call(self, x):
            x = self.stem(x)
            for grow, shrink in self.blocks:
                x = k.ops.relu(x + shrink(grow(x)))
            return self.head(self.pool(x))

    model = Residual()
    model(k.ops.zeros((1, 8, 8, 3)))
    return model
