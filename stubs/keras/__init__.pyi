from typing import Any

from keras import callbacks as callbacks
from keras import layers as layers
from keras import losses as losses
from keras import metrics as metrics
from keras import optimizers as optimizers
from keras import utils as utils
from keras.layers import Layer as Layer

class KerasTensor:
    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __getattr__(self, name: str) -> Any: ...

class Variable:
    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    trainable: bool

    def assign(self, value: Any) -> Any: ...
    def numpy(self) -> Any: ...
    def __array__(self, dtype: Any = None) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...
    # The value of a compiled step, the constraint and the like are set on it.
    def __setattr__(self, name: str, value: Any) -> None: ...

class Model(Layer):
    layers: list[Layer]
    stop_training: bool

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer: ...
    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any) -> None: ...
    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any: ...
    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any: ...
    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None: ...

class Sequential(Model): ...

def __getattr__(name: str) -> Any: ...
