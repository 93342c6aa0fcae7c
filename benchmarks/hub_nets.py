"""Small configurations of the architectures of KerasHub, with random weights and without presets.

    NETS["BERT classifier"].build()

Each is the task where KerasHub has one for the architecture (so that the residual width is no output of the model),
else the backbone alone. Those that only make images or sound are left out.
"""

from __future__ import annotations

import hub_images  # noqa: F401 (adds its nets)
import hub_pairs  # noqa: F401
import hub_segmenters  # noqa: F401
import hub_texts  # noqa: F401
from hub_net import NETS, WORDS, of_fixed_length

__all__ = ["NETS", "WORDS", "of_fixed_length"]
