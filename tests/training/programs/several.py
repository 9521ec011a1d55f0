"""Replicas against one device: `python several.py FOLDER CASES` fails where they learn otherwise.

CASES is a JSON list of [variant, choices]; FOLDER takes a checkpoint of the last case.
"""

import json
import sys

import numpy as np
import tensorflow as tf
from test_devices import assert_same_metrics, assert_same_weights, make_state, uneven_batch, weights

from pimms_tf.training import Checkpoints, Objective, make_loss, make_train_step, make_validation_step
from pimms_tf.training.devices import rows_here, strategy
from pimms_tf.training.schedules import constant


def main(folder: str, cases: list) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    found = strategy("mirrored", environ={})
    assert found.num_replicas_in_sync == 2
    assert rows_here(found, 2) == (0, 4)
    for variant, choices in cases:
        learnt = compare(variant, choices, found)
    Checkpoints(folder, learnt.model, learnt.optimizer, learnt.iteration).save()
    alone = make_state(variant, **choices)
    assert Checkpoints(folder, alone.model, alone.optimizer, alone.iteration).restore() == 3
    assert all(np.array_equal(value, weights(learnt)[path]) for path, value in weights(alone).items())


def compare(variant: str, choices: dict, found: tf.distribute.Strategy):
    """Trains on one device and on several, and compares all that they learn; returns the state of the latter."""
    batches = [uneven_batch(seed) for seed in range(3)]
    learnt, measured, checked, first = [], [], [], []
    for where in (tf.distribute.get_strategy(), found):
        with where.scope():
            state = make_state(variant, **choices)
        step = make_train_step(state, make_loss("Dice"), constant(0.5), where, Objective(decay=0.1))
        metrics = [step(batches[0])]
        first.append((weights(state), [variable.numpy() for variable in state.optimizer.variables]))
        measured.append(metrics + [step(batch) for batch in batches[1:]])
        checked.append(make_validation_step(state, make_loss("Dice"), constant(0.5), where)(batches[0]))
        learnt.append(state)
    for one, two in zip(*measured, strict=True):
        assert_same_metrics(one, two)
    # Weights after one step: in later ones rounding may turn a ReLU that is all but 0, and a small gradient with it,
    # which metrics do not show before moving statistics, which fit the batch less well than its own, make more of it.
    assert_same_weights(first[0][0], first[1][0])
    for one, two in zip(first[0][1], first[1][1], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=2e-6)
    assert_same_metrics(*checked, 5e-6)
    return learnt[1]


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
