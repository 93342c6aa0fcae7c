from collections.abc import Iterator
from typing import Any

class Dataset:
    element_spec: Any

    def __iter__(self) -> Iterator[Any]: ...
    def __getattr__(self, name: str) -> Any: ...

def __getattr__(name: str) -> Any: ...
