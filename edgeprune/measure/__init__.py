"""Every figure has one home: size, operators, MACs, parameters, latency, accuracy."""

from edgeprune.measure.size import compressed_size as compressed_size
