"""edgeprune: prune a Keras model, strip it, convert it to TFLite, and verify the file that was written.

    import edgeprune as ep

    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8, begin_step=0))
    model.fit(x, y, callbacks=[ep.UpdatePruningStep()])
    result = ep.export_tflite(ep.strip_pruning(model), "model.tflite", quantization="int8",
                              representative_data=x[:100])

The public names are loaded when first used, so `import edgeprune` imports no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Each public name and the module that defines it.
_HOME = {
    "accuracy": "edgeprune.measure.accuracy",
    "activation_memory": "edgeprune.measure.memory",
    "adapt_for_xnnpack": "edgeprune.sparsity.xnnpack",
    "benchmark": "edgeprune.measure.latency",
    "ChannelPlan": "edgeprune.channels.plan",
    "ChannelPruning": "edgeprune.channels.training",
    "ConstantSparsity": "edgeprune.sparsity.schedules",
    "compressed_size": "edgeprune.measure.size",
    "count_macs": "edgeprune.measure.macs",
    "count_macs_of_file": "edgeprune.measure.macs",
    "count_parameters": "edgeprune.measure.parameters",
    "export_bundle": "edgeprune.export.bundle",
    "export_tflite": "edgeprune.export.tflite",
    "file_size": "edgeprune.measure.size",
    "drop_identity_layers": "edgeprune.channels.identity",
    "plan_blocks": "edgeprune.channels.blocks",
    "plan_channels": "edgeprune.channels.plan",
    "PolynomialDecay": "edgeprune.sparsity.schedules",
    "prune_channels": "edgeprune.channels.plan",
    "inspect": "edgeprune.report.inspection",
    "inspect_tflite": "edgeprune.report.file_inspection",
    "is_pruned": "edgeprune.strip",
    "Data": "edgeprune.data",
    "load_data": "edgeprune.data",
    "load_fashion_mnist": "edgeprune.datasets",
    "load_model": "edgeprune.flavor",
    "Metric": "edgeprune.measure.metrics",
    "ModelMetadata": "edgeprune.export.metadata",
    "Preprocessing": "edgeprune.export.bundle_content",
    "prune_low_magnitude": "edgeprune.sparsity.prune",
    "prune_scope": "edgeprune.sparsity.prune",
    "PrunableLayer": "edgeprune.sparsity.policies",
    "PruneForLatencyOnXNNPack": "edgeprune.sparsity.policies",
    "pruning_step": "edgeprune.sparsity.prune",
    "PruningPolicy": "edgeprune.sparsity.policies",
    "PruningSchedule": "edgeprune.sparsity.schedules",
    "PruningSummaries": "edgeprune.sparsity.callbacks",
    "read_metadata": "edgeprune.export.metadata",
    "read_tflite": "edgeprune.measure.tflite_file",
    "register_target": "edgeprune.targets",
    "remove_blocks": "edgeprune.channels.blocks",
    "remove_dead_channels": "edgeprune.channels.dead",
    "score": "edgeprune.measure.score",
    "sparsity_report": "edgeprune.sparsity.report",
    "split_preprocessing": "edgeprune.export.preprocessing_split",
    "strip_pruning": "edgeprune.strip",
    "Target": "edgeprune.targets",
    "TensorMetadata": "edgeprune.export.metadata",
    "UpdatePruningStep": "edgeprune.sparsity.callbacks",
    "verify_tflite": "edgeprune.export.verify",
    "write_metadata": "edgeprune.export.metadata",
    "xnnpack_misses": "edgeprune.sparsity.xnnpack",
}

# TF-MOT's own layout, for its scripts.
_MODULES = ("tfmot",)

__all__ = [*sorted(_HOME), *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"edgeprune.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
