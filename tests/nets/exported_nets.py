"""Small models of either Keras to export, and samples for them."""

from edgeprune import flavor as flavors


def two_in_three_out(flavor):
    """Inputs and outputs whose order is not that of their names."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image, meta = keras.Input((8, 8, 3), name="zoom"), keras.Input((4,), name="about")
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    y = layers.Concatenate()([x, meta])
    outputs = [
        layers.Dense(5, activation="softmax", name="kind")(y),
        layers.Dense(2, name="box")(y),
        layers.Dense(1, name="age")(x),
    ]
    return keras.Model([image, meta], outputs)


def subclassed(flavor):
    keras = flavors.keras_module(flavor)

    class Towers(keras.Model):
        def __init__(self):
            super().__init__()
            self.left, self.right = keras.layers.Dense(2), keras.layers.Dense(3)

        def call(self, inputs, training=False):
            return {"right": self.right(inputs["b"]), "left": self.left(inputs["a"])}

    return Towers()


def dense(flavor, units=3):
    keras = flavors.keras_module(flavor)
    return keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(units, name="out")], name="small")


def two_inputs(rng, count=40):
    return {"zoom": rng.normal(size=(count, 8, 8, 3)), "about": rng.normal(size=(count, 4))}


def image_net(classes=5):
    keras = flavors.keras_module(flavors.KERAS_3)
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(image)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax", name="scores")(x), name="net")


def flat_net():
    keras = flavors.keras_module(flavors.KERAS_3)
    layers = keras.layers
    x = given = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(given, layers.Dense(5, activation="softmax", name="head")(x), name="tiny")
