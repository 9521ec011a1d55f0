"""The files of one patient, and what is said of them where they cannot be used."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image
from pimms_tf.errors import InputError

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where the first scan of a subject lies, which decides for all its files."""

    section: str
    stored: Grid
    oriented: Grid
    prepared: Grid
    original: Grid


class Patient(NamedTuple):
    """The files of one subject, or what was read of them, by section."""

    images: Mapping[str, Path | Image]
    subject_id: str

    @property
    def name(self) -> str:
        """What messages call the subject."""
        return f"subject {self.subject_id}" if self.subject_id else "the subject"

    def section(self, section: str) -> str:
        """What messages call one of its files."""
        return f"{self.name}, section [{section}]" + self.file(section)

    def file(self, section: str) -> str:
        """The path in brackets, "" for what is no file."""
        image = self.images[section]
        return "" if isinstance(image, Image) else f" ({image})"

    @contextmanager
    def named(self, section: str | None = None) -> Iterator[None]:
        """Adds the subject, the section and the file to an InputError of what cannot know them."""
        try:
            yield
        except InputError as error:
            image = None if section is None else self.images[section]
            path = image if isinstance(image, Path) else None
            raise error.within(self.subject_id, section or "", path) from error

    def check_reference(self, reference: str) -> None:
        """Refuses a subject without a file of the section that is the reference."""
        if reference not in self.images:
            raise InputError(
                f"{self.name} has no file for section [{reference}], which [PIMMS] reference names; it has"
                f" {', '.join(self.images)}"
            )

    def check_channels(self, channels: int, name: str, names: Sequence[str]) -> None:
        """Refuses several times or components in one of several files of scans."""
        if channels > 1 and len(names) > 1:
            raise InputError(
                f"{self.section(name)} has {channels} times or components, which can be scans only if it is the"
                f" one section, but there are {', '.join(names)}; write each to a file of its own"
            )

    def check_contrast(self, scan: np.ndarray, mask: np.ndarray | None, name: str) -> None:
        """Refuses a scan that is the same everywhere: whitened it is zero, but would count and be segmented."""
        voxels = scan if mask is None else scan[mask]
        if voxels.size and voxels.min() == voxels.max():
            raise InputError(
                f"{self.section(name)} is {voxels.flat[0]:g} in every voxel of the foreground, so it shows nothing;"
                " check the file, or leave it out"
            )

    def refuse_place(
        self,
        name: str,
        grids: tuple[Grid, Grid],
        shape: Sequence[int],
        place: Place,
        settings: Callable[[str], str],
    ) -> None:
        """Refuses a file, whose grid and oriented grid are given, that does not come to lie where the first one does.

        `settings` says the axcodes and pixdim of a section in words.
        """
        first, (stored, oriented) = place.section, grids
        if stored.matches(place.stored) or oriented.matches(place.oriented):
            ours, theirs = (
                f"{settings(each)} make it {''.join(grid.axcodes)} of {tuple(size)}"
                for each, grid, size in ((name, oriented, shape), (first, place.oriented, place.prepared.shape))
            )
            raise InputError(
                f"lies on one grid with [{first}], but here {ours}, and there {theirs}; give both sections the same"
                " axcodes and pixdim",
                subject=self.subject_id,
                section=name,
            )
        both = f"{self.name}: [{first}]{self.file(first)} and [{name}]{self.file(name)}"
        raise InputError(
            f"{both} lie on different grids, one with {place.stored}, the other with {stored}; name the section"
            f" onto whose grid all are to be resampled, as in [PIMMS] reference = {first}"
        )

    def remark_on_centred(self, names: Sequence[str]) -> None:
        """Warns that above 0 the foreground of these scans, standardised before, is a part of the head."""
        if names:
            log.warning(
                "%s: much of %s lies below 0, as after a standardisation, so that the foreground above 0 is a part of "
                "the head; zero_background = True in [PIMMS] shifts such scans, or give another foreground_type",
                self.name,
                ", ".join(f"[{name}]" for name in names),
            )
