"""The callbacks are callbacks of both Kerases, by class and in what their `fit` calls."""

import numpy as np
import pytest
import tensorflow as tf
from nets.pruned_nets import compiled, dense_net, fit

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.callback import ChannelPruning

KERASES = [flavors.keras_module(name).callbacks for name in ("keras", "tf_keras")]


def tags(folder):
    """The names of all that was written to the event files of a folder."""
    found = set()
    for file in folder.glob("events*"):
        for record in tf.data.TFRecordDataset(str(file)):
            found |= {value.tag for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value}
    return found


@pytest.mark.parametrize("callbacks", KERASES, ids=["keras", "tf_keras"])
def test_the_callbacks_are_of_both_kerases(callbacks, tmp_path):
    summaries = ep.PruningSummaries(str(tmp_path))
    assert isinstance(summaries, callbacks.TensorBoard) and issubclass(ep.PruningSummaries, callbacks.Callback)
    assert isinstance(ep.UpdatePruningStep(), callbacks.Callback)
    assert issubclass(ChannelPruning, callbacks.Callback)
    assert not isinstance(ep.UpdatePruningStep(), callbacks.TensorBoard)


def test_summaries_are_tensorboards_own_and_pass_its_arguments_on(flavor, tmp_path):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=1)))
    summaries = ep.PruningSummaries(
        str(tmp_path), histogram_freq=1, write_graph=False, profile_batch=0, write_steps_per_second=True
    )
    fit(model, callbacks=[summaries], validation_split=0.2)
    written = tags(tmp_path / "train")
    assert {"epoch_loss", "epoch_steps_per_second"} <= written and "keras" not in written
    assert sum(tag.endswith("histogram") or "kernel" in tag for tag in written) >= 2
    assert "epoch_loss" in tags(tmp_path / "validation")
    assert sum(tag.endswith("/sparsity") for tag in tags(tmp_path / "metrics")) == 3
    with pytest.raises(TypeError, match="no_such_argument"):
        ep.PruningSummaries(str(tmp_path), no_such_argument=1)


def test_subclasses_see_every_step_and_write_to_the_same_files(flavor, tmp_path):
    class Steps(ep.UpdatePruningStep):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            self.seen += 1

    class Norms(ep.PruningSummaries):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            with self._train_writer.as_default():
                tf.summary.scalar("norm", np.linalg.norm(self.model.get_weights()[0]), step=epoch)
            with self._val_writer.as_default():
                tf.summary.scalar("held_out", 1.0, step=epoch)

    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=1)))
    steps, norms = Steps(), Norms(log_dir=str(tmp_path))
    x, y = np.zeros((40, 12), "float32"), np.zeros(40)
    model.fit(x, y, batch_size=10, epochs=2, verbose=0, callbacks=[steps, norms])
    assert steps.seen == 8
    assert {"norm", "epoch_loss"} <= tags(tmp_path / "train")
    assert "held_out" in tags(tmp_path / "validation")


def test_a_list_of_callbacks_of_either_keras_calls_them(flavor, tmp_path):
    """As in training loops that are written with `CallbackList`."""
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=1)))
    callbacks = flavors.keras_of(model).callbacks.CallbackList(
        [ep.UpdatePruningStep(), ep.PruningSummaries(str(tmp_path))], model=model
    )
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(3):
        callbacks.on_train_batch_begin(batch)
        model.train_on_batch(np.ones((8, 12), "float32"), np.zeros(8))
        callbacks.on_train_batch_end(batch, {"loss": 1.0})
    callbacks.on_epoch_end(0, {"loss": 1.0})
    callbacks.on_train_end()
    kernels = [weight for weight in ep.strip_pruning(model).get_weights() if weight.ndim == 2]
    assert all(np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01) for kernel in kernels)
    assert "epoch_loss" in tags(tmp_path / "train")
