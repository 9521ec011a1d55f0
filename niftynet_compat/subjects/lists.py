"""Lists without header, one row per subject: `subject,path` in csv_file, `subject,value,...` in csv_data_file."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from niftynet_compat.paths import absolute, expanded, first_file, niftynet_home, why_no_file
from niftynet_compat.subjects.names import id_complaint
from pimms_tf.errors import ConfigError
from pimms_tf.files import write_text
from pimms_tf.wording import counted

_ABSENT = "does not exist"


def read_file_list(path: str | Path, section: str = "", must_exist: bool = True) -> dict[str, Path]:
    """Returns {subject id: absolute path} of a list `id,path` without header, as text, in file order.

    Blank lines and lines starting with # are passed over, blanks around both columns are removed. Relative paths are
    looked up in the working directory, then in NiftyNet's home folder, then beside the list. Without `must_exist` it is
    left to the readers to find that a file is not there.

    Raises:
        ConfigError: no such list, a line without exactly two columns, an id that cannot be one or is given twice, a
            header line, or files that are not there; one sentence.
    """
    path = Path(path)
    place = f"[{section}] csv_file = {path}" if section else str(path)
    if not os.path.isfile(path):
        raise ConfigError(
            f"{place}: there is no such list; relative paths start from the working directory or beside the INI"
        )
    home = niftynet_home()
    folders = [Path.cwd(), *([home] if home else []), path.parent]
    rows, line_of = {}, {}
    for number, row in csv_rows(path, place):
        here = f"{place}, line {number}:"
        if len(row) != 2:
            separator = next((mark for mark in (";", "\t") if mark in ",".join(row)), None)
            why = (
                f"separates its columns by {separator!r}" if len(row) == 1 and separator else f"has {len(row)} columns"
            )
            raise ConfigError(f"{here} {','.join(row)!r} {why}; write `subject,path` with a comma between them")
        subject_id, file = row
        if not subject_id or not file:
            raise ConfigError(f"{here} {','.join(row)!r} has an empty column; write `subject,path`")
        if complaint := id_complaint(subject_id):
            raise ConfigError(f"{here} the subject id {complaint}; give it a name of letters and digits")
        if subject_id in rows:
            raise ConfigError(f"{here} subject {subject_id} stands in line {line_of[subject_id]} already; keep one")
        line_of[subject_id] = number
        candidates = [folder / expanded(file) for folder in folders]
        rows[subject_id] = first_file(candidates) or absolute(candidates[0])
    missing = [(subject_id, file, why) for subject_id, file in rows.items() if (why := why_no_file(file))]
    if missing and must_exist:
        first_id, first, _ = missing[0]
        if first_id == next(iter(rows)) and len(missing) < len(rows) and not first.suffix:
            raise ConfigError(
                f"{place}, line {line_of[first_id]}: {first_id},{first.name} looks like a header; remove it"
            )
        shown = ", ".join(
            f"{file} ({subject_id})" + ("" if why == _ABSENT else f", which {why}") for subject_id, file, why in missing
        )
        absent = counted(len(missing), "does not exist", "do not exist")
        what = absent if any(why == _ABSENT for *_, why in missing) else f"{len(missing)} cannot be read"
        raise ConfigError(
            f"{place} lists {counted(len(rows), 'file')}, of which {what}: {shown}; relative paths start "
            "from the working directory"
        )
    return rows


def read_value_list(path: str | Path, section: str = "") -> dict[str, tuple[str, ...]]:
    """Returns {subject id: values} of a list `id,value` or `id,value,value,...` without header, as text, in file order.

    Blank lines and lines starting with # are passed over, blanks around columns are removed; ids keep leading zeros. A
    subject may have several rows if they are equal.

    Raises:
        ConfigError: no such list, no row, an empty column, rows of different lengths, different rows of one subject, or
            a header line; one sentence.

    Source: `niftynet/contrib/csv_reader/csv_reader.py`, which reads ids as numbers and draws one of several rows.
    """
    path = Path(path)
    place = f"[{section}] csv_data_file = {path}" if section else str(path)
    if not os.path.isfile(path):
        raise ConfigError(
            f"{place}: there is no such list; relative paths start from the working directory or beside the INI"
        )
    rows: dict[str, tuple[str, ...]] = {}
    width = None
    for number, (subject_id, *values) in csv_rows(path, place):
        here = f"{place}, line {number}:"
        if not values or not all((subject_id, *values)):
            raise ConfigError(f"{here} subject {subject_id or '(none)'} has an empty column; write `subject,value`")
        if complaint := id_complaint(subject_id):
            raise ConfigError(f"{here} the subject id {complaint}; give it a name of letters and digits")
        width = width or len(values)
        if len(values) != width:
            raise ConfigError(
                f"{here} subject {subject_id} has {counted(len(values), 'value')} and the rows above {width}; "
                "give all the same"
            )
        if rows.get(subject_id, tuple(values)) != tuple(values):
            raise ConfigError(
                f"{here} subject {subject_id} has {', '.join(values)} here and {', '.join(rows[subject_id])} above; "
                "keep the row that is right"
            )
        rows[subject_id] = tuple(values)
    if not rows:
        raise ConfigError(f"{place}: lists no subject; write lines `subject,value`")
    (first_id, first), *others = rows.items()
    if others and not any(map(_is_number, first)) and all(_is_number(value) for _, row in others for value in row):
        raise ConfigError(f"{place}, line 1: {first_id},{','.join(first)} looks like a header; remove it")
    return rows


def distinct_values(values: Iterable[str], order: str) -> list[str]:
    """Returns each value once: in the order "sorted" (numbers by size, else as text) or that of first "appearance".

    Source: `niftynet/contrib/csv_reader/csv_reader.py`, sorted in NiftyNet, by appearance in the fork.
    """
    found = list(dict.fromkeys(values))
    if order == "appearance":
        return found
    return sorted(found, key=float) if all(map(_is_number, found)) else sorted(found)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def write_file_list(path: str | Path, files: Mapping[str, Path]) -> Path:
    """Returns `path` after writing {subject id: file} as a list `id,path`, which `read_file_list` reads again."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((subject_id, str(file)) for subject_id, file in files.items())
    return write_text(path, text.getvalue())


def csv_rows(path: Path, place: str) -> list[tuple[int, list[str]]]:
    """Returns (line number, columns without outer blanks) of a csv file, blank and # lines passed over.

    Raises:
        ConfigError: the file is not there or not UTF-8 text; the sentence begins with `place`.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            rows = [(reader.line_num, [column.strip() for column in row]) for row in reader]
    except FileNotFoundError:
        raise ConfigError(f"{place}: there is no such file; correct the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{place}: is not a text file of comma-separated columns ({error}); export it as UTF-8 csv"
        ) from error
    except OSError as error:
        raise ConfigError(f"{place}: cannot be read ({error.strerror}); check its permissions") from error
    return [(number, row) for number, row in rows if any(row) and not row[0].startswith("#")]
