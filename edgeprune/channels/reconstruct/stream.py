"""What flows between layers, batch by batch, for all samples: in memory, and on disk where there is too much of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import batches_of
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import input_tensors
from edgeprune.types import DataLike, Model, TfTensor

if TYPE_CHECKING:
    import tensorflow as tf

MEMORY = 1 << 30  # bytes that are held in memory
# Bytes of a batch's inputs. What layers make of more is returned to the system and asked for again at every call, which
# takes longer than twice as many calls.
MOST_INPUT = 10 << 20


class Store:
    """Holds tensors, up to so many bytes in memory and the others in a temporary folder, until it is closed."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0
        self.held = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def streams(self, batches: Iterable[Sequence[Any]]) -> list[Stream]:
        """Hold several tensors for each batch."""
        held = [[self._put(tensor) for tensor in tensors] for tensors in batches]
        return [Stream(self, list(own)) for own in zip(*held, strict=True)]

    def _put(self, tensor: TfTensor) -> Any:
        size = _bytes_of(tensor)
        if self.held + size <= self._memory or not size:
            self.held += size
            return tensor
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="edgeprune-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.npy"
        np.save(path, tensor.numpy())
        return _OnDisk(path, tensor.dtype, getattr(tensor, "_keras_mask", None))

    def drop(self, held: _OnDisk | TfTensor) -> None:
        """Free what is held of one batch."""
        if isinstance(held, _OnDisk):
            held.path.unlink()
        else:
            self.held -= _bytes_of(held)


class Stream:
    """One tensor of a model's graph for all samples; iterated over, it yields the batches."""

    def __init__(self, store: Store, batches: list[Any]) -> None:
        self.store = store
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        for held in self._batches:
            yield held.tensor() if isinstance(held, _OnDisk) else held

    def drop(self) -> None:
        """Free it."""
        while self._batches:
            self.store.drop(self._batches.pop())


class _OnDisk:
    """A tensor in a file, with the mask of steps that Keras carries along with it."""

    def __init__(self, path: Path, dtype: tf.DType, mask: TfTensor | None) -> None:
        self.path, self._dtype, self._mask = path, dtype, mask

    def tensor(self) -> Any:
        import tensorflow as tf

        tensor = tf.constant(np.load(self.path, allow_pickle=False), self._dtype)
        if self._mask is not None:
            tensor._keras_mask = self._mask
        return tensor


def input_streams(model: Model, data: DataLike, batch_size: int, steps: int | None, store: Store) -> list[Stream]:
    """The inputs of a model for all batches of data; batches of large samples are divided.

    Raises:
        ValueError: the data have no batches, or do not fit the model.
    """
    batches = batches_of(data, batch_size, steps, inputs=input_shapes(model))
    tensors = (input_tensors(model, batch.x) for batch in batches)
    streams = store.streams(part for own in tensors for part in (_parts(own) if _divides(model) else [own]))
    if not streams:
        raise ValueError("The data has no batches.")
    return streams


def _divides(model: Model) -> bool:
    """Whether a model accepts batches of any size, and carries no states from one to the next."""
    is_stateful = any(getattr(layer, "stateful", False) for layer in flavor.layers_of(model))
    return not is_stateful and all(tensor.shape[0] is None for tensor in flavor.graph_nodes(model)[0])


def _parts(tensors: Sequence[TfTensor]) -> Iterator[list[Any]]:
    samples = len(tensors[0])
    at_once = max(samples * MOST_INPUT // max(sum(map(_bytes_of, tensors)), 1), 1)
    for start in range(0, samples, at_once):
        yield [tensor[start : start + at_once] for tensor in tensors]


def steps_folded(stream: Stream, like: Stream | None) -> Stream:
    """A stream whose steps become samples, or become steps again, as many as another has."""
    import tensorflow as tf

    def unfolded(tensor: TfTensor, other: TfTensor) -> Any:
        made = tf.reshape(tensor, [*other.shape[:2], *tensor.shape[1:]])
        if (mask := getattr(other, "_keras_mask", None)) is not None:
            made._keras_mask = mask
        return made

    if like is None:
        made = ([tf.reshape(tensor, [-1, *tensor.shape[2:]])] for tensor in stream)
    else:
        made = ([unfolded(*pair)] for pair in zip(stream, like, strict=True))
    return stream.store.streams(made)[0]


def _bytes_of(tensor: TfTensor) -> int:
    """The bytes of a tensor that NumPy can write to a file; others (texts, bfloat16) are held in memory uncounted."""
    dtype: Any = getattr(tensor, "dtype", None)
    writable = (
        dtype is not None and dtype.name != "bfloat16" and (dtype.is_floating or dtype.is_integer or dtype.is_bool)
    )
    return int(np.prod(tensor.shape)) * dtype.size if writable else 0
