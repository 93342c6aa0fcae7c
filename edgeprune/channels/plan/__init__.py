"""From a graph of channels to the decision which of them go: importance, limits, search, and the plan as a file."""
