"""What is known of each finished subject: enough to pass it over when a run is repeated, and to list it."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pimms_tf.files import write_text


@dataclass(frozen=True)
class Record:
    """A subject that is done; written after its result, so a result without a record is not.

    `result` is a file name in the folder, "" for a subject without a result there; `scores` has the subject's lines of
    `modality_scores.csv`. `run` stands for weights and settings, `content` for the subject's files and how they are
    prepared: another key means another result.
    """

    subject_id: str
    run: str
    content: str
    result: str = ""
    digest: str = ""
    scores: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Records:
    """The records of a folder of results: `<subject>.json` in another folder, one file for each subject."""

    results: Path
    folder: Path

    @classmethod
    def below(cls, root: Path, results: Path) -> "Records":
        """Records in a folder of their own below `root`, named after that of the results and its whole path."""
        whole = Path(results).resolve()
        short = hashlib.blake2b(str(whole).encode(), digest_size=4).hexdigest()
        return cls(Path(results), Path(root) / f"{whole.name}-{short}")

    def path(self, subject_id: str) -> Path:
        """Where the record of a subject is, or would be."""
        return self.folder / f"{subject_id}.json"

    def read(self, subject_id: str) -> Record | None:
        """Returns the record of a subject; None if there is none, or not of this form, or its result is not there."""
        try:
            stored = json.loads(self.path(subject_id).read_text(encoding="utf-8"))
            record = Record(**stored | {"scores": tuple(map(tuple, stored["scores"]))})
            is_whole = not record.result or digest_of(self.results / record.result) == record.digest
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return record if is_whole and record.subject_id == subject_id else None

    def write(self, record: Record) -> None:
        """Writes a record, and first what it needs to know of the result, which must be there."""
        if record.result:
            record = dataclasses.replace(record, digest=digest_of(self.results / record.result))
        write_text(self.path(record.subject_id), json.dumps(dataclasses.asdict(record), indent=1))

    def forget(self, subject_id: str) -> None:
        """Removes the record of a subject that is about to be computed anew."""
        self.path(subject_id).unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """Returns a hash of a file's bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
