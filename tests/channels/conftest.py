"""What makes the tests of channels quicker."""

import pytest
from tf_keras.src.layers.rnn import gru_lstm_utils


@pytest.fixture(autouse=True)
def no_second_computation_for_gpus(request, monkeypatch):
    """Of each LSTM and GRU tf_keras traces, for seconds, a twin that only GPUs run; test_states.py keeps it."""
    if request.path.stem != "test_states":
        monkeypatch.setattr(gru_lstm_utils, "function_register", lambda *args, **kwargs: None)
