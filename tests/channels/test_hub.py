"""KerasHub's architectures: half of every group goes, proven, loaded where there is no edgeprune, trained, exported."""

from __future__ import annotations

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
    "HGNetV2 (light, affine)": (),
    "DeepLabV3+": (),
    "BERT classifier": (),
    "ALBERT masked LM": ("mlm_head",),  # a bias for each word
    # A Fourier transform over the width.
    "FNet classifier": ("embedding_projection", "mixing_layer_norm", "output_layer_norm", "output_dense"),
    "CLIP": (),
}


@pytest.fixture(scope="module")
def cuts():
    return {name: cut_in_half(name) for name in KEPT}


@pytest.mark.parametrize("name", KEPT)
def test_half_of_every_group_goes(cuts, name):
    cut = cuts[name]
    row = figures(cut)
    assert row["cut"] >= 4 and row["macs_kept"] < 0.65 and row["parameters_left"] < 0.7 * row["parameters"]
    assert {group.rpartition("/")[2] for group in row["frozen"]} == set(KEPT[name])
    assert prove(cut)["proven"]


def test_the_proof_sees_a_wrong_weight(cuts):
    cut = cuts["BERT classifier"]
    kernel = next(w for w in cut.smaller.weights if "feedforward" in w.path and w.path.endswith("kernel"))
    before = kernel.numpy()
    kernel.assign(before * 1.01)
    assert not prove(cut)["proven"]
    kernel.assign(before)


def test_the_files_load_without_edgeprune(cuts, tmp_path):
    for number, cut in enumerate(cuts.values()):
        (tmp_path / str(number)).mkdir()
        save(cut, tmp_path / str(number))
    found = load_elsewhere([str(tmp_path / str(number)) for number in range(len(cuts))])
    assert {name: loads(one) for name, one in zip(cuts, found, strict=True)} == dict.fromkeys(cuts, "yes")


def test_they_train_and_export(cuts):
    assert export(cuts["BERT classifier"]) == {"exports": "yes"}
    for name in ("MobileNetV3", "BERT classifier"):
        assert train(cuts[name]) == {"trains": "yes"}


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
