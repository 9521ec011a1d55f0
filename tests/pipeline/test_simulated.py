"""Training windows from subjects that are simulated while the network trains, without a file."""

from functools import partial

import numpy as np
import pytest

from pimms_tf.data import uniform_locations
from pimms_tf.pipeline.batches import training_batches
from pimms_tf.simulation import Hospital, Protocol, Simulator, packaged_head

T1 = Protocol("T1", "spin echo", 1.5, 500.0, 12.0)
FLAIR = Protocol("FLAIR", "inversion recovery", 1.5, 9000.0, 120.0, 2450.0)
BOTH = Hospital("both", (FLAIR, T1), "stripped", (2.0, 2.0, 4.0))
ONE = Hospital("one", (FLAIR,), "stripped", (2.0, 2.0, 2.0))


def locate(subject, rng: np.random.Generator) -> np.ndarray:
    return uniform_locations(subject.scans.shape[:3], (40, 40, 1), 3, rng)


@pytest.mark.slow
def test_batches_are_cut_from_subjects_that_no_disk_has_seen_and_do_not_depend_on_threads():
    simulator = Simulator(
        (BOTH, ONE), (packaged_head(np.random.default_rng(0)),), seed=4, load_ml=(10, 30), num_slices=4
    )
    make = partial(training_batches, range(1000), simulator.subject, None, locate, 3, 7, drop=False, max_slots=2)
    one, same = (list(make(num_threads, num_batches=2)) for num_threads in (1, 3))
    for batch, again in zip(one, same, strict=True):
        np.testing.assert_array_equal(batch.scans.numpy(), again.scans.numpy())
        assert batch.scans.shape == (3, 40, 40, 2)
        assert np.isfinite(batch.scans.numpy()).all()
        for valid, modality in zip(batch.valid.numpy(), batch.modality.numpy(), strict=True):
            assert modality[valid].tolist() in ([2, 0], [2])
