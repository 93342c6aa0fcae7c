"""What makes the tests of channels quicker."""

import pytest
from tf_keras.src.layers.rnn import gru_lstm_utils


@pytest.fixture(autouse=True)
def no_second_computation_for_gpus(request, monkeypatch):
    """Of each LSTM and GRU tf_keras traces, for seconds, a twin that only GPUs run; one test keeps it."""
    if request.node.originalname != "test_carried_states_lose_the_units_too":
        monkeypatch.setattr(gru_lstm_utils, "function_register", lambda *args, **kwargs: None)
