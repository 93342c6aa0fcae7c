"""Which trials are asked for: the guided search, Optuna's samplers, and who is trained to the end."""
