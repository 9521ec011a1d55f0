"""The first subject of an inference, read while TensorFlow is being imported: either takes seconds."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from pimms_tf.actions.sharding import Shard
from pimms_tf.data.subjects import Subject
from pimms_tf.pipeline.cache import PreparesSubjects
from pimms_tf.pipeline.keys import file_states
from pimms_tf.study import cohort
from pimms_tf.study.study import Study


@contextmanager
def reading_ahead(study: Study, shard: Shard | None = None) -> Iterator[PreparesSubjects]:
    """What prepares the subjects of a study, behind its cache, and has begun with the first of the shard."""
    chosen = study.used if shard is None else shard.part_of(study.used)
    with cohort.caching(study.loader, study.config, len(chosen)) as loader, ThreadPoolExecutor(1, "read") as reader:
        yield _Ahead(loader, study, reader, chosen[0]) if chosen else loader


class _Ahead:
    """A loader that has begun with one subject."""

    def __init__(self, loader: PreparesSubjects, study: Study, reader: ThreadPoolExecutor, files) -> None:
        self._loader, self._settings, self._subject_id = loader, study.loader, files.subject_id
        images = cohort.scan_files(files, study.task)
        self._first: Future[tuple[list, Subject]] | None = reader.submit(self._read, images)

    def load(self, images: Mapping[str, Path], subject_id: str = "") -> Subject:
        first, self._first = (self._first, None) if subject_id == self._subject_id else (None, self._first)
        if first is not None:
            with suppress(OSError):  # which the loader says better
                states, subject = first.result()
                if states == file_states(self._settings, images):  # else a file was changed meanwhile
                    return subject
        return self._loader.load(images, subject_id)

    def _read(self, images: Mapping[str, Path]) -> tuple[list, Subject]:
        return file_states(self._settings, images), self._loader.load(images, self._subject_id)
