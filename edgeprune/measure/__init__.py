"""Every figure has one home: size, operators, MACs, parameters, latency, accuracy."""
