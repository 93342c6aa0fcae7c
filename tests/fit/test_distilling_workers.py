"""Distillation under a strategy in processes of its own: collectives of two models in one process would clash."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
import numpy as np, tensorflow as tf
from edgeprune import flavor
import edgeprune as ep
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2]))
strategies = {
    "none": tf.distribute.get_strategy,
    "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    "workers": tf.distribute.MultiWorkerMirroredStrategy,
}
strategy = strategies[sys.argv[1]]()
keras = flavor.keras_module(sys.argv[3])
x = np.random.default_rng(0).normal(size=(48, 5)).astype("f4")
y = (x[:, 0] > 0).astype(int)
def net(width):
    keras.utils.set_random_seed(width)
    layers = [keras.Input((5,)), keras.layers.Dense(width, "tanh"), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
with strategy.scope():
    teacher, student = net(8), net(4)
try:
    ep.distill(student, teacher, x, y, epochs=3, batch_size=48)
    figures = {name: values[-1] for name, values in student.history.history.items()}
    print(json.dumps({"replicas": strategy.num_replicas_in_sync, **figures, "weights": [
        float(np.abs(weight).sum()) for weight in student.get_weights()]}))
except ValueError as error:
    print(json.dumps({"error": str(error)}))
"""


def start(strategy, flavor, replicas=1, environment=None):
    command = [sys.executable, "-c", PROGRAM, strategy, str(replicas), flavor]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})


def said(process):
    text, _ = process.communicate(timeout=300)
    return json.loads(text.splitlines()[-1])


def free_ports(count):
    with_ports = [socket.socket() for _ in range(count)]
    for one in with_ports:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_ports]
    for one in with_ports:
        one.close()
    return ports


def two_workers(flavor):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    started = []
    for number in range(2):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
        started.append(start("workers", flavor, environment={"TF_CONFIG": json.dumps(cluster)}))
    return [said(process) for process in started]


def assert_equal(found, whole, replicas):
    assert found == {name: pytest.approx(value, rel=1e-4) for name, value in {**whole, "replicas": replicas}.items()}


def test_two_replicas_learn_what_one_process_does():
    whole = said(start("none", "keras"))
    assert whole.keys() == {"replicas", "loss", "student_loss", "distillation_loss", "accuracy", "weights"}
    assert_equal(said(start("mirrored", "keras", 2)), whole, 2)


def test_two_workers_learn_what_one_process_does():
    whole = said(start("none", "tf_keras"))
    for found in two_workers("tf_keras"):
        assert_equal(found, whole, 2)


def test_keras_3_with_several_workers_is_refused_before_it_trains():
    for found in two_workers("keras"):
        assert (
            "The fit of Keras 3 itself fails under a MultiWorkerMirroredStrategy of several workers" in found["error"]
        )
        assert "make it of tf_keras, or under a MirroredStrategy" in found["error"]
