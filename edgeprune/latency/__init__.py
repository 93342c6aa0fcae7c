"""The time of a model at any widths, from its operators' times on a device; and widths chosen within limits."""
