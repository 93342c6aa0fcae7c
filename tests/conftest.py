"""What every test may use: quiet TensorFlow, seeded randomness, both Kerases, images."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tests state what the CPU computes
# Tiny nets on one thread each: two processes of several would wait for each other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from elsewhere import Elsewhere

from edgeprune import flavor as flavors


@pytest.fixture(params=[flavors.KERAS_3, flavors.TF_KERAS])
def flavor(request) -> str:
    """The name of one Keras; a test that takes it runs once for each."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of random numbers that starts the same in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def sample():
    """The embedded sample as a model takes it: `(x_train, y_train), (x_test, y_test)`, float32 in 0..1."""
    from edgeprune.datasets import load_fashion_mnist

    return tuple((x[..., None].astype(np.float32) / 255, y) for x, y in load_fashion_mnist())


@pytest.fixture(scope="session")
def elsewhere():
    """A process without edgeprune that loads models."""
    process = Elsewhere()
    yield process
    process.close()


@pytest.fixture(scope="module", autouse=True)
def garbage_of_this_file_alone():
    """TensorFlow collects garbage whenever it writes a SavedModel; what was there before a file's tests is left out."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_second_computation_for_gpus(request, monkeypatch):
    """Of each LSTM and GRU tf_keras traces, for seconds, a twin that only GPUs run; one test keeps it."""
    if getattr(request.node, "originalname", "") != "test_carried_states_lose_the_units_too":
        from tf_keras.src.layers.rnn import gru_lstm_utils

        monkeypatch.setattr(gru_lstm_utils, "function_register", lambda *args, **kwargs: None)


@pytest.fixture
def two_replicas():
    """A strategy over two logical CPUs. Its collectives would clash with those of another model in this process."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())


# Files that take long, by their CPU time (over 10 s); they begin first, so that at the end no process waits long for
# the other's last file.
LONGEST = (
    *("channels/test_callback", "sparsity/test_prune", "channels/test_rebuild", "export/test_quantize_aware"),
    *("search/test_compress", "export/test_convert", "bundle/test_microcontroller", "channels/test_recurrent"),
    *("test_docs", "channels/test_architectures", "channels/test_limited", "depth/test_blocks", "export/test_verify"),
    *("sparsity/test_resume", "export/test_recurrent", "channels/test_states", "sparsity/test_prune_loops"),
    *("fit/test_distilling", "sparsity/test_xnnpack", "cli/test_refusals", "cli/test_commands"),
    *("channels/test_time_distributed", "dead_channels/test_removal", "bundle/test_npu", "channels/test_plan"),
    *("channels/test_composite", "channels/test_composite_tf_keras"),
    *("cli/test_terminal", "cli/test_tasks", "test_demo"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Whole files, the longest first; what lies above `flavor` runs with tf_keras among the slow tests."""
    for item in items:
        above = item.get_closest_marker("above_flavor") is not None
        if above and item.callspec.params["flavor"] == flavors.TF_KERAS:
            item.add_marker("slow")
    here = Path(__file__).parent
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(str(item.path.relative_to(here).with_suffix("")), len(order)))


def pytest_configure(config):
    """Two logical CPUs, which MirroredStrategy needs; only possible before TensorFlow starts."""
    gc.set_threshold(50_000, 20, 100)  # TensorFlow and both Kerases make a million objects that stay
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
