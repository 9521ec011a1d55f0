"""Training on two replicas: `python two_replicas.py FOLDER equal|normalised` fails if one learns otherwise."""

import sys

import numpy as np
import tensorflow as tf
from test_loop import make_batch, make_state, same, stored, train_step, weights

from pimms_tf.pipeline.trays import Batch
from pimms_tf.training import Objective


def two_replicas() -> tf.distribute.Strategy:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def equal(strategy: tf.distribute.Strategy) -> None:
    """Each replica has half of a batch; losses and weights are those of one device with the whole of it."""
    spread = strategy.experimental_distribute_values_from_function
    batches = [make_batch(number, num=4) for number in range(3)]
    alone = make_state("hemis", norm="none", optimiser="momentum")
    step = train_step(alone, objective=Objective(decay=0.1))
    expected = [step(batch) for batch in batches]

    with strategy.scope():
        both = make_state("hemis", norm="none", optimiser="momentum")
    step = train_step(both, strategy=strategy, objective=Objective(decay=0.1))
    for batch, one in zip(batches, expected, strict=True):
        halves = [Batch(*(part[:2] for part in batch)), Batch(*(part[2:] for part in batch))]
        two = step(spread(lambda context, halves=halves: halves[context.replica_id_in_sync_group]))
        for field in ("total_loss", "segmentation_loss", "penalty"):
            difference = abs(float(getattr(one, field)) - float(getattr(two, field)))
            assert difference < 1e-6, (field, difference)
    assert int(both.iteration.numpy()) == 3
    for path, value in weights(alone).items():
        difference = np.abs(weights(both)[path] - value).max()
        assert difference < 1e-6, (path, difference)


def normalised(strategy: tf.distribute.Strategy, folder: str) -> None:
    """A model with batch normalisation takes a step on two replicas, and one device goes on with what they saved."""
    spread = strategy.experimental_distribute_values_from_function
    with strategy.scope():
        both = make_state("online")
    metrics = train_step(both, strategy=strategy)(spread(lambda context: make_batch(context.replica_id_in_sync_group)))
    assert np.isfinite(float(metrics.total_loss))
    np.testing.assert_array_equal(metrics.confusion.numpy().sum(axis=1), [4, 4])
    stored(both, folder).save()
    alone = make_state("online", seed=3)
    assert stored(alone, folder).restore() == 1
    assert same(weights(alone), weights(both))


if __name__ == "__main__":
    if sys.argv[2] == "equal":
        equal(two_replicas())
    else:
        normalised(two_replicas(), sys.argv[1])
