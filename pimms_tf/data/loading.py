"""SubjectLoader, the one way from the files of a patient to a Subject.

    read → onto the reference's grid → orient → resample → pad → histogram → whiten → label codes

Training and inference load through the same object, so the two cannot diverge. The way back is `subjects.restore`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from pimms_tf.data.brain import brain_mask, brain_or_foreground
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import (
    FarPlane,
    Image,
    read_image,
    read_image_header,
    reorient,
    resample_onto,
    resample_to_shape,
    resampled_shape,
    spline_coefficients,
)
from pimms_tf.data.intensity import (
    LabelMapping,
    borders_to,
    foreground_masks,
    landmarks,
    pad,
    to_pairs,
    with_zero_background,
)
from pimms_tf.data.labels import LabelRules, modality_classes, whole_numbers
from pimms_tf.data.normalising import normalised
from pimms_tf.data.patient import Patient, Place
from pimms_tf.data.subjects import NULL_CLASS, UNKNOWN, Pairs, Subject
from pimms_tf.errors import InputError
from pimms_tf.wording import counted

Axcodes = tuple[str, str, str]
Spacing = tuple[float, float, float]
Setting = TypeVar("Setting")


class _Scan(NamedTuple):
    """A scan that is there, on the prepared grid."""

    slot: int
    num_slots: int
    section: str
    volume: np.ndarray
    place: Place


@dataclass(frozen=True, eq=False)
class SubjectLoader:
    """How the files of a subject become a Subject: `SubjectLoader(...).load({"T1": path, "label": path})`.

    A setting "by section" holds for every section, or maps names of sections to values; None is the file's own.

    Args:
        axcodes: by section, which way x, y and z grow.
        pixdim_mm: by section, voxel size.
        padding: voxels added on both sides of each axis, or before and after it.
        padding_to: size to pad to, instead of `padding`; 0 leaves an axis as it is.
        padding_mode: of `numpy.pad`.
        orders: of the interpolating splines, 0 to 3, by name of section; if not given, 3 for scans, 1 for the weight
            and 0 for the label; -1 forbids interpolation.
        keep_zeros: holds the background of stripped scans at 0 when they are resampled; False lets it ring, as NiftyNet
            does; see `images.resample`.
        far_plane: what resampling leaves in the last plane along an axis; see `images.zoom_to`.
        reference: section onto whose grid the others are resampled by their affines; None: all must lie on one grid,
            see `Grid.matches`.
        loader: by section, the program that reads files; see `images.read_image`.

        zero_background: scans that were standardised before, so that much of them lies below 0, are shifted; see
            `intensity.with_zero_background`.
        foreground: method of the mask that normalisation looks at, see `intensity.foreground_mask`; None: all voxels.
            "brain" is one mask for all scans, see `brain.brain_mask`.
        blank_outside: whitened scans are 0 outside their mask, which is the mean inside it.
        fusion: of the masks of several scans: "and", "or", or "multi", each its own.
        multi_is_empty: "multi" gives empty masks, which is NiftyNet's fault; see `intensity.foreground_masks`.
        mapping: histogram landmarks of each section; None does not standardise.
        norm_type: which of the landmarks are used.
        cutoff: fractions of the voxels at the first and the last landmark.
        whitening: shifts and scales each scan to mean 0 and standard deviation 1 over its mask.

        scans: sections of the slots, in order; None: all that have no other role, in the order of `images`.
        modality: class of each slot, the same for all subjects or by subject id; None: their positions, from 1 if
            `null_class`.
        null_class: class 0 means an empty slot.
        modality_image: section of files whose few voxels hold the classes of the scans instead.
        modality_mapping: translates those values, to -1 where they say nothing; other values are refused.

        label: section of the label map.
        label_mapping: its codes and their classes; codes that are not listed become 0.
        num_classes: labels from there on are refused; None does not look.
        require_label: a subject without a label map is refused.
        weight: section of the prior map by which windows are drawn.
        coefficients: computes those of splines through the scans as well, for augmentation to interpolate with.
    """

    axcodes: Axcodes | Mapping[str, Axcodes | None] | None = ("L", "P", "S")
    pixdim_mm: Spacing | Mapping[str, Spacing | None] | None = (1.0, 1.0, 1.0)
    padding: tuple[int, ...] = (0, 0, 0)
    padding_to: tuple[int, ...] | None = None
    padding_mode: str = "minimum"
    orders: Mapping[str, int] = field(default_factory=dict)
    keep_zeros: bool = True
    far_plane: FarPlane = "interpolated"
    reference: str | None = None
    loader: str | Mapping[str, str | None] | None = None

    zero_background: bool = False
    foreground: str | None = None
    blank_outside: bool = False
    fusion: str = "and"
    multi_is_empty: bool = False
    mapping: Mapping[str, np.ndarray] | None = None
    norm_type: str = "percentile"
    cutoff: tuple[float, float] = (0.01, 0.99)
    whitening: bool = True

    scans: tuple[str, ...] | None = None
    modality: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None
    null_class: bool = False
    modality_image: str | None = None
    modality_mapping: LabelMapping | None = None

    label: str | None = "label"
    label_mapping: LabelMapping | None = None
    num_classes: int | None = None
    require_label: bool = False
    weight: str | None = "sampler"
    coefficients: bool = False

    @property
    def takes_what_lies_above_0(self) -> bool:
        """Whether the foreground, if anything looks at one, is what lies above 0 of scans as they are."""
        return self.foreground == "threshold_plus" and not self.zero_background

    def load(self, images: Mapping[str, Path | Image], subject_id: str = "") -> Subject:
        """Returns the prepared subject. A scan without a file, or whose file is zero everywhere, is absent.

        Instead of files, `images` may hold what was read of them.

        Raises:
            InputError: a file that cannot be read; no scan; scans, label or weight on different grids but no
                `reference`; a label that is required and missing, or has values that are no classes; a number of
                modalities that is not that of the slots. The message names the subject, the files and the remedy.
        Source: niftynet/io/image_reader.py, niftynet/application/segmentation_application.py.
        """
        return self.load_with_brain(images, subject_id)[0]

    def load_with_brain(
        self,
        images: Mapping[str, Path | Image],
        subject_id: str = "",
        belonging: Callable[[Subject], np.ndarray] | None = None,
    ) -> tuple[Subject, np.ndarray]:
        """Returns `load`, and the brain (x, y, z) bool that normalisation looked at, empty unless it found one.

        `belonging` is shown the subject with each of several scans as it is by itself, prepared within its own brain;
        those scans that its answer (scan,) bool leaves out are absent, and have no say in the brain of the others.
        """
        patient = Patient(images, subject_id)
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
            found = ", ".join(f"[{name}]{patient.file(name)}" for name in images) or "no files at all"
            raise InputError(f"{patient.name} has no scan with a voxel other than 0: {found}; check its files")
        valid = np.isin(np.arange(len(stack)), list(sections))
        affine = place.prepared.affine.copy()
        affine[:3, 3] -= affine[:3, :3] @ [before for before, _ in padding]
        subject = Subject(
            subject_id=subject_id,
            scans=np.moveaxis(stack, 0, -1),
            valid=valid,
            modality=self._modality(valid, patient),
            label=self._label(place, padding, patient),
            affine=affine,
            original=place.original,
            weight=self._weight(place, padding, patient),
            padding=padding,
            far_plane=self.far_plane,
        )
        subject, brain = normalised(self, subject, sections, patient, belonging)
        if self.coefficients:
            subject = replace(subject, coefficients=spline_coefficients(subject.scans))
        return subject, brain

    def prepared_shape(self, images: Mapping[str, Path], subject_id: str = "") -> tuple[int, int, int]:
        """The padded shape that `load` gives the scans, from headers alone: cheap, so a cohort can be checked early.

        Raises:
            InputError: as `load`, as far as headers show it: files that cannot be read, grids that differ.
        """
        patient, place = Patient(images, subject_id), None
        if self.reference is not None:
            patient.check_reference(self.reference)
        names = self._scan_names(patient)
        for name in (*names, self.label, self.weight):
            if name not in images:
                continue
            with patient.named(name):
                header = read_image_header(images[name], _of_section(self.loader, name))
            if name in names:
                patient.check_channels(header.data.shape[3], name, names)
            if self.reference not in (None, name):
                continue  # resampled onto the grid of the reference
            try:
                oriented, shape = self._oriented(header, name, place, patient)
            except InputError:
                # What holds nothing but zeros counts as absent, wherever it lies.
                if name in (self.label, self.weight) or self._read(name, patient).data.any():
                    raise
                continue
            place = place or Place(name, header.grid, oriented.grid, Grid(shape, oriented.affine), header.grid)
        if place is None:
            raise InputError(f"{patient.name} has no scan; it has {', '.join(images) or 'no files at all'}")
        shape = place.prepared.shape
        return tuple(n + sum(pair) for n, pair in zip(shape, self._padding_pairs(shape), strict=True))

    def landmarks(self, images: Mapping[str, Path], subject_id: str = "") -> dict[str, list[np.ndarray]]:
        """Histogram landmarks (13,) of each section's scans, as `train_mapping` averages them.

        Taken on the oriented and resampled scan, before padding, within its own foreground; an absent scan has none.

        Raises:
            InputError: as `load`, or a scan without foreground.
        Source: niftynet/layer/histogram_normalisation.py `train`.
        """
        patient = Patient(images, subject_id)
        found: dict[str, list[np.ndarray]] = {}
        for scan in self._present_scans(patient):
            with patient.named(scan.section):
                mask = np.ones(scan.volume.shape, bool)
                if self.foreground is not None:
                    mask = self.foreground_of(scan.volume[..., np.newaxis], scan.place.prepared.affine)[..., 0]
                found.setdefault(scan.section, []).append(landmarks(scan.volume, mask, self.cutoff))
        return found

    def _scan_names(self, patient: Patient) -> tuple[str, ...]:
        other = (self.label, self.weight, self.modality_image)
        return self.scans or tuple(name for name in patient.images if name not in other)

    def _present_scans(self, patient: Patient) -> Iterator[_Scan]:
        names = self._scan_names(patient)
        reference, place = self._reference(patient), None
        for slot, name in enumerate(names):
            if name not in patient.images:
                continue
            image = reference if name == self.reference else self._read(name, patient)
            channels = image.data.shape[3]
            patient.check_channels(channels, name, names)
            if not image.data.any():
                continue
            if self.zero_background:
                shifted = [with_zero_background(image.data[..., channel]) for channel in range(channels)]
                image = replace(image, data=np.stack(shifted, axis=-1))
            if reference is not None:
                image = self._onto(image, reference.grid, reference.original, name, 3, patient)
            image, place = self._placed(image, name, 3, place, patient)
            for channel in range(channels):
                volume = image.data[..., channel]
                if volume.any():
                    yield _Scan(slot + channel, len(names) - 1 + channels, name, volume, place)

    def _reference(self, patient: Patient) -> Image | None:
        if self.reference is None:
            return None
        patient.check_reference(self.reference)
        return self._read(self.reference, patient)

    def _read(self, name: str, patient: Patient) -> Image:
        image = patient.images[name]
        if isinstance(image, Image):
            return image if image.original is not None else replace(image, original=image.grid)
        with patient.named(name):
            return read_image(image, _of_section(self.loader, name))

    def _onto(self, image: Image, grid: Grid, original: Grid, name: str, order: int, patient: Patient) -> Image:
        with patient.named(name):
            return replace(resample_onto(image, grid, self.orders.get(name, order), self.keep_zeros), original=original)

    def _placed(
        self, image: Image, name: str, order: int, place: Place | None, patient: Patient
    ) -> tuple[Image, Place]:
        """The image oriented and resampled to `place`; the first image decides where that is."""
        oriented, shape = self._oriented(image, name, place, patient)
        with patient.named(name):
            prepared = resample_to_shape(oriented, shape, self.orders.get(name, order), self.keep_zeros, self.far_plane)
        return prepared, place or Place(name, image.grid, oriented.grid, prepared.grid, image.original)

    def _oriented(
        self, image: Image, name: str, place: Place | None, patient: Patient
    ) -> tuple[Image, tuple[int, int, int]]:
        """The image oriented, and the shape to resample it to; refused unless both are those of `place`."""
        with patient.named(name):
            axcodes, pixdim_mm = _of_section(self.axcodes, name), _of_section(self.pixdim_mm, name)
            oriented = image if axcodes is None else reorient(image, axcodes)
            shape = oriented.shape if pixdim_mm is None else resampled_shape(oriented.grid, pixdim_mm)
        if place is not None and not (oriented.grid.matches(place.oriented) and shape == place.prepared.shape):
            patient.refuse_place(name, (image.grid, oriented.grid), shape, place, self._settings)
        return oriented, shape

    def _settings(self, name: str) -> str:
        axcodes, pixdim_mm = _of_section(self.axcodes, name), _of_section(self.pixdim_mm, name)
        return f"axcodes {axcodes or 'unset'} and pixdim {pixdim_mm or 'unset'}"

    def _padding_pairs(self, shape: tuple[int, int, int]) -> Pairs:
        return to_pairs(self.padding) if self.padding_to is None else borders_to(shape, self.padding_to)

    def foreground_of(self, scans: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Foreground of each scan, bool (x, y, z, scan), before whitening and landmarks."""
        if self.foreground == "brain":
            return brain_or_foreground(brain_mask(scans, affine), scans)
        return foreground_masks(scans, self.foreground, self.fusion, multi_is_empty=self.multi_is_empty)

    def _modality(self, valid: np.ndarray, patient: Patient) -> np.ndarray:
        if self.modality_image is not None and self.modality_image in patient.images:
            source = patient.section(self.modality_image)
            classes = whole_numbers(self._read(self.modality_image, patient).data.ravel(), source)
            if self.modality_mapping is not None:
                classes = modality_classes(classes, self.modality_mapping, source)
        elif self.modality_image is not None:
            source, classes = "", np.full(len(valid), UNKNOWN)
        elif isinstance(self.modality, Mapping):
            source = f"{patient.name}: its row of modality labels"
            classes = np.array(self.modality.get(patient.subject_id, [UNKNOWN] * len(valid)))
        elif self.modality is not None:
            source, classes = "modality", np.array(self.modality)
        else:
            source, classes = "", np.arange(len(valid)) + (1 if self.null_class else 0)
        classes = classes.astype(np.int32)
        if len(classes) != len(valid):
            raise InputError(
                f"{source} gives {counted(len(classes), 'class', 'classes')}, {classes.tolist()[:10]}, for"
                f" {counted(len(valid), 'scan')}; give one for"
                f" each scan, and {UNKNOWN} where it is unknown"
            )
        if self.null_class:
            classes[~valid] = NULL_CLASS
        return classes

    def _label(self, place: Place, padding: Pairs, patient: Patient) -> np.ndarray | None:
        if self.label is None or self.label not in patient.images:
            if self.require_label:
                raise InputError(
                    f"{patient.name} has no label (section [{self.label}]), which training needs; it has"
                    f" {', '.join(patient.images)}"
                )
            return None
        label = self._map(self.label, 0, place, padding, patient)
        is_interpolated = self.orders.get(self.label, 0) > 0
        rules = LabelRules(self.num_classes, self.label_mapping, is_interpolated)
        return rules.classes(label, patient.section(self.label))

    def _weight(self, place: Place, padding: Pairs, patient: Patient) -> np.ndarray | None:
        if self.weight is None or self.weight not in patient.images:
            return None
        return np.ascontiguousarray(self._map(self.weight, 1, place, padding, patient))

    def _map(self, name: str, order: int, place: Place, padding: Pairs, patient: Patient) -> np.ndarray:
        """A file that is no scan, (x, y, z) on the padded grid of the scans."""
        image = self._read(name, patient)
        if image.data.shape[3] != 1:
            raise InputError(
                f"{patient.section(name)} has {image.data.shape[3]} times or components; give a file of one"
            )
        if self.reference is not None:
            image = self._onto(image, place.stored, place.original, name, order, patient)
        image, _ = self._placed(image, name, order, place, patient)
        return pad(image.data[..., 0], padding, self.padding_mode)


def _of_section(setting: Setting | Mapping[str, Setting] | None, name: str) -> Setting | None:
    return setting.get(name) if isinstance(setting, Mapping) else setting
