"""Whether a figure can tell models apart, judged on outputs."""

import numpy as np
import pytest

from edgeprune.search.judge import Judge, check_varies


def judge(score, outputs):
    return Judge("figure", True, score(outputs), score, lambda rows: None, lambda made: None)


def test_a_model_of_one_class_alone_is_not_a_constant_figure():
    labels = np.arange(30) % 10
    one_class = {"out": np.eye(10, dtype=np.float32)[np.full(30, 4)]}
    check_varies(judge(lambda made: float(np.mean(made["out"].argmax(1) == labels)), one_class), one_class)


def test_a_constant_figure_is_refused():
    outputs = {"out": np.eye(10, dtype=np.float32)[np.arange(30) % 10]}
    with pytest.raises(ValueError, match="figure is 0.5 whatever the model computes"):
        check_varies(judge(lambda made: 0.5, outputs), outputs)
