"""What surrounds the work of every command: logs, exit codes, devices, TensorFlow."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from niftynet_compat import Config
from niftynet_compat.runs.console import RunLog
from pimms_tf.actions.stopping import INTERRUPTED
from pimms_tf.errors import InputError
from pimms_tf.study.task import task_of

_QUIET = ("absl", "tensorflow", "h5py", "matplotlib", "highdicom", "pydicom")  # loggers of which only errors are of use
# What TensorFlow and Keras import if it is there, for converters and plots of theirs: a third of the time they take.
_NOT_NEEDED = ("jax", "matplotlib")
_BROKEN_PIPE = 141  # 128 + SIGPIPE


def guarded(
    console: logging.Handler, work: Callable[[], int], complain: Callable[[InputError, Exception | None], int]
) -> int:
    """Runs `work` with logs to the console and to the log file of the run; returns the exit code.

    `complain` turns a mistake into one; it also gets the exception that stands behind it, if that is another.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the console cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    file = RunLog()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console, file], force=True)
    logging.captureWarnings(True)
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        code = work()
        sys.stdout.flush()
        return code
    except InputError as error:
        return complain(error, None)
    except BrokenPipeError:
        return _leave_broken_pipe()
    except OSError as error:
        if error.filename is None:
            raise
        return complain(InputError(f"{error.filename}: {error.strerror}"), error)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        logging.getLogger().removeHandler(file)
        file.close()


def _leave_broken_pipe() -> int:
    """Returns the exit code for a reader of the output, such as `head`, that has had enough."""
    # Python would complain again when it flushes.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE


def announce(config: Config) -> None:
    """Says what is remarkable about a configuration, refuses what no run can have, and chooses devices.

    All that settings alone can tell is told here, before the seconds that TensorFlow takes to be imported.

    Raises:
        ConfigError: a network that is not built here, or modalities and classes that do not fit together.
    """
    for remark in config.remarks:
        logging.getLogger(__name__).warning("%s", remark)
    task_of(config)
    choose_devices(config)


def choose_devices(config: Config) -> None:
    """Hands `cuda_devices` to CUDA if it holds a digit, as NiftyNet does; before TensorFlow is imported."""
    if any(character.isdigit() for character in config.system.cuda_devices):
        os.environ["CUDA_VISIBLE_DEVICES"] = config.system.cuda_devices


def import_tensorflow() -> None:
    """Imports TensorFlow, which takes seconds, without what its libraries print about the machine while they load.

    They print to the error stream, whatever log level is set, and nothing can be done about it here, so the stream is
    closed for that long.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(
            f"training, inference and export need Keras on TensorFlow, but KERAS_BACKEND is {backend}; unset it"
        )
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with _hidden(*_NOT_NEEDED):
            import tensorflow as tf

            tf.config.list_physical_devices()
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Inside, modules that were not imported before cannot be."""
    new = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(new))
    try:
        yield
    finally:
        for name in new:
            del sys.modules[name]
