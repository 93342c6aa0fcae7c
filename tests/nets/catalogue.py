"""All nets by name, once: `NETS["u_net"]`, `built("u_net", "keras")`."""

from nets import image_classifiers, image_map_nets, layer_nets, sequence_nets, vector_nets, wiring_nets  # noqa: F401
from nets.net import NETS, written_in

ARCHITECTURES = {name: net for name, net in NETS.items() if net.prunable is not None}
SMALL_NETS = {name: net for name, net in NETS.items() if net.prunable is None}


def built(name, flavor):
    """A net of the catalogue in one Keras."""
    return NETS[name].build(written_in(flavor))
