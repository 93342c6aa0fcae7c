"""Channel removal: trace a model's channels, score them, plan which go, rebuild a smaller plain model."""
