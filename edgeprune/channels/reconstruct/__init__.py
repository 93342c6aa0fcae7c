"""What reads removed channels is solved again on data, so that the smaller model computes what the original did."""
