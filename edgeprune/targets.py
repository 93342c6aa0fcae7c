"""What each device expects of a model: types, operators, rounding of channels, memories, a runtime to prove it on.

ep.target("cortex-m").quantizations
ep.register_target(dataclasses.replace(ep.target("cortex-m"), name="my-board", ram_bytes=128 * 1024))
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.schemes import Scheme
from edgeprune.types import Quantization

KINDS = ("phone", "computer", "microcontroller", "npu")
RUNTIMES = {"phone": "litert", "computer": "litert", "microcontroller": "tflm", "npu": "vela"}
KIB = 1024

# The operators whose kernels read weights of 4 bits. TFLM's dense layers do so with one scale alone; Vela ends with a
# signal at any, but stores weights of 15 values in fewer bits by itself.
# Source: tensorflow/lite/micro/kernels/fully_connected_common.cc
_ALL_READ = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"))
FOUR_BIT_OPERATORS = {"litert": _ALL_READ, "tflm": _ALL_READ, "vela": frozenset[str]()}
_WITH_ONE_SCALE = {"tflm": frozenset(("FULLY_CONNECTED",))}

# The builtin operators that TensorFlow Lite for Microcontrollers has kernels for. A test holds the list against the
# interpreter itself.
MICRO_OPERATORS = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
    BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV
    DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
    GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
    NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND
    SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """.split()
)
# Those of them whose kernels read no values of a type, by the type. A test holds these too against the interpreter.
_NO_INTEGERS = frozenset("CEIL COS EXP FLOOR FLOOR_DIV FLOOR_MOD L2_POOL_2D LOG NEG ROUND SIN SQRT SQUARE".split())
_NO_INT16 = frozenset(
    """
    ADD_N ARG_MAX ARG_MIN BATCH_TO_SPACE_ND CUMSUM DEPTH_TO_SPACE DIV ELU EQUAL GATHER GATHER_ND GREATER_EQUAL
    HARD_SWISH L2_NORMALIZATION LESS LESS_EQUAL LOG_SOFTMAX MIRROR_PAD NOT_EQUAL REDUCE_MAX REDUCE_MIN
    RESIZE_BILINEAR SPACE_TO_BATCH_ND SPACE_TO_DEPTH ZEROS_LIKE
    """.split()
)
MICRO_LACKING = {"int8": _NO_INTEGERS, "int16": _NO_INTEGERS | _NO_INT16}


@dataclass(frozen=True)
class Target:
    """A device, or a family of them, that a model is exported for.

    Attributes:
        name: what the user calls it: `"cortex-m"`.
        kind: `"phone"`, `"computer"`, `"microcontroller"` or `"npu"`: which bundle is written.
        runtime: what the file is proven on: `"litert"`, `"tflm"` or `"vela"`.
        quantizations: the recipes it can run, the default first; `None` is float32.
        operators: the builtin operators it has kernels for; `None` for all.
        round_to: what `plan_channels` should round the channels that are left to.
        flash_bytes: space for the model and its code; `None` where it is unknown.
        ram_bytes: space for the activations; `None` where it is unknown.
        accelerator: the name of the NPU's or the GPU's configuration, `None` without one.
        description: one line.

    Raises:
        ValueError: the kind, the runtime or a memory makes no sense.

    Example:
        >>> target("ethos-u55-128").kind
        'npu'
    """

    name: str
    kind: str
    runtime: str
    quantizations: tuple[Quantization | None, ...]
    operators: frozenset[str] | None = None
    round_to: int | str = 8
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    accelerator: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse what no bundle could be written for."""
        if not self.name:
            raise ValueError("A target needs a name.")
        if self.kind not in KINDS:
            raise ValueError(f"Target {self.name!r}: kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if self.runtime != RUNTIMES[self.kind]:
            raise ValueError(
                f"Target {self.name!r}: a {self.kind} is proven on {RUNTIMES[self.kind]!r}, not on {self.runtime!r}."
            )
        known = (None, "dynamic", "float16", "int8", "int16x8", "int4")
        if not self.quantizations or set(self.quantizations) - set(known):
            raise ValueError(
                f"Target {self.name!r}: quantizations must be some of {known}; got {self.quantizations!r}."
            )
        for which in ("flash_bytes", "ram_bytes"):
            size = getattr(self, which)
            if size is not None and size < 1:
                raise ValueError(f"Target {self.name!r}: {which} must be positive, got {size}.")
        if self.kind == "npu" and not self.accelerator:
            raise ValueError(f"Target {self.name!r}: an npu needs its accelerator, such as 'ethos-u55-128'.")

    def four_bit_operators(self, per_channel_dense: bool = True) -> frozenset[str]:
        """The operators that read weights of 4 bits; those of others are on the same grid, in 8 bits.

        Args:
            per_channel_dense: whether each unit of a dense layer has a scale of its own.
        """
        unread = _WITH_ONE_SCALE.get(self.runtime, frozenset()) if per_channel_dense else frozenset()
        return FOUR_BIT_OPERATORS[self.runtime] - unread

    def has_kernel(self, operator: str, dtype: str) -> bool:
        """Whether the device computes an operator.

        Args:
            operator: the builtin's name.
            dtype: the type of its first input.

        Example:
            >>> target("cortex-m").has_kernel("EXP", "float32"), target("cortex-m").has_kernel("EXP", "int8")
            (True, False)
        """
        if self.operators is None:
            return True
        lacking = MICRO_LACKING.get(dtype, frozenset[str]()) if self.runtime != "litert" else ()
        return operator in self.operators and operator not in lacking

    @property
    def computes_floats(self) -> bool:
        """Whether it runs operators in floats."""
        return None in self.quantizations

    def check_float_layers(self, scheme: Scheme) -> None:
        """Refuse a scheme that leaves layers in floats, where the device computes none.

        Raises:
            ValueError: names the layers.
        """
        if scheme.has_float_layers and not self.computes_floats:
            raise ValueError(
                f"Target {self.name!r} computes no floats, and the scheme leaves layers in them: {scheme}."
            )

    def to_dict(self) -> dict[str, Any]:
        """The description as plain values, for JSON."""
        operators = None if self.operators is None else sorted(self.operators)
        return asdict(self) | {"quantizations": list(self.quantizations), "operators": operators}


def target(name: str | Target) -> Target:
    """Look a target up by its name.

    Args:
        name: the name, or a target, which is returned.

    Returns:
        The target.

    Raises:
        ValueError: there is none of that name; the message lists near ones.

    Example:
        >>> target("cortex-m").quantizations[0]
        'int8'
    """
    if isinstance(name, Target):
        return name
    if name in TARGETS:
        return TARGETS[name]
    near = difflib.get_close_matches(str(name), TARGETS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(TARGETS)}."
    raise ValueError(f"There is no target {name!r}; {hint} register_target adds your own.")


def register_target(new: Target) -> Target:
    """Add a target, so that it can be used by name.

    Args:
        new: the target; one of the same name is replaced.

    Returns:
        The target.

    Raises:
        TypeError: it is no `Target`.

    Example:
        >>> import dataclasses
        >>> board = dataclasses.replace(target("cortex-m"), name="my-board", ram_bytes=128 * 1024)
        >>> register_target(board).name
        'my-board'
    """
    if not isinstance(new, Target):
        raise TypeError(f"register_target expects a Target, got {type(new).__name__}.")
    TARGETS[new.name] = new
    return new


def _microcontroller(name: str, description: str, ram: int | None = None, flash: int | None = None) -> Target:
    return Target(
        name,
        "microcontroller",
        "tflm",
        ("int8", "int16x8", None, "int4"),
        MICRO_OPERATORS,
        round_to=4,  # CMSIS-NN works on four channels at once
        flash_bytes=flash,
        ram_bytes=ram,
        description=description,
    )


def _npu(family: str, macs: int) -> Target:
    name = f"ethos-{family}-{macs}"
    # What Vela leaves on the CPU runs on TensorFlow Lite for Microcontrollers.
    return Target(
        name,
        "npu",
        "vela",
        ("int8", "int16x8", "int4"),
        MICRO_OPERATORS,
        round_to=16,
        accelerator=name,
        description=f"Arm Ethos-{family.upper()} with {macs:,} MACs a cycle, with a Cortex-M",
    )


def _builtin() -> tuple[Target, ...]:
    return (
        Target(
            "phone",
            "phone",
            "litert",
            ("int8", "dynamic", "float16", None, "int16x8", "int4"),
            round_to="tile-int8",
            description="an Android phone's CPU through XNNPACK",
        ),
        Target(
            "phone-gpu",
            "phone",
            "litert",
            ("float16", None),
            accelerator="gpu",
            description="an Android phone's GPU, which computes in float16",
        ),
        Target(
            "raspberry-pi",
            "computer",
            "litert",
            ("int8", "dynamic", "float16", None, "int16x8", "int4"),
            round_to="tile-int8",
            description="a Raspberry Pi's CPU through XNNPACK, called from Python",
        ),
        _microcontroller("cortex-m", "any Arm Cortex-M; its memories are not checked"),
        # The memories are those in the makers' data sheets, all of the RAM and all of the flash.
        _microcontroller("arduino-nano-33-ble", "nRF52840: Cortex-M4F at 64 MHz", 256 * KIB, 1024 * KIB),
        _microcontroller("stm32f446re", "STM32 Nucleo-F446RE: Cortex-M4F at 180 MHz", 128 * KIB, 512 * KIB),
        _microcontroller("stm32l4r5zi", "STM32 Nucleo-L4R5ZI: Cortex-M4F at 120 MHz", 640 * KIB, 2048 * KIB),
        _microcontroller("stm32f746ng", "STM32F746G Discovery: Cortex-M7 at 216 MHz", 320 * KIB, 1024 * KIB),
        _microcontroller("stm32h743zi", "STM32 Nucleo-H743ZI: Cortex-M7 at 480 MHz", 1024 * KIB, 2048 * KIB),
        _microcontroller("rp2040", "Raspberry Pi Pico: two Cortex-M0+ at 133 MHz", 264 * KIB, 2048 * KIB),
        _microcontroller("cortex-m-256k-1m", "a board with 256 KiB of RAM and 1 MiB of flash", 256 * KIB, 1024 * KIB),
        *(_npu("u55", macs) for macs in (32, 64, 128, 256)),
        *(_npu("u65", macs) for macs in (256, 512)),
        *(_npu("u85", macs) for macs in (128, 256, 512, 1024, 2048)),
    )


TARGETS: dict[str, Target] = {entry.name: entry for entry in _builtin()}
