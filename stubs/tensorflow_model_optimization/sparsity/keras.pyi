from typing import Any

class PruningSchedule:
    def __call__(self, step: Any) -> tuple[Any, Any]: ...
    def get_config(self) -> dict[str, Any]: ...
    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...

class ConstantSparsity(PruningSchedule):
    target_sparsity: float
    begin_step: int
    end_step: int
    frequency: int

    def __init__(self, target_sparsity: float, begin_step: int, end_step: int = -1, frequency: int = 100) -> None: ...

class PolynomialDecay(PruningSchedule):
    initial_sparsity: float
    final_sparsity: float
    power: float
    begin_step: int
    end_step: Any  # None in edgeprune's own, until it is known
    frequency: int

    def __init__(
        self,
        initial_sparsity: float,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        power: float = 3,
        frequency: int = 100,
    ) -> None: ...

class PrunableLayer:
    def get_prunable_weights(self) -> list[Any]: ...

class PruningPolicy:
    def allow_pruning(self, layer: Any) -> bool: ...
    def ensure_model_supports_pruning(self, model: Any) -> None: ...

def __getattr__(name: str) -> Any: ...
