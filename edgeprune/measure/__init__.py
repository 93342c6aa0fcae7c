"""Every figure has one home: size, operators, MACs, parameters, latency, accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.measure.latency import Benchmark as Benchmark
    from edgeprune.measure.latency import Latency as Latency
    from edgeprune.measure.latency import benchmark as benchmark
    from edgeprune.measure.machine import Machine as Machine
    from edgeprune.measure.machine import this_machine as this_machine
    from edgeprune.measure.macs import MacCount as MacCount
    from edgeprune.measure.macs import count_macs as count_macs
    from edgeprune.measure.macs import count_macs_of_file as count_macs_of_file
    from edgeprune.measure.memory import ActivationMemory as ActivationMemory
    from edgeprune.measure.memory import LayerMemory as LayerMemory
    from edgeprune.measure.memory import activation_memory as activation_memory
    from edgeprune.measure.metrics import Metric as Metric
    from edgeprune.measure.output_scores import NoScoreError as NoScoreError
    from edgeprune.measure.output_scores import Score as Score
    from edgeprune.measure.output_scores import ScoredOutput as ScoredOutput
    from edgeprune.measure.parameters import LayerParameters as LayerParameters
    from edgeprune.measure.parameters import ParameterCount as ParameterCount
    from edgeprune.measure.parameters import count_parameters as count_parameters
    from edgeprune.measure.score import Scores as Scores
    from edgeprune.measure.size import CompressedSize as CompressedSize
    from edgeprune.measure.size import FileSize as FileSize
    from edgeprune.measure.size import compressed_size as compressed_size
    from edgeprune.measure.size import file_size as file_size
    from edgeprune.measure.tflm import Arena as Arena
    from edgeprune.measure.tflm import MicroError as MicroError
    from edgeprune.measure.tflm import MicroParity as MicroParity
    from edgeprune.measure.tflm import MicroRuntime as MicroRuntime
    from edgeprune.measure.tflm import measure_arena as measure_arena
    from edgeprune.measure.vela import NpuReport as NpuReport
    from edgeprune.measure.vela import VelaError as VelaError
    from edgeprune.measure.vela import compile_for_npu as compile_for_npu
    from edgeprune.tflite.file import Operator as Operator
    from edgeprune.tflite.file import PortTensor as PortTensor
    from edgeprune.tflite.file import TfliteFile as TfliteFile
    from edgeprune.tflite.file import read_tflite as read_tflite
    from edgeprune.tflite.runtime import Port as Port
    from edgeprune.tflite.runtime import Runtime as Runtime
    from edgeprune.tflite.tensors import ConstantTensor as ConstantTensor

# Each public name and the module that defines it.
_HOME = {
    "ActivationMemory": "edgeprune.measure.memory",
    "Arena": "edgeprune.measure.tflm",
    "Benchmark": "edgeprune.measure.latency",
    "CompressedSize": "edgeprune.measure.size",
    "ConstantTensor": "edgeprune.tflite.tensors",
    "FileSize": "edgeprune.measure.size",
    "Latency": "edgeprune.measure.latency",
    "LayerMemory": "edgeprune.measure.memory",
    "LayerParameters": "edgeprune.measure.parameters",
    "MacCount": "edgeprune.measure.macs",
    "Machine": "edgeprune.measure.machine",
    "Metric": "edgeprune.measure.metrics",
    "MicroError": "edgeprune.measure.tflm",
    "MicroParity": "edgeprune.measure.tflm",
    "MicroRuntime": "edgeprune.measure.tflm",
    "NoScoreError": "edgeprune.measure.output_scores",
    "NpuReport": "edgeprune.measure.vela",
    "Operator": "edgeprune.tflite.file",
    "ParameterCount": "edgeprune.measure.parameters",
    "Port": "edgeprune.tflite.runtime",
    "PortTensor": "edgeprune.tflite.file",
    "Runtime": "edgeprune.tflite.runtime",
    "Score": "edgeprune.measure.output_scores",
    "ScoredOutput": "edgeprune.measure.output_scores",
    "Scores": "edgeprune.measure.score",
    "TfliteFile": "edgeprune.tflite.file",
    "VelaError": "edgeprune.measure.vela",
    "activation_memory": "edgeprune.measure.memory",
    "benchmark": "edgeprune.measure.latency",
    "compile_for_npu": "edgeprune.measure.vela",
    "compressed_size": "edgeprune.measure.size",
    "count_macs": "edgeprune.measure.macs",
    "count_macs_of_file": "edgeprune.measure.macs",
    "count_parameters": "edgeprune.measure.parameters",
    "file_size": "edgeprune.measure.size",
    "measure_arena": "edgeprune.measure.tflm",
    "read_tflite": "edgeprune.tflite.file",
    "this_machine": "edgeprune.measure.machine",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
