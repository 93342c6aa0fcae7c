"""Run a .tflite file on arrays with the LiteRT interpreter: named inputs and outputs, floats in and out.

The one place that opens an interpreter, so that verifying, timing and scoring a file all run it the same way, and none
of them in the user's process before a process of its own has survived it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.crash_guard import try_out
from edgeprune.number_checks import check_whole
from edgeprune.output_capture import captured_output
from edgeprune.progress import track


@dataclass(frozen=True)
class Port:
    """An input or an output of a .tflite file.

    Attributes:
        name: its name in the file's signature, or the tensor's own name where the file has none.
        shape: its static shape, the batch included.
        dtype: the type of its values.
        scale: real value of one step, 0 where it is not quantized.
        zero_point: the stored value that means 0.
        index: the interpreter's number of the tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float
    zero_point: int
    index: int

    @property
    def quantized(self) -> bool:
        """Whether real values are stored as integers."""
        return self.scale != 0 and self.dtype.kind in "iu"

    @property
    def holds_text(self) -> bool:
        """Whether its values are strings."""
        return self.dtype.kind == "S"

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Real values as the file encodes them: quantized and clipped to the type's range, or cast; UTF-8 strings."""
        if self.holds_text:
            return texts(self.name, values)
        if not self.quantized:
            return values.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        steps = np.rint(values / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Encoded values of the file as real values."""
        if not self.quantized:
            return values
        return ((values.astype(np.float32) - self.zero_point) * self.scale).astype(np.float32)


class Runtime:
    """A .tflite file, opened and ready to run.

    Args:
        path: the .tflite file.
        num_threads: how many threads the interpreter may use.
        use_xnnpack: whether the XNNPACK delegate may run operators, as it does on phones.
        reference: whether to run the plain reference kernels, which microcontrollers' kernels must agree with.
        keep_tensors: whether what every operator computes can be read after a run, with `tensors`; without XNNPACK.
        isolated: whether the file is run in a process of its own first, which a malformed one may end instead of this.
            Content that was tried before is not again.

    Attributes:
        path: the file.
        inputs: name to input, in the file's order.
        outputs: name to output, in the file's order.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the interpreter cannot load the file, or ends its process; or `num_threads` is no whole number from
            1 on.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int = 1,
        use_xnnpack: bool = True,
        reference: bool = False,
        keep_tensors: bool = False,
        isolated: bool = True,
    ) -> None:
        """Open the file and allocate its tensors."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"No .tflite file at {self.path}")
        check_whole("num_threads", num_threads, 1)
        resolver = (
            OpResolverType.AUTO
            if use_xnnpack and not keep_tensors
            else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        resolver = OpResolverType.BUILTIN_REF if reference else resolver
        if isolated:
            try_out(self.path, resolver.name)
        try:
            with captured_output():  # LiteRT prints which delegate it creates
                self._interpreter: Any = Interpreter(
                    os.fsencode(self.path),
                    num_threads=num_threads,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=keep_tensors,
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self.path} does not load in the LiteRT interpreter: {' '.join(str(error).split())[:300]}"
            ) from error
        self.inputs: dict[str, Port]
        self.outputs: dict[str, Port]
        self.inputs, self.outputs = self._ports()
        if not (self.inputs and self.outputs):
            raise ValueError(f"{self.path} has {len(self.inputs)} inputs and {len(self.outputs)} outputs.")

    def _ports(self) -> tuple[dict[str, Port], dict[str, Port]]:
        interpreter = self._interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        signatures = interpreter.get_signature_list()
        if len(signatures) != 1:
            return _named(inputs, {}), _named(outputs, {})
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return _named(inputs, runner.get_input_details()), _named(outputs, runner.get_output_details())

    def tensors(self) -> dict[int, Port]:
        """The tensors of the graph by their numbers, constants among them; `output` reads one after a run."""
        details = self._interpreter.get_tensor_details()
        return {detail["index"]: _port(detail["name"], detail) for detail in details}

    def set_input(self, port: Port, encoded: np.ndarray) -> None:
        """Set one input to its encoded values, of exactly the port's shape and type."""
        self._interpreter.set_tensor(port.index, encoded)

    def invoke(self) -> None:
        """Run once on the inputs as they are set."""
        try:
            self._interpreter.reset_all_variables()  # recurrent operators would go on from the last run
            self._interpreter.invoke()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{self.path} loads but does not run: {reason}") from error

    def output(self, port: Port) -> np.ndarray:
        """One output of the last run, as the file encodes it."""
        return self._interpreter.get_tensor(port.index)

    def run(self, encoded: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once on the encoded values of each input, in the file's order; its outputs, as the file encodes them."""
        for port, values in zip(self.inputs.values(), encoded, strict=True):
            self.set_input(port, values)
        self.invoke()
        return [self.output(port) for port in self.outputs.values()]

    def check_samples(self, samples: Mapping[str, np.ndarray]) -> None:
        """Check samples for all inputs.

        Args:
            samples: input name to real values `(number of samples, ...)`.

        Raises:
            ValueError: an array is empty, has the wrong shape, holds no numbers, NaN, infinity, or fractions where the
                file expects whole numbers, or the inputs differ in length.
        """
        for name, port in self.inputs.items():
            _check_samples(name, samples[name], port)
        lengths = {len(samples[name]) for name in self.inputs}
        if len(lengths) != 1:
            raise ValueError(f"The inputs have different numbers of samples: {sorted(lengths)}.")

    def run_all(self, samples: Mapping[str, np.ndarray], description: str) -> dict[str, np.ndarray]:
        """Run the file on each sample in turn.

        Args:
            samples: input name to real values `(number of samples, ...)`, checked by `check_samples`.
            description: the text of the progress bar.

        Returns:
            Output name to real values `(number of samples, ...)`.
        """
        batch = self._batch()
        encoded = {name: port.encode(samples[name]) for name, port in self.inputs.items()}
        count = len(next(iter(encoded.values())))
        collected: dict[str, np.ndarray] = {}
        for start in track(range(0, count, batch), description):
            for name, port in self.inputs.items():
                self.set_input(port, _padded(encoded[name][start : start + batch], batch))
            self.invoke()
            for name, port in self.outputs.items():
                value = self.output(port)[: count - start]
                if name not in collected:
                    collected[name] = np.empty((count, *value.shape[1:]), value.dtype)
                collected[name][start : start + len(value)] = value
        return {name: self.outputs[name].decode(values) for name, values in collected.items()}

    def _batch(self) -> int:
        """The number of samples of one run."""
        # The shape of an output of strings is known only once it has run.
        shaped = [port for port in self.outputs.values() if not port.holds_text]
        sizes = {port.shape[:1] for port in (*self.inputs.values(), *shaped)}
        if len(sizes) != 1 or sizes == {()}:
            shapes = {name: port.shape for name, port in {**self.inputs, **self.outputs}.items()}
            raise ValueError(f"{self.path}: inputs and outputs do not share a leading batch axis: {shapes}")
        return sizes.pop()[0]


def in_number_order(names: Iterable[str]) -> list[str]:
    """Names sorted with `output_10` after `output_2`: the order of a file's names that only count."""
    return sorted(names, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])


def texts(name: str, array: np.ndarray) -> np.ndarray:
    """Strings in UTF-8, as an array of Python's bytes.

    Args:
        name: the input's name, for the message.
        array: strings or bytes, in an array of any type that holds them.

    Raises:
        ValueError: a value is no string.
    """
    wrong = next((value for value in array.flat if not isinstance(value, str | bytes)), None)
    if wrong is not None or array.dtype.kind not in "OSU":
        given = f"type {array.dtype}" if wrong is None else f"{type(wrong).__name__} among its values"
        raise ValueError(f"Input {name!r}: expected strings, got {given}.")
    encoded: Any = np.empty(array.shape, object)
    encoded.flat = [value.encode() if isinstance(value, str) else bytes(value) for value in array.flat]
    return encoded


def _check_samples(name: str, array: np.ndarray, port: Port) -> None:
    if port.holds_text:
        texts(name, array)
    elif array.dtype.kind not in "fiub":
        raise ValueError(f"Input {name!r}: expected numbers, got values of type {array.dtype}.")
    if array.ndim == 0 or array.shape[1:] != port.shape[1:]:
        raise ValueError(
            f"Input {name!r} expects samples of shape {port.shape[1:]}, so an array (samples, "
            f"{', '.join(map(str, port.shape[1:]))}); got an array of shape {array.shape}."
        )
    if len(array) == 0:
        raise ValueError(f"Input {name!r} has no samples.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"Input {name!r} holds NaN or infinity; clean the samples first.")
    with np.errstate(invalid="ignore"):  # what does not fit is refused
        whole = (
            port.holds_text
            or port.quantized
            or port.dtype.kind not in "iu"
            or np.array_equal(array, array.astype(port.dtype))
        )
    if not whole:
        raise ValueError(
            f"Input {name!r} expects whole numbers of type {port.dtype}, got values from {array.min():g} to "
            f"{array.max():g} of type {array.dtype} that it cannot hold."
        )


def _named(details: list[dict[str, Any]], signature: Mapping[str, Mapping[str, Any]]) -> dict[str, Port]:
    """The tensors by their names in the signature; a model may give one out under several."""
    names: dict[int, list[str]] = {}
    for name, detail in signature.items():
        names.setdefault(detail["index"], []).append(name)
    ports = {}
    for detail in details:
        left = names.get(detail["index"])
        name = left.pop(0) if left else detail["name"]
        ports[name] = _port(name, detail)
    return ports


def _port(name: str, detail: Mapping[str, Any]) -> Port:
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    return Port(name, shape, np.dtype(detail["dtype"]), float(scale), int(zero_point), detail["index"])


def _padded(values: np.ndarray, batch: int) -> np.ndarray:
    """The last, shorter batch filled up with its last sample."""
    missing = batch - len(values)
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values
