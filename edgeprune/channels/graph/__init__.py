"""From a model to its graph of channels: ids, the rules of the layers, the walk, and what comes out of it."""
