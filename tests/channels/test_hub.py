"""KerasHub's architectures: half of every group goes, proven, loaded where there is no edgeprune, trained, exported."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from hub_coverage import EXPECTED, cut_in_half, export, figures, load_elsewhere, loads, prove, save, train
from hub_nets import NETS

from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan

# To the groups that stay besides those of inputs and outputs.
KEPT = {
    "EfficientNetV2": (),
    "MobileNetV3": (),
    "BERT classifier": (),
    "ALBERT masked LM": ("mlm_head",),  # a bias for each word
    # A Fourier transform over the width.
    "FNet classifier": ("embedding_projection", "mixing_layer_norm", "output_layer_norm", "output_dense"),
    "HGNetV2 (light, affine)": (),
    "DeepLabV3+": (),
    "CLIP": (),
}
# Their parts are in quick tests: scales and shifts of one channel, dilated branches, a product of two towers, and
# inverted residuals with squeeze and excitation, which MobileNetV3 has too.
LARGE = ("HGNetV2 (light, affine)", "DeepLabV3+", "CLIP", "EfficientNetV2")
SMALL = tuple(name for name in KEPT if name not in LARGE)


@pytest.fixture(scope="module")
def cut_of():
    """A net cut in half, by its name."""
    return functools.cache(cut_in_half)


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_half_of_every_group_goes(cut_of, name):
    cut = cut_of(name)
    row = figures(cut)
    assert row["cut"] >= 4 and row["macs_kept"] < 0.65 and row["parameters_left"] < 0.7 * row["parameters"]
    assert {group.rpartition("/")[2] for group in row["frozen"]} == set(KEPT[name])
    assert prove(cut)["proven"]


def test_the_proof_sees_a_wrong_weight(cut_of):
    cut = cut_of("BERT classifier")
    kernel = next(w for w in cut.smaller.weights if "feedforward" in w.path and w.path.endswith("kernel"))
    before = kernel.numpy()
    kernel.assign(before * 1.01)
    assert not prove(cut)["proven"]
    kernel.assign(before)


@pytest.mark.slow
@pytest.mark.parametrize("names", [SMALL, LARGE], ids=["small", "large"])
def test_the_files_load_without_edgeprune(cut_of, names, tmp_path):
    folders = [tmp_path / str(number) for number in range(len(names))]
    for name, folder in zip(names, folders, strict=True):
        folder.mkdir()
        save(cut_of(name), folder)
    found = load_elsewhere([*map(str, folders)])
    assert {name: loads(one) for name, one in zip(names, found, strict=True)} == dict.fromkeys(names, "yes")


def test_they_train_and_export(cut_of):
    assert export(cut_of("BERT classifier")) == {"exports": "yes"}
    for name in ("MobileNetV3", "BERT classifier"):
        assert train(cut_of(name)) == {"trains": "yes"}


def test_texts_of_any_length():
    model = NETS["DistilBERT classifier"].build()
    graph = trace(model)
    assert all(reason.startswith(EXPECTED) for reason in graph.frozen.values())
    kept = graph.full_mask()
    for group in graph.groups:
        kept[group.classes[1::2]] = group.frozen is not None
    plan = ChannelPlan(graph, kept)
    assert plan.verify().passed
    smaller = plan.apply(verify=False)
    for length in (3, 9):
        words = {"token_ids": np.ones((2, length), int), "padding_mask": np.ones((2, length), int)}
        assert np.isfinite(smaller(words)).all()
