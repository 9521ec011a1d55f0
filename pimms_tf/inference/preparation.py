"""Preparation: the one record of how scans become what a network saw, and of what that network is.

It lies as `preparation.json` in model folders, exports and beside bundled weights, so that each of them can be used
without the INI file it came from. Nothing here needs TensorFlow.
"""

import dataclasses
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from pimms_tf.data.images import FarPlane
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.subjects import UNKNOWN
from pimms_tf.errors import InputError
from pimms_tf.files import replacing

VERSION = 1  # of the JSON form; raised when a field changes its meaning, not when one is added
PREPARATION_FILE = "preparation.json"

_REMEDY = "copy it anew from where it was made"

Variant = Literal["hemis", "hard", "soft", "online", "classifier", "unknown"]
Scope = Literal["scan", "window"]
Method = Literal["auto", "slices", "windows"]
Choice = bool | int | float | str | tuple[int, ...] | None


@dataclass(frozen=True)
class ScanSlot:
    """One of the scans that the network was trained on."""

    name: str  # the section of the configuration that its files came from
    modality: int = UNKNOWN  # place among `modalities`, -1 if it was not said
    order: int = 3  # of the splines that resample it; -1 forbids interpolation
    landmarks: tuple[float, ...] = ()  # of its histogram, 13; empty for no standardisation


@dataclass(frozen=True)
class VolumeRange:
    """Between which volumes the true one is thought to lie: `less` times the volume of what is `certain`, and less by
    `margin_ml`, to `more` times that of what is `possible`, and more by as much.

    `certain` and `possible` are least probabilities of not being background. `inside` is the share of patients of whom
    this was found to be true, whom no training saw; 0 where that was not measured.
    """

    certain: float = 0.75
    possible: float = 0.25
    less: float = 1.0
    more: float = 1.0
    margin_ml: float = 0.0
    inside: float = 0.0

    def of(self, probability: np.ndarray, voxel_ml: float, volume_ml: float) -> tuple[float, float]:
        """The range in ml, around a measured volume, for probabilities of not being background."""
        low, high = (np.count_nonzero(probability >= least) * voxel_ml for least in (self.certain, self.possible))
        low, high = self.less * low - self.margin_ml, self.more * high + self.margin_ml
        return max(0.0, min(low, volume_ml)), max(high, volume_ml)

    @property
    def meaning(self) -> str:
        """What the range says, as a sentence."""
        if not self.inside:
            return (
                f"It reaches from the volume of what has a probability of {self.certain:g} or more to that of what has "
                f"{self.possible:g} or more; how often the true volume lies in it is not known."
            )
        return (
            f"The true volume lay in such a range in about {10 * self.inside:.0f} of 10 simulated patients whom no "
            "training saw; of real ones too few are known."
        )


@dataclass(frozen=True)
class Preparation:
    """How scans become what a network saw, and what that network is; `subject_loader` does the first.

    Frozen; `dataclasses.replace` makes a changed one. What is empty or "unknown" is not known, as of exports of earlier
    releases.

    Args:
        variant, preset, choices: of `models.build_model`; `choices` are all arguments of `PIMMS` that were set, so a
            later change to a preset does not change this network. A "classifier" only says which modality a scan has.
        modalities: name of each modality class, in the order of the scores; with a class for empty slots it is first.
        num_classes, class_names: segmentation classes, the background among them, in the order of the probabilities.

        axcodes: which way x, y and z of the prepared grid grow; None leaves each file's own orientation.
        pixdim_mm: voxel size of the prepared grid; None leaves each file's own.
        padding, padding_to, padding_mode, keep_zeros, far_plane: as in `SubjectLoader`.

        zero_background, foreground, blank_outside, fusion, multi_is_empty: which voxels normalisation looks at and what
            becomes of the others, as in `SubjectLoader`.
        whitening: scans are shifted and scaled to mean 0 and standard deviation 1 over the foreground.
        norm_type, cutoff: of the standardisation of histograms, for scans that have landmarks.
        scans: what the slots held in training.

        classifier_slices: central slices of a scan whose modality scores are averaged.
        classifier_scope: "scan" scores each scan once, "window" each window or slice by itself.
        resizes: volumes are zoomed in plane to the window instead of being cut.
        window, border: of inference, in voxels of the prepared grid; 0 is a full length.
        batch_size: windows that go to the network together. Nothing but time depends on it, unless `mask_scope` of the
            choices is "batch".
        served_scope: what the endpoint `serving_default` of an export scores: each "slice" of its batch by itself, or
            a whole "scan" once, as inference does.

        threshold: least probability of not being background from which on a voxel is marked; None takes the best class.
        smallest_lesion_ml: connected voxels of less volume are not marked.
        least_score: a scan whose best modality score is lower is none of the modalities, and is left out.
        least_share: so is a scan whose best score is a smaller share of that of the surest scan of the same modality.
        volume_range: between which volumes the true one is thought to lie.
    """

    variant: Variant = "unknown"
    preset: str = "paper"
    choices: Mapping[str, Choice] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    num_classes: int = 0
    class_names: tuple[str, ...] = ()

    axcodes: tuple[str, str, str] | None = None
    pixdim_mm: tuple[float, float, float] | None = None
    padding: tuple[int, ...] = (0, 0, 0)
    padding_to: tuple[int, ...] | None = None
    padding_mode: str = "minimum"
    keep_zeros: bool = True
    far_plane: FarPlane = "interpolated"

    zero_background: bool = False
    foreground: str | None = None
    blank_outside: bool = False
    fusion: str = "and"
    multi_is_empty: bool = False
    whitening: bool = True
    norm_type: str = "percentile"
    cutoff: tuple[float, float] = (0.01, 0.99)
    scans: tuple[ScanSlot, ...] = ()

    classifier_slices: int = 11
    classifier_scope: Scope = "scan"
    resizes: bool = False
    window: tuple[int, int, int] = (0, 0, 1)
    border: tuple[int, int, int] = (0, 0, 0)
    batch_size: int = 1
    served_scope: Literal["slice", "scan"] = "slice"

    threshold: float | None = None
    smallest_lesion_ml: float = 0.0
    least_score: float = 0.0
    least_share: float = 0.0
    volume_range: VolumeRange = VolumeRange()

    def __post_init__(self) -> None:
        for name, value, count in (
            ("class_names", len(self.class_names), self.num_classes),
            ("modalities", len(set(self.modalities)), len(self.modalities)),
        ):
            if value not in (0, count):
                raise InputError(f"preparation: {name} has {value} different names, but {count} are needed")
        if any(not UNKNOWN <= slot.modality < max(len(self.modalities), 1) for slot in self.scans):
            raise InputError(f"preparation: a scan has a modality that is not among {', '.join(self.modalities)}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"preparation: threshold is {self.threshold:g}; give a probability between 0 and 1")
        if not (0 <= self.least_score <= 1 and 0 <= self.least_share <= 1):
            raise InputError(
                f"preparation: least_score is {self.least_score:g} and least_share {self.least_share:g}; give numbers "
                "between 0 and 1"
            )
        if self.classifier_slices < 1 or self.batch_size < 1:
            raise InputError("preparation: classifier_slices and batch_size count from 1")

    @property
    def spatial_rank(self) -> int:
        """2 for a network that sees slices, 3 for one that sees volumes."""
        return int(self.choices.get("spatial_rank") or 2)

    @property
    def null_class(self) -> bool:
        """Whether the first modality class means an empty slot."""
        return bool(self.choices.get("null_class"))

    @property
    def standardises(self) -> bool:
        """Whether histograms are standardised, so that the landmarks of each scan must be known."""
        return any(slot.landmarks for slot in self.scans)

    @property
    def looks_at_each(self) -> bool:
        """Whether each scan is classified within its own brain first, so that one that is set aside by its scores has
        no say in where the brain of the others is."""
        may_set_aside = self.least_score > 0 or self.least_share > 0
        return may_set_aside and self.variant != "hemis" and self.foreground == "brain" and self.whitening

    def takes_slices(self, method: Method = "auto") -> bool:
        """Whether volumes are segmented by whole slices rather than by windows.

        "auto" takes slices wherever it can, but windows with the preset niftynet2018, which is there to give what the
        released code gave, seams and zero-padded edges included.

        Raises:
            InputError: slices are asked for, but something else can only be done with windows.
        """
        if method == "windows" or self.variant == "classifier":
            return False
        obstacles = {
            "spatial_rank = 3": self.spatial_rank == 3,
            "window_sampling = resize": self.resizes,
            "classifier_scope = window": self.classifier_scope == "window",
            "mask_scope = batch": self.choices.get("mask_scope") == "batch",
        }
        obstacle = next((text for text, is_there in obstacles.items() if is_there), None)
        if method == "slices" and obstacle is not None:
            raise InputError(f"inference_mode = slices in [PIMMS] cannot be had with {obstacle}; take windows, or auto")
        return obstacle is None and (method == "slices" or self.preset != "niftynet2018")

    def slot_of(self, name: str) -> ScanSlot:
        """The slot for a scan called like one of `scans` or like a modality; an unknown name has no modality.

        Case does not matter.
        """
        wanted = name.lower()
        for slot in self.scans:
            if slot.name.lower() == wanted:
                return slot
        known = [modality.lower() for modality in self.modalities]
        modality = known.index(wanted) if wanted in known else UNKNOWN
        for slot in self.scans:
            if slot.modality == modality != UNKNOWN:
                return dataclasses.replace(slot, name=name)
        return ScanSlot(name, modality, max((slot.order for slot in self.scans), default=3))

    def belonging(self, scores: np.ndarray) -> np.ndarray:
        """Which scans are used by their scores (scan, modality), (scan,) bool.

        None whose best score is below `least_score`, and none that is a guess beside a sure one: whose best score is
        below `least_share` of the best that any scan of the same modality has. A row of zeros is an absent scan.
        """
        best, modality = scores.max(axis=-1), scores.argmax(axis=-1)
        surest = np.array([best[modality == each].max(initial=0) for each in range(scores.shape[-1])])
        return (best > 0) & (best >= self.least_score) & (best >= np.float32(self.least_share) * surest[modality])

    def subject_loader(self, names: Sequence[str] | None = None) -> SubjectLoader:
        """What prepares a subject whose scans have these names, by default those of `scans`; it reads no labels.

        Raises:
            InputError: histograms are standardised, and a name is that of no scan with landmarks.
        """
        names = tuple(slot.name for slot in self.scans) if names is None else tuple(names)
        slots = {name: self.slot_of(name) for name in dict.fromkeys(names)}
        without = [name for name, slot in slots.items() if not slot.landmarks]
        if self.standardises and without:
            known = ", ".join(slot.name for slot in self.scans if slot.landmarks)
            raise InputError(
                f"{', '.join(without)}: this network standardises the histogram of each scan by its name; call each "
                f"scan one of {known}"
            )
        return SubjectLoader(
            axcodes=self.axcodes,
            pixdim_mm=self.pixdim_mm,
            padding=self.padding,
            padding_to=self.padding_to,
            padding_mode=self.padding_mode,
            keep_zeros=self.keep_zeros,
            far_plane=self.far_plane,
            mapping={name: np.array(slot.landmarks) for name, slot in slots.items()} if self.standardises else None,
            zero_background=self.zero_background,
            foreground=self.foreground,
            blank_outside=self.blank_outside,
            fusion=self.fusion,
            multi_is_empty=self.multi_is_empty,
            whitening=self.whitening,
            norm_type=self.norm_type,
            cutoff=self.cutoff,
            scans=names,
            modality=tuple(slots[name].modality for name in names),
            orders={name: slot.order for name, slot in slots.items()},
            null_class=self.null_class,
            label=None,
            weight=None,
        )

    def to_json(self) -> str:
        """The record as text; `from_json` gives an equal one back."""
        return json.dumps({"version": VERSION} | dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str | Path = PREPARATION_FILE) -> "Preparation":
        """The record that `to_json` wrote; fields that are missing have their defaults. `source` is for messages.

        Raises:
            InputError: no JSON, another version, a field that is unknown or holds what it cannot hold.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"{source} is damaged, it is no JSON ({error}); {_REMEDY}") from None
        if not isinstance(found, dict) or "version" not in found:
            raise InputError(f"{source} is damaged, it names no version; {_REMEDY}")
        version = found.pop("version")
        if version != VERSION:
            raise InputError(
                f"{source} has version {version}, but this release of pimms-tf reads version {VERSION}; use the "
                "release that wrote it, or a later one"
            )
        return _fitted(cls, found, str(source))


def read_preparation(path: Path) -> Preparation:
    """The record in a file, or in the folder of a model or an export.

    Raises:
        InputError: there is none, or see `Preparation.from_json`.
    """
    path = Path(path)
    path = path / PREPARATION_FILE if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} is not there; it says how scans are prepared, and training writes it") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is damaged, it is no text; {_REMEDY}") from None
    return Preparation.from_json(text, path)


def write_preparation(preparation: Preparation, path: Path) -> Path:
    """Writes the record to a file, or as `preparation.json` into a folder, complete or not at all; returns the file.

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(path)
    path = path / PREPARATION_FILE if path.is_dir() else path
    with replacing(path) as temporary:
        temporary.write_text(preparation.to_json(), encoding="utf-8")
    return path


class _MisfitError(ValueError):
    """A JSON value that is not of the annotated kind."""


def _fitted(kind: type, found: Mapping[str, object], source: str):
    """The dataclass with the fields of a JSON object."""
    hints = get_type_hints(kind)
    unknown = [name for name in found if name not in hints]
    if unknown:
        raise InputError(
            f"{source} has {', '.join(unknown)}, which this release of pimms-tf does not know; use the release that "
            "wrote it, or a later one"
        )
    values = {}
    for name, value in found.items():
        try:
            values[name] = _as(hints[name], value)
        except _MisfitError as misfit:
            raise InputError(f"{source} is damaged: {name} holds {misfit}; {_REMEDY}") from None
    try:
        return kind(**values)
    except (InputError, TypeError) as error:
        raise InputError(f"{source} is damaged: {error}") from None


def _as(kind: object, value: object):
    """The JSON value as what an annotation asks for, lists as tuples."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        for each in arguments:
            try:
                return _as(each, value)
            except _MisfitError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_as(each, item) for each, item in zip(kinds, value, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        return {name: _as(arguments[1], item) for name, item in value.items()}
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        try:
            return kind(**{name: _as(get_type_hints(kind)[name], item) for name, item in value.items()})
        except (KeyError, TypeError):
            pass
    elif kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif kind is types.NoneType and value is None or type(value) is kind and kind in (bool, int, str):
        return value
    raise _MisfitError(repr(value)[:60])
