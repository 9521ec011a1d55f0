"""SubjectCache: prepared subjects kept in memory, as axial windows are quickly cut of them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pimms_tf.data.subjects import Subject

# Every mapped file keeps a file descriptor, of which a process has 1024 unless told otherwise; training and validation
# each have a cache.
MAX_MAPPED = 256


class SubjectCache:
    """Prepared subjects in memory, loaded once by whichever thread comes first.

    The first subjects that fit into ``max_bytes`` stay; none is pushed out, since over shuffled epochs any replacement
    finds fewer. Kept arrays are read-only and stored slice by slice, so that axial windows are quick to cut. Arrays
    that are mapped from files already are read-only, so stored, and take no memory that the system could not reclaim:
    they do not count, but at most `MAX_MAPPED` subjects of them stay.
    """

    def __init__(self, subjects: Sequence, load: Callable[[object], Subject], max_bytes: int) -> None:
        self._subjects, self._load = subjects, load
        self._max_bytes, self._bytes, self._mapped = max_bytes, 0, 0
        self._kept: dict[int, Subject] = {}
        self._loading = [threading.Lock() for _ in subjects]
        self._counting = threading.Lock()

    def clear(self) -> None:
        """Forgets the subjects kept so far."""
        with self._counting:
            self._kept.clear()
            self._bytes, self._mapped = 0, 0

    def get(self, index: int) -> Subject:
        """The subject at a position of the list; whatever its loading raises."""
        with self._loading[index]:
            kept = self._kept.get(index)
            if kept is not None:
                return kept
            subject = self._load(self._subjects[index])
            if isinstance(subject.scans, np.memmap):
                with self._counting:
                    fits = self._mapped < MAX_MAPPED
                    self._mapped += int(fits)
            else:
                volumes = {name: getattr(subject, name) for name in ("scans", "label", "weight", "coefficients")}
                size = sum(volume.nbytes for volume in volumes.values() if volume is not None)
                with self._counting:
                    fits = self._bytes + size <= self._max_bytes
                    self._bytes += size if fits else 0
                if fits:
                    subject = replace(subject, **{name: slices_first(each) for name, each in volumes.items()})
            if fits:
                self._kept[index] = subject
            return subject


def slices_first(volume: np.ndarray | None) -> np.ndarray | None:
    """The same array (x, y, z) or (x, y, z, scan), read-only, in memory by slice, then by scan."""
    if volume is None:
        return None
    to_memory = (2, 0, 1) if volume.ndim == 3 else (2, 3, 0, 1)
    stored = np.ascontiguousarray(volume.transpose(to_memory)).transpose(np.argsort(to_memory))
    stored.flags.writeable = False
    return stored
