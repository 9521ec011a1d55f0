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


def released_sha256(name: str) -> str:
    """The SHA-256 of a file of this folder as it was released; "" for one that was not."""
    lines = resources.files("pimms_tf.weights").joinpath(CHECKSUMS).read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in lines if line.split()[1:] == [name]), "")


def _checked(name: str) -> bytes:
    """The content of a file of this folder, once its checksum is right."""
    content = resources.files("pimms_tf.weights").joinpath(name).read_bytes()
    if hashlib.sha256(content).hexdigest() != released_sha256(name):
        raise InputError(f"{name} of the installed package is not what was released; install pimms-tf again")
    return content
