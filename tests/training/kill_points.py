"""Saves checkpoints in processes of which each is killed just before another of its changes to files.

`python kill_points.py FOLDER` leaves FOLDER/0, 1, 2, … as the killed processes left them; `test_checkpoints` looks at
them. Every process starts from the same folder, in which checkpoint 2 is the latest, and saves 2 again, 3 and 4, of
which two are to be kept. All weights of one save are equal: 10 for those of before, else the iteration.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import keras
import tensorflow as tf

from pimms_tf.training.checkpoints import Checkpoints

_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "tempfile.mkdtemp"}


def save(folder: Path, weights: dict[int, float]) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    iteration = tf.Variable(0, dtype=tf.int64)
    checkpoints = Checkpoints(folder, model, None, iteration, max_to_keep=2)
    for number, value in weights.items():
        iteration.assign(number)
        for variable in model.variables:
            variable.assign(tf.fill(variable.shape, value))
        checkpoints.save()


def killed_at(point: int, folder: Path) -> None:
    """Ends this process before its change of that number to files in the folder."""
    left = point

    def look(event: str, arguments: tuple) -> None:
        nonlocal left
        reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _CHANGES and not reads and str(arguments[0]).startswith(str(folder)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(look)


def in_a_process(work) -> bool:
    """Returns whether the process came to its end."""
    # TensorFlow is imported once, and starts its threads in the children alone.
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a process failed")
    return os.WIFEXITED(status)


def main(root: Path) -> None:
    start = root / "start"
    in_a_process(lambda: save(start, {1: 10.0, 2: 10.0}))
    for point in range(1000):
        folder = root / str(point)
        shutil.copytree(start, folder)

        def work(point: int = point, folder: Path = folder) -> None:
            killed_at(point, folder)
            save(folder, {2: 2.0, 3: 3.0, 4: 4.0})

        if in_a_process(work):
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
