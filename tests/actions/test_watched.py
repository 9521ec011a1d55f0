"""What training says of its windows."""

import numpy as np
import pytest

from pimms_tf.actions.watched import WatchedBatches
from pimms_tf.pipeline.trays import Batch


def batches(*classes):
    """One batch with two windows of each class, all of it."""
    for number in classes:
        scans = np.ones((2, 4, 4, 3), np.float32)
        yield Batch(scans, np.ones((2, 3), bool), np.zeros((2, 3), np.int32), np.full((2, 4, 4), number, np.int32))


@pytest.mark.parametrize(
    ("seen", "num_classes", "says"),
    [
        ((0, 0), 2, "no window of 2 batches has any foreground, so that only background is learnt"),
        ((0, 1), 3, "no window of 2 batches has class 2: check the labels"),
        ((0,) * 50, 2, "no window of 50 batches has any foreground"),
    ],
)
def test_classes_that_never_come_are_named_once(caplog, seen, num_classes, says):
    watched = WatchedBatches(batches(*seen), num_classes)
    assert len(list(watched)) == len(seen)
    watched.say_classes()
    assert [says in record.message for record in caplog.records if record.levelname == "WARNING"] == [True]


@pytest.mark.parametrize(("seen", "num_classes"), [((0, 1), 2), ((0, 0), 0), ((), 2)])
def test_nothing_is_said_where_all_came_or_nobody_looks(caplog, seen, num_classes):
    watched = WatchedBatches(batches(*seen), num_classes)
    list(watched)
    watched.say_classes()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
