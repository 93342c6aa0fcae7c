"""Quantization of a Keras model: training that knows how a file rounds, and what makes files in integers better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.quantization.calibration import calibrate as calibrate
    from edgeprune.quantization.equalization import Equalization as Equalization
    from edgeprune.quantization.equalization import EqualizedChannels as EqualizedChannels
    from edgeprune.quantization.equalization import equalize as equalize
    from edgeprune.quantization.evaluation import quantized_evaluation as quantized_evaluation
    from edgeprune.quantization.planning import PlannedLayer as PlannedLayer
    from edgeprune.quantization.planning import QuantizationPlan as QuantizationPlan
    from edgeprune.quantization.planning import plan_quantization as plan_quantization
    from edgeprune.quantization.report import QuantizationReport as QuantizationReport
    from edgeprune.quantization.report import RoundedActivation as RoundedActivation
    from edgeprune.quantization.report import RoundedKernel as RoundedKernel
    from edgeprune.quantization.report import quantization_report as quantization_report
    from edgeprune.quantization.rounding import round_weights as round_weights
    from edgeprune.quantization.training import quantize_aware as quantize_aware

# Each public name and the module that defines it.
_HOME = {
    "Equalization": "edgeprune.quantization.equalization",
    "EqualizedChannels": "edgeprune.quantization.equalization",
    "PlannedLayer": "edgeprune.quantization.planning",
    "QuantizationPlan": "edgeprune.quantization.planning",
    "QuantizationReport": "edgeprune.quantization.report",
    "RoundedActivation": "edgeprune.quantization.report",
    "RoundedKernel": "edgeprune.quantization.report",
    "calibrate": "edgeprune.quantization.calibration",
    "equalize": "edgeprune.quantization.equalization",
    "plan_quantization": "edgeprune.quantization.planning",
    "quantization_report": "edgeprune.quantization.report",
    "quantize_aware": "edgeprune.quantization.training",
    "quantized_evaluation": "edgeprune.quantization.evaluation",
    "round_weights": "edgeprune.quantization.rounding",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
