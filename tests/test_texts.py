"""Models that take texts, whose vocabulary is learned: tf_keras lists it among the weights, and it is no variable."""

import numpy as np
import pytest
import tensorflow as tf
from nets.text_nets import LABELS, SENTENCES, WORDS, sentence_classifier, word_classifier

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.search import read_search

TEXTS = pytest.mark.parametrize(
    ("make", "x"), [(word_classifier, WORDS), (sentence_classifier, SENTENCES)], ids=["words", "sentences"]
)


@TEXTS
def test_a_plan_counts_what_is_left_of_the_variables(flavor, make, x):
    model = make(flavor)
    plan = ep.plan_channels(model, target_params=0.5)
    assert plan.params.after < plan.params.before == sum(np.size(one) for one in flavors.weight_values(model))
    assert "hidden" in str(plan) and len(plan.kept) == len(model.weights)
    assert str(ep.channels.ChannelPlan.from_json(model, plan.to_json())) == str(plan)


@TEXTS
@pytest.mark.parametrize("kind", ["channels", "weights"])
def test_what_is_left_is_solved_on_texts(flavor, make, x, kind):
    model = make(flavor)
    if kind == "channels":
        smaller = ep.plan_channels(model, pruning_ratio=0.5).apply(reconstruct=x)
        assert smaller.count_params() < model.count_params()
    else:
        smaller = ep.prune_weights(model, sparsity=0.5, reconstruct=x)
        assert ep.sparsity_report(smaller).sparsity == pytest.approx(0.5, abs=0.1)
    assert not np.isnan(flavors.weight_values(smaller)[-1]).any()


@TEXTS
def test_sensitivity_and_inspection(flavor, make, x):
    model = make(flavor)
    assert "hidden" in str(ep.sensitivity(model, (x, LABELS), levels=[0.5]))
    assert "hidden" in str(ep.inspect(model))


@TEXTS
@pytest.mark.parametrize("kind", [np.str_, np.bytes_, object])
def test_a_student_learns_from_texts_of_every_kind(flavor, make, x, kind):
    student, teacher = make(flavor), make(flavor)
    ep.distill(student, teacher, x.astype(kind), LABELS, epochs=1)
    assert np.isfinite(student.history.history["loss"]).all()


def test_a_student_and_its_teacher_may_share_a_vocabulary(flavor):
    teacher = word_classifier(flavor)
    lookup = teacher.layers[1]
    keras = flavors.keras_module(flavor)
    x = keras.Input((2,), dtype="string")
    small = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Embedding(8, 2)(lookup(x))))
    student = keras.Model(x, small)
    ep.distill(student, teacher, WORDS, epochs=1)
    assert student.history.epoch == [0]


def test_a_search_trains_and_writes_a_model_of_words(flavor, tmp_path):
    data = WORDS, LABELS
    result = ep.compress(
        word_classifier(flavor),
        data,
        data,
        max_accuracy_drop=1.0,
        quantization="dynamic",
        epochs=1,
        num_trials=6,
        num_finalists=1,
        bundle=False,
        output_dir=tmp_path,
    )
    assert [trial.state for trial in result.trials if trial.stage == "measured"].count("ok") >= 2
    assert result.model(tf.constant(WORDS[:1])).shape == (1, 2)


def test_bits_are_not_planned_for_inputs_of_strings(flavor):
    with pytest.raises(ValueError, match=r"inputs of strings, 'texts'.* pass split\.rest of"):
        ep.plan_quantization(word_classifier(flavor), WORDS)
    with pytest.raises(ValueError, match=r"inputs of strings, 'texts'.* pass split\.rest of"):
        ep.plan_channels(word_classifier(flavor), target_latency=0.5, quantization="int8")


def test_a_search_of_what_no_file_can_hold_ends_at_once_and_leaves_its_folder(flavor, tmp_path):
    options = {"max_accuracy_drop": 1.0, "epochs": 0, "bundle": False, "output_dir": tmp_path}
    words = word_classifier(flavor)
    with pytest.raises(ValueError, match=r"inputs of strings, 'texts'.*split_preprocessing\(model\), split\.rest"):
        ep.compress(words, None, (WORDS, LABELS), quantization="int8", **options)
    assert len(read_search(tmp_path).trials) == 1  # the original, and nothing after it
    sentences = sentence_classifier(flavor)
    with pytest.raises(ValueError, match=r"RaggedTensorToTensor.*before the model \('text_vectorization[_0-9]*'\)"):
        ep.compress(sentences, None, (SENTENCES, LABELS), quantization="dynamic", **options)
    split = ep.split_preprocessing(sentences)
    numbers = split.preprocess({"texts": SENTENCES})
    result = ep.compress(split.rest, None, (numbers, LABELS), quantization="dynamic", num_trials=2, **options)
    assert result.path is not None
