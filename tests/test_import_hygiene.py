"""Importing or using edgeprune never changes what `tf.keras` or `keras` means in the user's process.

Each case is a process of its own, which imports packages in one order and uses edgeprune right after importing it.
"""

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

HEAVY = ("tensorflow", "tensorflow_model_optimization", "tf_keras", "keras", "matplotlib", "ai_edge_litert")
PACKAGES = ("keras", "tensorflow", "tf_keras", "edgeprune")

SCRIPT = """
import importlib, json, os, sys
heavy, order = json.loads(sys.argv[1])
report = {}
for name in order:
    before = set(sys.modules)
    package = importlib.import_module(name)
    if name == "edgeprune":
        report["brought"] = [h for h in heavy if h in sys.modules and h not in before]
        package.prune_low_magnitude, package.ConstantSparsity(0.5, 0), package.UpdatePruningStep
        import edgeprune.sparsity.policies
        report["used"] = "tensorflow_model_optimization" in sys.modules
import keras, tensorflow, tf_keras
report["tf.keras"] = tensorflow.keras.layers.Dense.__module__.partition(".")[0]
report["keras"] = keras.layers.Dense.__module__.partition(".")[0] + keras.__version__[0]
report["tf_keras"] = tf_keras.layers.Dense.__module__.partition(".")[0] + tf_keras.__version__[0]
report["variable"] = os.environ.get("TF_USE_LEGACY_KERAS")
print(json.dumps(report))
"""

# The order of imports, and TF_USE_LEGACY_KERAS. What is not named is imported after edgeprune was used.
# Each takes the seconds that TensorFlow takes to start: here edgeprune comes first and last; all are in the slow test.
CASES = [(("edgeprune",), "1"), (("keras", "tf_keras", "tensorflow", "edgeprune"), None)]
EVERY_CASE = [*itertools.product(itertools.permutations(PACKAGES), (None, "1")), (("edgeprune",), "0")]


def run(case):
    order, variable = case
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    if variable is not None:
        environment["TF_USE_LEGACY_KERAS"] = variable
    arguments = [sys.executable, "-c", SCRIPT, json.dumps([HEAVY, order])]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(case, report):
    _, variable = case
    assert report == {
        "brought": [],
        "used": True,
        "tf.keras": "tf_keras" if variable == "1" else "keras",
        "keras": "keras3",
        "tf_keras": "tf_keras2",
        "variable": variable,
    }


@pytest.fixture(scope="module")
def reports():
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(run, CASES), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{'-'.join(case[0])}, {case[1]}")
def test_the_meaning_of_keras_stays(case, reports):
    check(case, reports[case])


@pytest.mark.slow
def test_the_meaning_of_keras_stays_in_every_order():
    with ThreadPoolExecutor(2) as pool:
        for case, report in zip(EVERY_CASE, pool.map(run, EVERY_CASE), strict=True):
            check(case, report)
