"""Models that a microcontroller's interpreter does not run, or computes differently: named with their layer."""

import dataclasses

import keras
import pytest
from nets.exported_nets import flat_net
from nets.samples import numbers

from edgeprune.bundle.bundle import export_bundle
from edgeprune.measure import tflm
from edgeprune.schemes import Scheme
from edgeprune.targets import target

pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")


def test_all_unsupported_operators_are_named_at_once(tmp_path, rng):
    layers = keras.layers
    x = given = keras.Input((4, 6, 6, 2))
    x = layers.Conv3D(2, 3, padding="same", name="volume")(x)
    x = layers.Activation("gelu", name="bend")(x)
    net = keras.Model(given, keras.ops.tile(x, (1, 1, 1, 1, 2)))
    with pytest.raises(ValueError) as error:
        export_bundle(net, tmp_path / "b", "cortex-m", rng.normal(size=(4, 4, 6, 6, 2)), quantization=None)
    message = str(error.value)
    assert "CONV_3D in layer 'volume'" in message and "GELU in layer 'bend'" in message and "TILE" in message
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_kernel_of_floats_alone_is_named_before_anything_runs(tmp_path, monkeypatch):
    from edgeprune.bundle import microcontroller

    layers = keras.layers
    x = keras.Input((8, 8, 3), name="image")
    bent = layers.Activation("exponential", name="bend")(layers.Conv2D(2, 3, name="stem")(x))
    net = keras.Model(x, layers.Dense(3, name="head")(layers.Flatten()(bent)), name="tiny")
    data = numbers(12, 8, 8, 3)
    with monkeypatch.context() as patch:
        patch.delattr(microcontroller, "measure_arena")
        with pytest.raises(ValueError, match="no kernel for: EXP of int8 in layer 'bend'.* layers={name: 32} of a Sch"):
            export_bundle(net, tmp_path / "b", "cortex-m", data)
    assert not list(tmp_path.iterdir())
    scheme = Scheme(8, 8, layers={"bend": 32})
    made = export_bundle(net, tmp_path / "b", "cortex-m", data, quantization=scheme)
    assert made.verification.operators["EXP"] == 1


def _joined():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    parts = [layers.Conv2D(1, 1, name=f"part_{number}")(inputs) for number in range(11)]
    return keras.Model(inputs, layers.Concatenate(name="joined")(parts), name="net")


def _rolled():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((2, 4, 2, 4, 3))(layers.Conv2D(3, 1, name="stem")(inputs))
    return keras.Model(inputs, layers.Permute((2, 1, 4, 3, 5), name="turned")(x), name="net")


def _crashing():
    """A softmax of values that are all 0 ends the interpreter's process."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, kernel_initializer="zeros", name="zeros")(layers.Conv2D(4, 3, name="stem")(inputs))
    return keras.Model(inputs, layers.Softmax(name="soft")(x), name="net")


@pytest.mark.parametrize(
    ("make", "words", "layer"),
    [
        (_joined, "num_inputs <= kMaxInputNum", "CONCATENATION in layer 'joined'"),
        (_rolled, "only supports 1D-5D", "TRANSPOSE in layer 'turned'"),
        (_crashing, "ended by SIGABRT", "SOFTMAX in layer 'soft'"),
    ],
)
def test_whatever_the_interpreter_fails_at_is_named_with_its_layer(tmp_path, make, words, layer):
    with pytest.raises(ValueError, match=f"does not run on TensorFlow Lite for Microcontrollers: .*{words}.*{layer}"):
        export_bundle(make(), tmp_path / "b", "cortex-m", numbers(12, 8, 8, 3))
    assert not list(tmp_path.iterdir())


def test_a_model_too_big_for_its_board_names_the_layer(tmp_path):
    small_ram = dataclasses.replace(target("cortex-m"), name="small", ram_bytes=2000)
    with pytest.raises(ValueError, match=r"does not fit small: .* 2,000 bytes of RAM\. Layer 'stem' sets it"):
        export_bundle(flat_net(), tmp_path / "b", small_ram, numbers(12, 8, 8, 3))
    small_flash = dataclasses.replace(target("cortex-m"), name="small", flash_bytes=2000)
    with pytest.raises(ValueError, match=r"bytes of flash .*Layer 'head' has the most weights"):
        export_bundle(flat_net(), tmp_path / "b", small_flash, numbers(12, 8, 8, 3))
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_computes_something_else_is_found_and_named(tmp_path):
    """Microcontrollers' kernel for RELU6 alone in int8 does not change the scale, and is silently wrong."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="tanh", name="stem")(layers.ReLU(6, name="six")(inputs))
    net = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)), name="tiny")
    message = "computes something else on microcontrollers.* They part at RELU6 in layer 'six'"
    with pytest.raises(ValueError, match=message):
        export_bundle(net, tmp_path / "b", "cortex-m", 4 * numbers(12, 8, 8, 3))
    assert not list(tmp_path.iterdir())


def test_a_reference_kernel_that_is_wrong_itself_is_no_reason_to_refuse(tmp_path):
    """LiteRT's reference kernel for SUM in int8 is wrong; microcontrollers agree with the model and with XNNPACK."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Lambda(lambda values: keras.ops.sum(values, axis=(1, 2)), name="sum")(inputs)
    made = export_bundle(keras.Model(inputs, x, name="tiny"), tmp_path / "b", "cortex-m", numbers(40, 8, 8, 3))
    parity = made.figures["parity"]
    assert parity["largest"] > 16 >= parity["litert_largest"]
    assert any("differ from the reference kernels'" in note for note in made.notes)


def test_what_differs_is_told(tmp_path, monkeypatch):
    from edgeprune.bundle import microcontroller

    near = tflm.MicroParity(samples=8, values=40, mismatches=9, largest=1.0, litert_mismatches=11, litert_largest=3.0)
    monkeypatch.setattr(microcontroller, "compare_with_reference", lambda path, samples: near)
    made = export_bundle(flat_net(), tmp_path / "b", "cortex-m", numbers(12, 8, 8, 3))
    assert any("9 of 40 output values differ" in note for note in made.notes)
    assert any("returns other values for 11 of 40 outputs, by up to 3" in note for note in made.notes)
    assert "values for 11 of 40 outputs, by up to 3" in (tmp_path / "b" / "README.md").read_text()


def test_a_hybrid_model_is_refused_in_the_interpreters_words(tmp_path):
    from edgeprune.export.convert import export_tflite

    net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64), keras.layers.Dense(4)])
    export_tflite(net, tmp_path / "m.tflite", "dynamic", verify=False)
    with pytest.raises(
        tflm.MicroError, match="does not run on .*: Input type: FLOAT32 with filter type: INT8 not supp"
    ):
        tflm.MicroRuntime(tmp_path / "m.tflite")
