import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.export import export_tflite
from edgeprune.tflite.file import read_tflite


def with_zeros(model, share, rng, block=1):
    """Put random zeros into the kernels; into those of dense layers in blocks along the inputs."""
    layers = flavors.keras_of(model).layers
    for layer in model.layers:
        if isinstance(layer, layers.Dense) or type(layer) is layers.Conv2D:
            kernel, *rest = layer.get_weights()
            size = block if isinstance(layer, layers.Dense) else 1
            keep = rng.random((kernel.shape[0] // size, *kernel.shape[1:])) >= share
            layer.set_weights([kernel * np.repeat(keep, size, axis=0), *rest])
    return model


def conv_net(flavor, *, stem="explicit", depthwise="same", activation="relu"):
    """A stem that XNNPACK's sparse path takes, and a depthwise convolution with stride 2."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = inputs = keras.Input((16, 16, 3), name="image")
    if stem == "explicit":
        x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(16, 3, 2, padding="valid" if stem == "explicit" else "same", activation="relu")(x)
    x = layers.Conv2D(32, 1, activation=activation)(x)
    if depthwise == "valid":
        x = layers.ZeroPadding2D(1)(x)
    x = layers.DepthwiseConv2D(3, 2, padding=depthwise, name="strided")(x)
    x = layers.Conv2D(32, 1, name="last")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="net")


def dense_net(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((32,), name="x"), layers.Dense(64, "relu", name="wide"), layers.Dense(16, name="head")]
    )


@pytest.fixture
def images(rng):
    return rng.random((20, 16, 16, 3), np.float32)


@pytest.mark.parametrize("quantization", [None, "float16"])
@pytest.mark.above_flavor
def test_stride_2_same_depthwise_behind_a_sparse_path_stem_is_refused(flavor, quantization, rng, tmp_path):
    model = with_zeros(conv_net(flavor), 0.8, rng)
    with pytest.raises(
        ValueError, match=r"on Arm.*stride-2 layer 'strided' \(DepthwiseConv2D\).*ZeroPadding2D"
    ) as info:
        export_tflite(model, tmp_path / "m.tflite", quantization, sparse=True)
    assert "without sparse=True" in str(info.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{"depthwise": "valid"}, {"stem": "same"}])
@pytest.mark.parametrize("quantization", [None, pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.above_flavor
def test_either_change_makes_it_exportable(flavor, changes, quantization, rng, images, tmp_path):
    model = with_zeros(conv_net(flavor, **changes), 0.8, rng)
    result = export_tflite(model, tmp_path / "m.tflite", quantization, images, sparse=True)
    assert result.verification.passed
    sparse = [tensor for tensor in read_tflite(result.path).tensors if tensor.sparse]
    assert len(sparse) == 3  # the three convolutions that have zeros
    assert "smaller" in result.notes[-1]


def test_int8_needs_no_refusal_of_the_depthwise(rng, images, tmp_path):
    """XNNPACK's sparse kernels are for floats only."""
    model = with_zeros(conv_net("keras"), 0.8, rng)
    result = export_tflite(model, tmp_path / "m.tflite", "int8", images, sparse=True)
    assert result.verification.passed


@pytest.mark.above_flavor
def test_int8_dense_layer_with_scattered_zeros_is_refused(flavor, rng, tmp_path):
    model = with_zeros(dense_net(flavor), 0.8, rng)
    x = rng.random((20, 32))
    with pytest.raises(ValueError, match=r"int8.*layer 'wide' \(Dense\).*does not load.*block_size=\(16, 1\)"):
        export_tflite(model, tmp_path / "m.tflite", "int8", x, sparse=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.above_flavor
def test_int8_dense_layer_with_blocks_of_zeros_runs(flavor, rng, tmp_path):
    model = with_zeros(dense_net(flavor), 0.8, rng, block=16)
    result = export_tflite(model, tmp_path / "m.tflite", "int8", rng.random((20, 32)), sparse=True)
    assert result.verification.passed
    assert any(tensor.sparse for tensor in read_tflite(result.path).tensors)


@pytest.mark.above_flavor
def test_float16_dense_layer_with_blocks_of_zeros_is_refused(flavor, rng, tmp_path):
    model = with_zeros(dense_net(flavor), 0.8, rng, block=16)
    with pytest.raises(ValueError, match=r"float16.*layer 'wide' \(Dense\).*NaN"):
        export_tflite(model, tmp_path / "m.tflite", "float16", sparse=True)


@pytest.mark.parametrize("quantization", [None, "float16"])
def test_dense_layer_with_scattered_zeros_runs_in_floats(quantization, rng, tmp_path):
    model = with_zeros(dense_net("keras"), 0.8, rng)
    result = export_tflite(model, tmp_path / "m.tflite", quantization, rng.random((20, 32)), sparse=True)
    assert result.verification.passed


@pytest.mark.parametrize("quantization", ["dynamic", "int16x8"])
@pytest.mark.above_flavor
def test_quantizations_that_never_work_are_refused_at_once(flavor, quantization, rng, tmp_path):
    with pytest.raises(ValueError, match=f"sparse=True does not support quantization='{quantization}'.*gzip"):
        export_tflite(dense_net(flavor), tmp_path / "m.tflite", quantization, rng.random((20, 32)), sparse=True)


@pytest.mark.above_flavor
def test_a_model_without_enough_zeros_is_refused(flavor, rng, tmp_path):
    model = with_zeros(dense_net(flavor), 0.1, rng)
    with pytest.raises(ValueError, match="no weight of model .* has enough zeros.*Prune"):
        export_tflite(model, tmp_path / "m.tflite", sparse=True)


@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_the_note_says_where_dense_is_smaller(activation, rng, images, tmp_path):
    """At 50 % zeros an int8 weight and its index take more bytes than the weight alone; ELU is rewritten in both."""
    model = with_zeros(conv_net("keras", activation=activation), 0.5, rng)
    sparse = export_tflite(model, tmp_path / "sparse.tflite", "int8", images, sparse=True)
    dense = export_tflite(model, tmp_path / "dense.tflite", "int8", images)
    note = sparse.notes[-1]
    assert dense.bytes < sparse.bytes and dense.gzip_bytes < sparse.gzip_bytes
    assert note.startswith("dense and dense + gzip would be smaller")
    assert f"sparse {sparse.bytes:,} bytes ({sparse.gzip_bytes:,} gzip'd)" in note
    assert f"dense {dense.bytes:,} bytes ({dense.gzip_bytes:,} gzip'd)" in note


@pytest.mark.parametrize(
    "quantization, block, outcome",
    [("dynamic", 1, "loads not"), ("int8", 1, "loads not"), ("int16x8", 1, "loads not"), ("float16", 16, "NaN")],
)
def test_the_refused_files_indeed_do_not_work(quantization, block, outcome, rng, tmp_path):
    """The reasons given are the runtime's, today: if one of these runs, the refusal can go."""
    from edgeprune.conversion.converter_run import ConverterSettings, run_converter
    from edgeprune.conversion.signature import names_to_trace, signature_specs, write_saved_model
    from edgeprune.tflite.runtime import Runtime

    model = with_zeros(
        conv_net("keras") if quantization in ("dynamic", "int16x8") else dense_net("keras"), 0.8, rng, block
    )
    specs = signature_specs(model)
    data = {name: rng.random((20, *spec.shape[1:]), np.float32) for name, spec in specs.items()}
    write_saved_model(model, specs, names_to_trace(specs), tmp_path / "saved")
    path = tmp_path / "m.tflite"
    path.write_bytes(run_converter(tmp_path / "saved", ConverterSettings(quantization, sparse=True), data))
    if outcome == "NaN":
        (output,) = Runtime(path).run_all(data, "Running").values()
        assert np.isnan(output).any()
    else:
        with pytest.raises(ValueError, match="does not load"):
            Runtime(path)
