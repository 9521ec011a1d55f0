"""Six iterations, and a training that goes on from the third: `python resumed.py FOLDER` fails if they differ."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from test_loop import Recorded, make_state, run, same, stored, train_step, weights

from pimms_tf.training import Intervals


def main(folder: Path) -> None:
    # Several threads would add up in an order of their own.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    straight, resumed = make_state(), make_state(seed=5)
    reports, again = Recorded(), Recorded()
    run(straight, folder, 6, Intervals(save=3), train_step(straight), report=reports.append)
    assert stored(resumed, folder / "models").restore(3) == 3
    run(resumed, folder / "again", 6, step=train_step(resumed), report=again.append)
    assert again.losses() == reports.losses()[3:], (again.losses(), reports.losses())
    assert same(weights(straight), weights(resumed))
    for one, other in zip(straight.optimizer.variables, resumed.optimizer.variables, strict=True):
        assert np.array_equal(one.numpy(), other.numpy()), one.path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
