"""From a plan to a smaller plain model, and the proof that it computes what it should."""
