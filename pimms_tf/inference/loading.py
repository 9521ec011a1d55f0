"""Folders of models and exports → a segmenter, without the configuration they came from."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.inference.network import build_network
from pimms_tf.inference.preparation import PREPARATION_FILE, Method, read_preparation
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.models import PIMMS
from pimms_tf.training.checkpoints import latest_iteration, load_arrays

_MODELS = "models"  # of a model folder, as `niftynet_compat.ModelDir` names it
_SAVED_MODEL = "saved_model.pb"
_COUNTER = "/unseen"  # of training steps, in layers that normalise; no endpoint of an export reads it


def load_segmenter(path: Path | str, iteration: int | None = None, method: Method = "auto") -> Segmenter:
    """The segmenter in a model folder, or in an export: a version of it, or of its versions the newest.

    Of a model folder checkpoint `iteration` is taken, by default the latest. Both answer alike to the last bit, since
    an export holds the same weights, and the same record of how scans are prepared.

    Raises:
        InputError: neither of the two; no checkpoint; a record that is missing, damaged or of another network.
    """
    path = Path(path)
    export = exported_version(path)
    if export is None and not (path / _MODELS).is_dir():
        raise InputError(f"{path} is neither a model folder nor an export; give the model_dir of a training")
    if export is not None and iteration is not None:
        raise InputError(f"{path} is an export, which has no iteration {iteration}; give the folder of the model")
    folder = path if export is None else export
    if not (folder / PREPARATION_FILE).is_file():
        raise InputError(
            f"{folder} has no {PREPARATION_FILE}, so it is not known how scans are prepared; an earlier release made "
            "it: export the model anew with its configuration, by pimms-tf export"
        )
    preparation = read_preparation(folder)
    model = build_network(preparation)
    if export is None:
        number = latest_iteration(path / _MODELS) if iteration is None else iteration
        expected = {variable.path: tuple(variable.shape) for variable in model.variables}
        assign(model, load_arrays(path / _MODELS / f"model.ckpt-{number}", expected, complete=True))
    else:
        assign(model, _exported_arrays(export))
    return Segmenter(model, preparation, method)


def exported_version(path: Path) -> Path | None:
    """The folder of an export: the given one, or of the numbered ones below it the last; None without any."""
    path = Path(path)
    if (path / _SAVED_MODEL).is_file():
        return path
    numbers = [number for number in versions(path) if (path / str(number) / _SAVED_MODEL).is_file()]
    return path / str(max(numbers)) if numbers else None


def version_folder(path: Path) -> Path:
    """As `exported_version`.

    Raises:
        InputError: there is no export.
    """
    folder = exported_version(path)
    if folder is None:
        raise InputError(f"there is no exported model in {path}; give the folder that an export has written")
    return folder


def versions(folder: Path) -> list[int]:
    """The numbers by which what lies in a folder is called."""
    return [int(item.name) for item in Path(folder).glob("*") if item.name.isdecimal()]


def _exported_arrays(folder: Path) -> dict[str, np.ndarray]:
    try:
        loaded = tf.saved_model.load(str(folder))  # which holds the variables as long as it is there
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"the export {folder} is damaged ({error}); export the model anew") from error
    variables = [variable for signature in loaded.signatures.values() for variable in signature.variables]
    return {variable.name.partition(":")[0]: variable.numpy() for variable in variables}


def assign(model: PIMMS, arrays: Mapping[str, np.ndarray]) -> None:
    """Gives a model the weights of its variables, by path and shape.

    Raises:
        InputError: arrays and variables are not the same.
    """
    variables = {variable.path: variable for variable in model.variables}
    missing = [path for path in variables if path not in arrays and not path.endswith(_COUNTER)]
    if missing or not set(arrays) <= set(variables):
        first = (missing or sorted(set(arrays) - set(variables)))[0]
        raise InputError(f"the weights are not those of the network on record, {first} for instance is in one alone")
    for path, array in arrays.items():
        if tuple(variables[path].shape) != array.shape:
            raise InputError(
                f"the weights are not those of the network on record: {path} has shape {array.shape} instead of "
                f"{tuple(variables[path].shape)}"
            )
        variables[path].assign(array)
