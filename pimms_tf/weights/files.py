"""The files of the bundled weights, read without TensorFlow and only if they are those that were released."""

import hashlib
import io
from importlib import resources

import numpy as np

from pimms_tf.errors import InputError
from pimms_tf.inference import Preparation

CHECKSUMS = "bundled.sha256"


def bundled_preparation() -> Preparation:
    """How the bundled segmenter prepares scans, and what network it is.

    Raises:
        InputError: the files of the installation are damaged.
    """
    return Preparation.from_json(_checked("bundled.json").decode("utf-8"), "bundled.json")


def bundled_arrays() -> dict[str, np.ndarray]:
    """The bundled weights, float32 by path of the variable.

    Raises:
        InputError: the files of the installation are damaged.
    """
    with np.load(io.BytesIO(_checked("bundled.npz")), allow_pickle=False) as arrays:
        return {path: arrays[path].astype(np.float32) for path in arrays.files}


def _checked(name: str) -> bytes:
    """The content of a file of this folder, once its checksum is right."""
    folder = resources.files("pimms_tf.weights")
    lines = folder.joinpath(CHECKSUMS).read_text(encoding="utf-8").splitlines()
    content = folder.joinpath(name).read_bytes()
    if f"{hashlib.sha256(content).hexdigest()}  {name}" not in lines:
        raise InputError(f"{name} of the installed package is not what was released; install pimms-tf again")
    return content
