"""The mapping file: histogram landmarks per modality and label maps, one blank-separated record per line.

Source: `niftynet/utilities/histogram_standardisation.py`, `niftynet/layer/discrete_label_normalisation.py`.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pimms_tf.errors import ConfigError
from pimms_tf.files import write_text
from pimms_tf.wording import counted

NUM_LANDMARKS = 13


class LabelMapping(NamedTuple):
    """Label values found in the files (n,) float64, and the class of each (n,) int32; several may share a class."""

    source: np.ndarray
    target: np.ndarray


def read_mapping(path: str | Path) -> dict[str, np.ndarray]:
    """Returns {modality: landmarks (13,) float64}, ascending, on the scale 0–100; {} if there is no file.

    Records of label maps are passed over.

    Raises:
        ConfigError: a record has other than 13 numbers, is not ascending, or stands twice.
    """
    records = _records(Path(path))
    landmarks = {}
    for key, (line, words) in records.items():
        if _is_label_record(key, records):
            continue
        here = f"histogram_ref_file {path}, line {line}: the landmarks of {key}"
        remedy = "delete the line to have them computed again"
        if len(words) != NUM_LANDMARKS:
            raise ConfigError(f"{here} have {counted(len(words), 'value')} instead of {NUM_LANDMARKS}; {remedy}")
        values = _numbers(words, here, remedy)
        if not np.all(np.isfinite(values)) or np.any(np.diff(values) < 0):
            raise ConfigError(f"{here} do not ascend from 0 to 100; {remedy}")
        landmarks[key] = values
    return landmarks


def write_mapping(path: str | Path, mapping: Mapping[str, np.ndarray]) -> Path:
    """Returns `path` after its landmarks of these modalities are replaced or added; every other record stays.

    An existing file is kept as `<file>.backup`. Numbers are written so that reading gives the same float64.

    Raises:
        ConfigError: landmarks of another size than 13, or a modality name with blanks.
    """
    lines = {}
    for key, values in mapping.items():
        values = np.asarray(values, np.float64)
        if values.shape != (NUM_LANDMARKS,):
            raise ConfigError(f"landmarks of {key} have shape {values.shape} instead of ({NUM_LANDMARKS},)")
        lines[key] = " ".join(repr(float(value)) for value in values)
    return _update(Path(path), lines)


def read_label_mapping(path: str | Path, field: str, section: str) -> LabelMapping | None:
    """Returns the label map of one input section (`field` is the task's key, mostly `label`); None if there is none.

    Both spellings of the record are read, the newer first: `label_<section>-from` and `label<section>from`.

    Raises:
        ConfigError: source and target differ in length, a target is no whole number, or a source value stands twice.
    """
    records = _records(Path(path))
    for source_key, target_key in (_label_keys(field, section), _old_label_keys(field, section)):
        if source_key not in records or target_key not in records:
            continue
        line, words = records[source_key]
        here = f"histogram_ref_file {path}, line {line}: the label map {source_key}"
        remedy = "delete both of its lines to have it made again"
        source = _numbers(words, here, remedy)
        target = _numbers(records[target_key][1], here, remedy)
        if len(source) != len(target):
            values = counted(len(source), "value")
            raise ConfigError(f"{here} has {values} but {target_key} has {len(target)}; {remedy}")
        if np.any(target != np.round(target)):
            raise ConfigError(f"{here} leads to {target[target != np.round(target)][0]}, not a whole number; {remedy}")
        values, counts = np.unique(source, return_counts=True)
        if np.any(counts > 1):
            raise ConfigError(f"{here} has the value {values[counts > 1][0]:g} twice; {remedy}")
        return LabelMapping(source, target.astype(np.int32))
    return None


def write_label_mapping(path: str | Path, field: str, section: str, source: np.ndarray, target: np.ndarray) -> Path:
    """Returns `path` after the label map of an input section is replaced or added, in the newer spelling.

    `source` (n,) label values, `target` (n,) classes. Records of the older spelling for the same map are removed, all
    others stay; an existing file is kept as `<file>.backup`.

    Raises:
        ConfigError: lengths differ.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target)
    if source.ndim != 1 or source.shape != target.shape:
        raise ConfigError(
            f"label values {source.shape} and classes {target.shape} of {field} [{section}] differ in shape"
        )
    source_key, target_key = _label_keys(field, section)
    lines = {
        source_key: " ".join(repr(float(value)) for value in source),
        target_key: " ".join(str(int(value)) for value in target),
    }
    return _update(Path(path), lines, without=_old_label_keys(field, section))


def _label_keys(field: str, section: str) -> tuple[str, str]:
    name = f"{field}_{section}".replace(" ", "")
    return f"{name}-from", f"{name}-to"


def _old_label_keys(field: str, section: str) -> tuple[str, str]:
    name = re.sub(r"[^0-9a-zA-Z_\-]", "", f"{field}{section}")
    return f"{name}from", f"{name}to"


def _is_label_record(key: str, records: Mapping[str, object]) -> bool:
    # A modality may well be called `T1to`; only the pair makes a label map of it.
    for end, other in (("from", "to"), ("to", "from")):
        if key.endswith(f"-{end}") or (key.endswith(end) and key[: -len(end)] + other in records):
            return True
    return False


def _records(path: Path) -> dict[str, tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"histogram_ref_file {path}: cannot be read as text ({error}); delete or replace it"
        ) from error
    records: dict[str, tuple[int, list[str]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, *words = line.split() or [""]
        if key in records:
            raise ConfigError(
                f"histogram_ref_file {path}, line {number}: the record {key} stands in line {records[key][0]} already; "
                "keep one of them"
            )
        if key:
            records[key] = (number, words)
    return records


def _numbers(words: list[str], here: str, remedy: str) -> np.ndarray:
    try:
        return np.array([float(word) for word in words], np.float64)
    except ValueError as error:
        raise ConfigError(f"{here} are not all numbers ({error}); {remedy}") from None


def _update(path: Path, lines: Mapping[str, str], without: tuple[str, ...] = ()) -> Path:
    for key in lines:
        if not key or key.split() != [key]:
            raise ConfigError(f"a record of {path} cannot be called {key!r}; rename the section, without blanks")
    records = {key: " ".join(words) for key, (_, words) in _records(path).items() if key not in without}
    if path.exists():
        shutil.copy2(path, path.with_name(path.name + ".backup"))
    return write_text(path, "".join(f"{key} {text}\n" for key, text in {**records, **lines}.items()))
