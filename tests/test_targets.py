"""Targets: their descriptions, look-up and the operators that microcontrollers have kernels for."""

import dataclasses
import json

import numpy as np
import pytest

from edgeprune import targets
from edgeprune.targets import MICRO_OPERATORS, TARGETS, Target, register_target, target


def test_every_target_is_found_by_its_name_and_has_a_default():
    for name, entry in TARGETS.items():
        assert target(name) is entry is target(entry)
        assert entry.name == name and entry.quantizations and entry.description
        json.dumps(entry.to_dict())


def test_all_asked_for_devices_are_there():
    wanted = {"phone", "phone-gpu", "raspberry-pi", "cortex-m"}
    wanted |= {f"ethos-u55-{n}" for n in (32, 64, 128, 256)} | {"ethos-u65-256", "ethos-u65-512"}
    wanted |= {f"ethos-u85-{n}" for n in (128, 256, 512, 1024, 2048)}
    assert wanted <= set(TARGETS)
    assert target("raspberry-pi").kind == "computer"
    board = target("arduino-nano-33-ble")
    assert (board.ram_bytes, board.flash_bytes) == (256 * 1024, 1024 * 1024)


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(ValueError, match="no target 'cortexm'; did you mean 'cortex-m'"):
        target("cortexm")
    with pytest.raises(ValueError, match="there are: phone, "):
        target("zzzzzz")


def test_a_user_adds_a_target(monkeypatch):
    monkeypatch.setattr(targets, "TARGETS", dict(TARGETS))
    mine = register_target(dataclasses.replace(target("cortex-m"), name="mine", ram_bytes=1000))
    assert target("mine") is mine
    with pytest.raises(TypeError, match="expects a Target"):
        register_target("mine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "tablet"}, "kind must be one of"),
        ({"runtime": "vela"}, "is proven on 'tflm'"),
        ({"quantizations": ()}, "quantizations must be some of"),
        ({"quantizations": ("int3",)}, "quantizations must be some of"),
        ({"ram_bytes": 0}, "ram_bytes must be positive"),
        ({"kind": "npu", "runtime": "vela"}, "needs its accelerator"),
        ({"name": ""}, "needs a name"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Target(**{"name": "x", "kind": "microcontroller", "runtime": "tflm", "quantizations": ("int8",)} | changes)


def _one_operator(code, dtype="INT8", num_inputs=1):
    """A file of one operator without options, which is enough for the interpreter to look for its kernel."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode, operator_code.deprecatedBuiltinCode, operator_code.version = code, min(code, 127), 1
    tensors = [schema.TensorT() for _ in range(num_inputs + 1)]
    for number, tensor in enumerate(tensors):
        tensor.shape, tensor.type, tensor.buffer = [1], getattr(schema.TensorType, dtype), 0
        tensor.name, tensor.quantization = f"t{number}", schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [2.0**-8], [0]
    operator, graph, model = schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    inputs, outputs = list(range(num_inputs)), [num_inputs]
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, outputs
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, inputs, outputs, [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [operator_code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.slow
def test_the_operators_are_those_the_interpreter_has(tmp_path):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    from edgeprune.measure.tflm import MicroError, MicroRuntime

    found = set()
    names = {number: name for name, number in vars(BuiltinOperator).items() if isinstance(number, int)}
    for code, name in names.items():
        if name.startswith("STABLEHLO") or name in ("CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"):
            continue
        path = tmp_path / "one.tflite"
        path.write_bytes(_one_operator(code))
        try:
            MicroRuntime(path, 20_000)
            found.add(name)
        except MicroError as error:
            # A kernel that was found may still refuse, or not survive, an operator without its options.
            if "find op" not in error.reason:
                found.add(name)
    assert found == MICRO_OPERATORS


@pytest.mark.slow
def test_the_types_that_kernels_lack_are_those_the_interpreter_refuses(tmp_path):
    """Of the operators of one and two inputs that compute without options."""
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    from edgeprune.measure.tflm import MicroError, MicroRuntime

    path = tmp_path / "one.tflite"
    names = {
        1: "ABS CEIL COS ELU EXP FLOOR HARD_SWISH LOG NEG RELU RELU6 ROUND RSQRT SIN SQRT SQUARE ZEROS_LIKE",
        2: "ADD_N FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM SQUARED_DIFFERENCE",
    }
    for num_inputs, group in names.items():
        for name in group.split():
            for dtype in ("float32", "int8", "int16"):
                path.write_bytes(_one_operator(getattr(BuiltinOperator, name), dtype.upper(), num_inputs))
                try:
                    MicroRuntime(path, 20_000).run([np.ones(1, dtype)] * num_inputs)
                    runs = True
                except MicroError:
                    runs = False
                assert target("cortex-m").has_kernel(name, dtype) == runs, (name, dtype)


def test_kernels_are_those_of_the_runtime():
    assert target("phone").has_kernel("EXP", "int8") and target("cortex-m").has_kernel("EXP", "float32")
    for name in ("cortex-m", "ethos-u55-128"):
        assert not target(name).has_kernel("EXP", "int8") and not target(name).has_kernel("GELU", "float32")
        assert target(name).has_kernel("ELU", "int8") and not target(name).has_kernel("ELU", "int16")
