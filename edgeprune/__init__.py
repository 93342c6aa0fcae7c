"""edgeprune: prune a Keras model, strip it, convert it to TFLite, and verify the file that was written.

    import edgeprune as ep

    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8, begin_step=0))
    model.fit(x, y, callbacks=[ep.UpdatePruningStep()])
    result = ep.export_tflite(ep.strip_pruning(model), "model.tflite", quantization="int8",
                              representative_data=x[:100])

The public names are loaded when first used, so `import edgeprune` imports no TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune import bundle as bundle
    from edgeprune import channels as channels
    from edgeprune import data as data
    from edgeprune import dead_channels as dead_channels
    from edgeprune import depth as depth
    from edgeprune import export as export
    from edgeprune import measure as measure
    from edgeprune import one_shot as one_shot
    from edgeprune import quantization as quantization
    from edgeprune import report as report
    from edgeprune import search as search
    from edgeprune import sparsity as sparsity
    from edgeprune import tflite as tflite
    from edgeprune import tfmot as tfmot
    from edgeprune import types as types
    from edgeprune.atomic import NotOverwrittenError as NotOverwrittenError
    from edgeprune.bundle.bundle import Bundle as Bundle
    from edgeprune.bundle.bundle import export_bundle as export_bundle
    from edgeprune.bundle.content import Preprocessing as Preprocessing
    from edgeprune.channels.callback import ChannelPruning as ChannelPruning
    from edgeprune.channels.plan.channel_plan import ChannelPlan as ChannelPlan
    from edgeprune.channels.plan.latency_files import write_latency_files as write_latency_files
    from edgeprune.channels.plan.planning import plan_channels as plan_channels
    from edgeprune.channels.plan.planning import prune_channels as prune_channels
    from edgeprune.channels.reconstruct.recalibration import recalibrate_batch_norm as recalibrate_batch_norm
    from edgeprune.channels.reconstruct.report import Reconstruction as Reconstruction
    from edgeprune.data import Data as Data
    from edgeprune.data import load_data as load_data
    from edgeprune.datasets import load_fashion_mnist as load_fashion_mnist
    from edgeprune.dead_channels.removal import remove_dead_channels as remove_dead_channels
    from edgeprune.depth.blocks import BlockPlan as BlockPlan
    from edgeprune.depth.blocks import plan_blocks as plan_blocks
    from edgeprune.depth.blocks import remove_blocks as remove_blocks
    from edgeprune.depth.identity import drop_identity_layers as drop_identity_layers
    from edgeprune.export.convert import export_tflite as export_tflite
    from edgeprune.export.diagnosis import ConversionError as ConversionError
    from edgeprune.export.diagnosis import LoopError as LoopError
    from edgeprune.export.diagnosis import OperatorError as OperatorError
    from edgeprune.export.preprocessing_split import SplitModel as SplitModel
    from edgeprune.export.preprocessing_split import split_preprocessing as split_preprocessing
    from edgeprune.export.result import ExportResult as ExportResult
    from edgeprune.export.verify import Verification as Verification
    from edgeprune.export.verify import verify_tflite as verify_tflite
    from edgeprune.fit.distilling import distill as distill
    from edgeprune.flavor import NotCompiledWarning as NotCompiledWarning
    from edgeprune.flavor import load_model as load_model
    from edgeprune.latency.device_results import read_latency_results as read_latency_results
    from edgeprune.latency.table import LatencyTable as LatencyTable
    from edgeprune.latency.table import read_latency_table as read_latency_table
    from edgeprune.measure.accuracy import accuracy as accuracy
    from edgeprune.measure.latency import Benchmark as Benchmark
    from edgeprune.measure.latency import benchmark as benchmark
    from edgeprune.measure.macs import MacCount as MacCount
    from edgeprune.measure.macs import count_macs as count_macs
    from edgeprune.measure.macs import count_macs_of_file as count_macs_of_file
    from edgeprune.measure.memory import ActivationMemory as ActivationMemory
    from edgeprune.measure.memory import activation_memory as activation_memory
    from edgeprune.measure.metrics import Metric as Metric
    from edgeprune.measure.output_scores import NoScoreError as NoScoreError
    from edgeprune.measure.parameters import ParameterCount as ParameterCount
    from edgeprune.measure.parameters import count_parameters as count_parameters
    from edgeprune.measure.score import Scores as Scores
    from edgeprune.measure.score import score as score
    from edgeprune.measure.size import CompressedSize as CompressedSize
    from edgeprune.measure.size import FileSize as FileSize
    from edgeprune.measure.size import compressed_size as compressed_size
    from edgeprune.measure.size import file_size as file_size
    from edgeprune.measure.tflm import MicroError as MicroError
    from edgeprune.measure.vela import VelaError as VelaError
    from edgeprune.one_shot.planning import plan_weights as plan_weights
    from edgeprune.one_shot.planning import prune_weights as prune_weights
    from edgeprune.one_shot.weight_plan import WeightPlan as WeightPlan
    from edgeprune.quantization.equalization import Equalization as Equalization
    from edgeprune.quantization.equalization import equalize as equalize
    from edgeprune.quantization.evaluation import quantized_evaluation as quantized_evaluation
    from edgeprune.quantization.planning import QuantizationPlan as QuantizationPlan
    from edgeprune.quantization.planning import plan_quantization as plan_quantization
    from edgeprune.quantization.report import QuantizationReport as QuantizationReport
    from edgeprune.quantization.report import quantization_report as quantization_report
    from edgeprune.quantization.rounding import round_weights as round_weights
    from edgeprune.quantization.training import quantize_aware as quantize_aware
    from edgeprune.report.file_errors import QuantizationErrorReport as QuantizationErrorReport
    from edgeprune.report.file_errors import quantization_error as quantization_error
    from edgeprune.report.file_inspection import FileInspection as FileInspection
    from edgeprune.report.file_inspection import inspect_tflite as inspect_tflite
    from edgeprune.report.inspection import Inspection as Inspection
    from edgeprune.report.inspection import inspect as inspect
    from edgeprune.report.model_report import write_report as write_report
    from edgeprune.report.search_report import write_search_report as write_search_report
    from edgeprune.schemes import Scheme as Scheme
    from edgeprune.search.compress import compress as compress
    from edgeprune.search.compress_result import CompressResult as CompressResult
    from edgeprune.search.curves.curves import Sensitivity as Sensitivity
    from edgeprune.search.curves.curves import SensitivityCurve as SensitivityCurve
    from edgeprune.search.curves.sensitivity import sensitivity as sensitivity
    from edgeprune.search.recipe import AppliedRecipe as AppliedRecipe
    from edgeprune.search.recipe import Recipe as Recipe
    from edgeprune.search.recipe import apply_recipe as apply_recipe
    from edgeprune.sparsity.callbacks import PruningSummaries as PruningSummaries
    from edgeprune.sparsity.callbacks import UpdatePruningStep as UpdatePruningStep
    from edgeprune.sparsity.policies import PrunableLayer as PrunableLayer
    from edgeprune.sparsity.policies import PruneForLatencyOnXNNPack as PruneForLatencyOnXNNPack
    from edgeprune.sparsity.policies import PruningPolicy as PruningPolicy
    from edgeprune.sparsity.prune import prune_low_magnitude as prune_low_magnitude
    from edgeprune.sparsity.prune import prune_scope as prune_scope
    from edgeprune.sparsity.prune import pruning_step as pruning_step
    from edgeprune.sparsity.report import SparsityReport as SparsityReport
    from edgeprune.sparsity.report import sparsity_report as sparsity_report
    from edgeprune.sparsity.schedules import ConstantSparsity as ConstantSparsity
    from edgeprune.sparsity.schedules import PolynomialDecay as PolynomialDecay
    from edgeprune.sparsity.schedules import PruningSchedule as PruningSchedule
    from edgeprune.sparsity.xnnpack import XnnpackMiss as XnnpackMiss
    from edgeprune.sparsity.xnnpack import adapt_for_xnnpack as adapt_for_xnnpack
    from edgeprune.sparsity.xnnpack import xnnpack_misses as xnnpack_misses
    from edgeprune.strip import is_pruned as is_pruned
    from edgeprune.strip import strip_pruning as strip_pruning
    from edgeprune.strip import strip_quantization as strip_quantization
    from edgeprune.targets import Target as Target
    from edgeprune.targets import register_target as register_target
    from edgeprune.tflite.file import TfliteFile as TfliteFile
    from edgeprune.tflite.file import read_tflite as read_tflite
    from edgeprune.tflite.metadata import ModelMetadata as ModelMetadata
    from edgeprune.tflite.metadata import TensorMetadata as TensorMetadata
    from edgeprune.tflite.metadata import read_metadata as read_metadata
    from edgeprune.tflite.metadata import write_metadata as write_metadata

__version__ = "0.1.0"

# Each public name and the module that defines it.
_HOME = {
    "ActivationMemory": "edgeprune.measure.memory",
    "AppliedRecipe": "edgeprune.search.recipe",
    "Benchmark": "edgeprune.measure.latency",
    "BlockPlan": "edgeprune.depth.blocks",
    "Bundle": "edgeprune.bundle.bundle",
    "ChannelPlan": "edgeprune.channels.plan.channel_plan",
    "ChannelPruning": "edgeprune.channels.callback",
    "CompressResult": "edgeprune.search.compress_result",
    "CompressedSize": "edgeprune.measure.size",
    "ConstantSparsity": "edgeprune.sparsity.schedules",
    "ConversionError": "edgeprune.export.diagnosis",
    "Data": "edgeprune.data",
    "Equalization": "edgeprune.quantization.equalization",
    "ExportResult": "edgeprune.export.result",
    "FileInspection": "edgeprune.report.file_inspection",
    "FileSize": "edgeprune.measure.size",
    "Inspection": "edgeprune.report.inspection",
    "LatencyTable": "edgeprune.latency.table",
    "LoopError": "edgeprune.export.diagnosis",
    "MacCount": "edgeprune.measure.macs",
    "Metric": "edgeprune.measure.metrics",
    "MicroError": "edgeprune.measure.tflm",
    "ModelMetadata": "edgeprune.tflite.metadata",
    "NoScoreError": "edgeprune.measure.output_scores",
    "NotCompiledWarning": "edgeprune.flavor",
    "NotOverwrittenError": "edgeprune.atomic",
    "OperatorError": "edgeprune.export.diagnosis",
    "ParameterCount": "edgeprune.measure.parameters",
    "PolynomialDecay": "edgeprune.sparsity.schedules",
    "Preprocessing": "edgeprune.bundle.content",
    "PrunableLayer": "edgeprune.sparsity.policies",
    "PruneForLatencyOnXNNPack": "edgeprune.sparsity.policies",
    "PruningPolicy": "edgeprune.sparsity.policies",
    "PruningSchedule": "edgeprune.sparsity.schedules",
    "PruningSummaries": "edgeprune.sparsity.callbacks",
    "QuantizationErrorReport": "edgeprune.report.file_errors",
    "QuantizationPlan": "edgeprune.quantization.planning",
    "QuantizationReport": "edgeprune.quantization.report",
    "Recipe": "edgeprune.search.recipe",
    "Reconstruction": "edgeprune.channels.reconstruct.report",
    "Scheme": "edgeprune.schemes",
    "Scores": "edgeprune.measure.score",
    "Sensitivity": "edgeprune.search.curves.curves",
    "SensitivityCurve": "edgeprune.search.curves.curves",
    "SparsityReport": "edgeprune.sparsity.report",
    "SplitModel": "edgeprune.export.preprocessing_split",
    "Target": "edgeprune.targets",
    "TensorMetadata": "edgeprune.tflite.metadata",
    "TfliteFile": "edgeprune.tflite.file",
    "UpdatePruningStep": "edgeprune.sparsity.callbacks",
    "VelaError": "edgeprune.measure.vela",
    "Verification": "edgeprune.export.verify",
    "WeightPlan": "edgeprune.one_shot.weight_plan",
    "XnnpackMiss": "edgeprune.sparsity.xnnpack",
    "accuracy": "edgeprune.measure.accuracy",
    "activation_memory": "edgeprune.measure.memory",
    "adapt_for_xnnpack": "edgeprune.sparsity.xnnpack",
    "apply_recipe": "edgeprune.search.recipe",
    "benchmark": "edgeprune.measure.latency",
    "compress": "edgeprune.search.compress",
    "compressed_size": "edgeprune.measure.size",
    "count_macs": "edgeprune.measure.macs",
    "count_macs_of_file": "edgeprune.measure.macs",
    "count_parameters": "edgeprune.measure.parameters",
    "distill": "edgeprune.fit.distilling",
    "drop_identity_layers": "edgeprune.depth.identity",
    "equalize": "edgeprune.quantization.equalization",
    "export_bundle": "edgeprune.bundle.bundle",
    "export_tflite": "edgeprune.export.convert",
    "file_size": "edgeprune.measure.size",
    "inspect": "edgeprune.report.inspection",
    "inspect_tflite": "edgeprune.report.file_inspection",
    "is_pruned": "edgeprune.strip",
    "load_data": "edgeprune.data",
    "load_fashion_mnist": "edgeprune.datasets",
    "load_model": "edgeprune.flavor",
    "plan_blocks": "edgeprune.depth.blocks",
    "plan_channels": "edgeprune.channels.plan.planning",
    "plan_quantization": "edgeprune.quantization.planning",
    "plan_weights": "edgeprune.one_shot.planning",
    "prune_channels": "edgeprune.channels.plan.planning",
    "prune_low_magnitude": "edgeprune.sparsity.prune",
    "prune_scope": "edgeprune.sparsity.prune",
    "prune_weights": "edgeprune.one_shot.planning",
    "pruning_step": "edgeprune.sparsity.prune",
    "quantization_report": "edgeprune.quantization.report",
    "quantize_aware": "edgeprune.quantization.training",
    "quantized_evaluation": "edgeprune.quantization.evaluation",
    "quantization_error": "edgeprune.report.file_errors",
    "read_latency_results": "edgeprune.latency.device_results",
    "read_latency_table": "edgeprune.latency.table",
    "read_metadata": "edgeprune.tflite.metadata",
    "read_tflite": "edgeprune.tflite.file",
    "recalibrate_batch_norm": "edgeprune.channels.reconstruct.recalibration",
    "register_target": "edgeprune.targets",
    "remove_blocks": "edgeprune.depth.blocks",
    "remove_dead_channels": "edgeprune.dead_channels.removal",
    "round_weights": "edgeprune.quantization.rounding",
    "score": "edgeprune.measure.score",
    "sensitivity": "edgeprune.search.curves.sensitivity",
    "sparsity_report": "edgeprune.sparsity.report",
    "split_preprocessing": "edgeprune.export.preprocessing_split",
    "strip_pruning": "edgeprune.strip",
    "strip_quantization": "edgeprune.strip",
    "verify_tflite": "edgeprune.export.verify",
    "write_latency_files": "edgeprune.channels.plan.latency_files",
    "write_metadata": "edgeprune.tflite.metadata",
    "write_report": "edgeprune.report.model_report",
    "write_search_report": "edgeprune.report.search_report",
    "xnnpack_misses": "edgeprune.sparsity.xnnpack",
}

# What is less common has a package of its own; `tfmot` is TF-MOT's layout, for its scripts.
_MODULES = (
    "bundle",
    "channels",
    "data",
    "dead_channels",
    "depth",
    "export",
    "measure",
    "one_shot",
    "quantization",
    "report",
    "search",
    "sparsity",
    "tflite",
    "tfmot",
    "types",
)

__all__ = sorted([*_HOME, *_MODULES, "__version__"])

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME, _MODULES)
