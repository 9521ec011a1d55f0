"""Subject, all scans of one patient on one grid, and SubjectLoader, the one way from files to it.

    read → onto the reference's grid → orient → resample → pad → histogram → whiten → label codes

Training and inference load through the same object, so the two cannot diverge. The way back is `restore`.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from pimms_tf.data.grids import Grid, print_numbers
from pimms_tf.data.images import (
    Image,
    read_image,
    reorient,
    resample_onto,
    resample_to_shape,
    resampled_shape,
    restore_grid,
)
from pimms_tf.data.intensity import (
    LabelMapping,
    average_landmarks,
    borders_to,
    foreground_mask,
    foreground_masks,
    landmarks,
    map_labels,
    pad,
    standardise,
    to_pairs,
    unlisted_labels,
    unpad,
    whiten,
)
from pimms_tf.errors import InputError

logger = logging.getLogger(__name__)

Axcodes = tuple[str, str, str]
Spacing = tuple[float, float, float]
Pairs = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

UNKNOWN = -1  # modality of a scan nobody labelled
NULL_CLASS = 0  # modality of an empty slot, where empty slots are a class of their own


@dataclass(frozen=True, eq=False)
class Subject:
    """One patient's scans on one prepared grid.

    `scans` (x, y, z, scan) float32; `valid` (scan,) bool is False for an absent scan, whose channel is zero; `modality`
    (scan,) int32 is the class of each slot, -1 if unknown; `label` (x, y, z) int32; `affine` (4, 4) of the prepared grid
    in mm; `original` is the grid of the file to write back on; `weight` (x, y, z) float32 is a prior map for sampling;
    `padding` counts the voxels (before, after) added along each axis.
    """

    subject_id: str
    scans: np.ndarray
    valid: np.ndarray
    modality: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    original: Grid
    weight: np.ndarray | None = None
    padding: Pairs = ((0, 0), (0, 0), (0, 0))


class SubjectFiles(Protocol):
    """What `train_mapping` needs to know of a subject."""

    subject_id: str
    images: Mapping[str, Path]


class _Patient(NamedTuple):
    images: Mapping[str, Path]
    subject_id: str

    def section(self, name: str) -> str:
        return f"subject {self.subject_id!r}, section [{name}] ({self.images[name]})"


class _Place(NamedTuple):
    """Where the first scan of a subject lies, which decides for all its files."""

    section: str
    stored: Grid
    oriented: Grid
    prepared: Grid
    original: Grid


class _Scan(NamedTuple):
    slot: int
    num_slots: int
    section: str
    volume: np.ndarray
    place: _Place


@dataclass(frozen=True, eq=False)
class SubjectLoader:
    """How the files of a subject become a Subject: `SubjectLoader(...).load({"T1": path, "label": path})`.

    `axcodes`, `pixdim_mm` and `loader` hold for every section, or map section names to values; None leaves the file's
    own. `scans` names the sections of the slots in order (None: all without another role, in the order of `images`);
    `modality` their classes (None: their positions, from 1 if `null_class` keeps 0 for empty slots); `modality_image`
    names a section whose few voxels hold the classes instead. `orders` are interpolation orders by section: by default 3
    for scans, 1 for the weight, 0 for the label; -1 forbids interpolation. `mapping` holds histogram landmarks by section,
    `foreground` the method of the mask normalisation looks at (None: all voxels), fused by `fusion`. `padding_to` is a
    size to pad to, instead of `padding`. `reference` names a section onto whose grid the others are resampled by their
    affines; without it all must lie on one grid, see `Grid.matches`.
    """

    axcodes: Axcodes | Mapping[str, Axcodes | None] | None = ("L", "P", "S")
    pixdim_mm: Spacing | Mapping[str, Spacing | None] | None = (1.0, 1.0, 1.0)
    padding: tuple[int, ...] = (0, 0, 0)
    mapping: Mapping[str, np.ndarray] | None = None
    foreground: str | None = None
    whitening: bool = True
    scans: tuple[str, ...] | None = None
    modality: tuple[int, ...] | None = None
    label: str | None = "label"
    weight: str | None = "sampler"
    modality_image: str | None = None
    null_class: bool = False
    orders: Mapping[str, int] = field(default_factory=dict)
    loader: str | Mapping[str, str | None] | None = None
    fusion: str = "and"
    multi_is_empty: bool = False
    norm_type: str = "percentile"
    cutoff: tuple[float, float] = (0.01, 0.99)
    padding_mode: str = "minimum"
    padding_to: tuple[int, ...] | None = None
    label_mapping: LabelMapping | None = None
    num_classes: int | None = None
    require_label: bool = False
    reference: str | None = None

    def load(self, images: Mapping[str, Path], subject_id: str = "") -> Subject:
        """Returns the prepared subject. A scan without a file, or whose file is zero everywhere, is absent.

        Raises:
            InputError: a file that cannot be read; no scan; scans, label or weight on different grids while no `reference`
                is named; a label that is required and missing, or has values that are no classes; a number of modalities
                that is not that of the slots. The message names the subject, the files and the remedy.
        Source: niftynet/io/image_reader.py, niftynet/application/segmentation_application.py.
        """
        patient = _Patient(images, subject_id)
        stack = np.zeros(0)
        sections = {}
        for scan in self._present_scans(patient):
            if not sections:
                place = scan.place
                padding = self._padding_pairs(place.prepared.shape)
                shape = [n + before + after for n, (before, after) in zip(place.prepared.shape, padding, strict=True)]
                stack = np.zeros((scan.num_slots, *shape), np.float32)  # (scan, x, y, z): each scan is contiguous
            stack[scan.slot] = pad(scan.volume, padding, self.padding_mode)
            sections[scan.slot] = scan.section
        if not sections:
            found = ", ".join(f"[{name}] {path}" for name, path in images.items()) or "no files at all"
            raise InputError(
                f"subject {subject_id!r} has no scan that is not zero everywhere: {found}; check its files."
            )
        scans = np.moveaxis(stack, 0, -1)
        valid = np.isin(np.arange(len(stack)), list(sections))
        self._normalise(scans, sections, patient)
        affine = place.prepared.affine.copy()
        affine[:3, 3] -= affine[:3, :3] @ [before for before, _ in padding]
        return Subject(
            subject_id=subject_id,
            scans=scans,
            valid=valid,
            modality=self._modality(valid, patient),
            label=self._label(place, padding, patient),
            affine=affine,
            original=place.original,
            weight=self._weight(place, padding, patient),
            padding=padding,
        )

    def landmarks(self, images: Mapping[str, Path], subject_id: str = "") -> dict[str, list[np.ndarray]]:
        """Histogram landmarks (13,) of each section's scans, as `train_mapping` averages them.

        Taken on the oriented and resampled scan, before padding, within its own foreground; a section has as many entries
        as present scans, nearly always one or none.

        Raises:
            InputError: as `load`, or a scan without foreground.
        Source: niftynet/layer/histogram_normalisation.py `train`.
        """
        patient = _Patient(images, subject_id)
        found: dict[str, list[np.ndarray]] = {}
        for scan in self._present_scans(patient):
            with _naming(patient, scan.section):
                mask = np.ones(scan.volume.shape, bool)
                if self.foreground is not None:
                    mask = foreground_mask(scan.volume, self.foreground)
                found.setdefault(scan.section, []).append(landmarks(scan.volume, mask, self.cutoff))
        return found

    def _present_scans(self, patient: _Patient) -> Iterator[_Scan]:
        other = (self.label, self.weight, self.modality_image)
        names = self.scans or tuple(name for name in patient.images if name not in other)
        reference = self._reference_image(patient)
        place = None
        for slot, name in enumerate(names):
            if name not in patient.images:
                continue
            image = self._read(name, 3, reference, patient)
            channels = image.data.shape[3]
            if channels > 1 and len(names) > 1:
                raise InputError(
                    f"{patient.section(name)} has {channels} times or components, which can be scans only if it is the sole"
                    f" section, but there are {', '.join(names)}; write each to a file of its own."
                )
            if not image.data.any():
                continue
            image, place = self._placed(image, name, 3, place, patient)
            for channel in range(channels):
                volume = image.data[..., channel]
                if volume.any():
                    yield _Scan(slot + channel, len(names) - 1 + channels, name, volume, place)

    def _reference_image(self, patient: _Patient) -> Image | None:
        if self.reference is None:
            return None
        if self.reference not in patient.images:
            raise InputError(
                f"subject {patient.subject_id!r} has no file for section [{self.reference}], which [PIMMS] reference names;"
                f" it has {', '.join(patient.images)}."
            )
        return self._read_as_stored(self.reference, patient)

    def _read_as_stored(self, name: str, patient: _Patient) -> Image:
        return read_image(patient.images[name], _of_section(self.loader, name))

    def _read(self, name: str, order: int, reference: Image | None, patient: _Patient) -> Image:
        if reference is None:
            return self._read_as_stored(name, patient)
        if name == self.reference:
            return reference
        image = self._read_as_stored(name, patient)
        with _naming(patient, name):
            moved = resample_onto(image, reference.grid, self.orders.get(name, order))
        return replace(moved, original=reference.original)

    def _placed(
        self, image: Image, name: str, order: int, place: _Place | None, patient: _Patient
    ) -> tuple[Image, _Place]:
        """The image oriented and resampled to where `place` is, which this image decides if it is the first."""
        with _naming(patient, name):
            axcodes, pixdim_mm = _of_section(self.axcodes, name), _of_section(self.pixdim_mm, name)
            oriented = image if axcodes is None else reorient(image, axcodes)
            shape = oriented.shape if pixdim_mm is None else resampled_shape(oriented.grid, pixdim_mm)
        if place is not None:
            self._check_place(image, name, oriented.grid, shape, place, patient)
        with _naming(patient, name):
            prepared = resample_to_shape(oriented, shape, self.orders.get(name, order))
        return prepared, place or _Place(name, image.grid, oriented.grid, prepared.grid, image.original)

    def _check_place(
        self, image: Image, name: str, oriented: Grid, shape: tuple[int, ...], place: _Place, patient: _Patient
    ) -> None:
        first = place.section
        if oriented.matches(place.oriented) and shape == place.prepared.shape:
            return
        both = f"subject {patient.subject_id!r}: [{first}] and [{name}] "
        if image.grid.matches(place.stored) or oriented.matches(place.oriented):
            settings = [(_of_section(self.axcodes, each), _of_section(self.pixdim_mm, each)) for each in (first, name)]
            raise InputError(
                f"{both}lie on one grid but become shape {place.prepared.shape} and {shape} by their axcodes and pixdim"
                f" {settings[0]} and {settings[1]}; give both sections the same."
            )
        raise InputError(
            f"{both}lie on different grids, {patient.images[first]}: {place.stored}, and {patient.images[name]}:"
            f" {image.grid}; name the section onto whose grid all are to be resampled, as in [PIMMS] reference = {first}."
        )

    def _padding_pairs(self, shape: tuple[int, int, int]) -> Pairs:
        return to_pairs(self.padding) if self.padding_to is None else borders_to(shape, self.padding_to)

    def _normalise(self, scans: np.ndarray, sections: Mapping[int, str], patient: _Patient) -> None:
        """Standardises and whitens the present scans in place."""
        masks = None
        if self.foreground is not None and (self.whitening or self.mapping is not None):
            with _naming(patient):
                masks = foreground_masks(scans, self.foreground, self.fusion, multi_is_empty=self.multi_is_empty)
        for slot, name in sections.items():
            mask = None if masks is None else masks[..., slot]
            if self.mapping is not None:
                if name not in self.mapping:
                    raise InputError(
                        f"the histogram landmarks have none for section [{name}], only for {', '.join(self.mapping)};"
                        " train them anew, or switch normalisation off."
                    )
                everywhere = np.ones(scans.shape[:3], bool)
                with _naming(patient, name):
                    scans[..., slot] = standardise(
                        scans[..., slot],
                        everywhere if mask is None else mask,
                        self.mapping[name],
                        self.norm_type,
                        self.cutoff,
                    )
            if self.whitening:
                scans[..., slot] = whiten(scans[..., slot], mask)

    def _modality(self, valid: np.ndarray, patient: _Patient) -> np.ndarray:
        first = 1 if self.null_class else 0
        classes = np.arange(first, first + len(valid), dtype=np.int32)
        if self.modality_image is not None:
            classes = np.full(len(valid), UNKNOWN, np.int32)
            if self.modality_image in patient.images:
                values = self._read_as_stored(self.modality_image, patient).data.ravel()
                classes = _whole(values, patient.section(self.modality_image)).astype(np.int32)
                source = f"{patient.section(self.modality_image)} holds {classes.tolist()}"
        elif self.modality is not None:
            classes = np.array(self.modality, np.int32)
            source = f"modality is {self.modality}"
        if classes.shape != valid.shape:
            raise InputError(
                f"{source}, {len(classes)} classes for {len(valid)} scans; give one for each, -1 for unknown."
            )
        if self.null_class:
            classes[~valid] = NULL_CLASS
        return classes

    def _label(self, place: _Place, padding: Pairs, patient: _Patient) -> np.ndarray | None:
        if self.label is None or self.label not in patient.images:
            if self.require_label:
                raise InputError(
                    f"subject {patient.subject_id!r} has no label (section [{self.label}]) but training needs one; it has"
                    f" {', '.join(patient.images)}."
                )
            return None
        section = patient.section(self.label)
        image = self._single_channel(self.label, 0, patient)
        if self.label_mapping is None:
            _whole(image.data, section)
        image, _ = self._placed(image, self.label, 0, place, patient)
        label = pad(image.data[..., 0], padding, self.padding_mode)
        if self.label_mapping is not None:
            unlisted = unlisted_labels(label, self.label_mapping)
            if unlisted:
                logger.warning(
                    "%s has label values %s that the mapping does not list; they become 0", section, unlisted
                )
            label = map_labels(label, self.label_mapping)
        label = np.rint(label).astype(np.int32)
        if self.num_classes is not None and (label.min() < 0 or label.max() >= self.num_classes):
            values = np.unique(label)
            outside = values[(values < 0) | (values >= self.num_classes)].tolist()
            raise InputError(
                f"{section} has label values {outside[:10]} outside 0 to {self.num_classes - 1}; set num_classes, or map them"
                " by label_normalisation."
            )
        return label

    def _weight(self, place: _Place, padding: Pairs, patient: _Patient) -> np.ndarray | None:
        if self.weight is None or self.weight not in patient.images:
            return None
        image, _ = self._placed(self._single_channel(self.weight, 1, patient), self.weight, 1, place, patient)
        return np.ascontiguousarray(pad(image.data[..., 0], padding, self.padding_mode))

    def _single_channel(self, name: str, order: int, patient: _Patient) -> Image:
        image = self._read(name, order, self._reference_image(patient), patient)
        if image.data.shape[3] != 1:
            raise InputError(
                f"{patient.section(name)} has {image.data.shape[3]} times or components; give a file with one."
            )
        return image


def restore(subject: Subject, volume: np.ndarray, order: int = 0) -> Image:
    """Returns a volume (x, y, z) or (x, y, z, channel) of the prepared grid on the subject's own grid, ready to write.

    Padding is cut off, then the shape restored by splines of `order` (0 for labels), then the orientation; written with
    `write_image`, it overlays the file the grid came from.

    Raises:
        ValueError: the volume is not on the subject's prepared grid.
    """
    if volume.shape[:3] != subject.scans.shape[:3] or volume.ndim not in (3, 4):
        raise ValueError(f"volume {volume.shape} is not on the prepared grid {subject.scans.shape[:3]}")
    data = unpad(volume.reshape(*volume.shape[:3], -1), subject.padding)
    affine = subject.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [before for before, _ in subject.padding]
    return restore_grid(Image(data, affine), subject.original, order)


def train_mapping(loader: SubjectLoader, subjects: Iterable[SubjectFiles]) -> dict[str, np.ndarray]:
    """Histogram mapping (13,) of every section that has a scan among the training `subjects`; absent scans do not count.

    Raises:
        InputError: a file cannot be read or has no foreground, or no scan of a section has contrast.
    Source: niftynet/layer/histogram_normalisation.py; see `intensity.average_landmarks`.
    """
    found: dict[str, list[np.ndarray]] = {}
    for subject in subjects:
        for name, each in loader.landmarks(subject.images, subject.subject_id).items():
            found.setdefault(name, []).extend(each)
    return {name: average_landmarks(each) for name, each in found.items()}


def _of_section(setting, name: str):
    return setting.get(name) if isinstance(setting, Mapping) else setting


def _whole(values: np.ndarray, section: str) -> np.ndarray:
    rounded = np.rint(values)
    odd = np.abs(values - rounded) > 1e-3
    if odd.any():
        raise InputError(
            f"{section} should hold labels but has values such as {print_numbers(np.unique(values[odd])[:5])},"
            " which are no whole numbers; give a label map, or map its values by label_normalisation."
        )
    return rounded


@contextmanager
def _naming(patient: _Patient, name: str | None = None) -> Iterator[None]:
    """Adds the subject and the file to the message of an InputError that knows neither."""
    try:
        yield
    except InputError as error:
        who = f"subject {patient.subject_id!r}" if name is None else patient.section(name)
        raise InputError(f"{who}: {error}") from error
