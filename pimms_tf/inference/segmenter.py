"""Segmenter: from the scans of a patient to a mask, with a network and the record of how its scans were prepared.

    segmenter = load_segmenter("model")
    subject = segmenter.prepare(["a.nii.gz", "b.nii.gz"])  # any number of scans in any order
    scores, image = segmenter(subject)

No configuration has a part in it. What it decides is how volumes are cut, how often scans are classified, and how much
goes to the network at once.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pimms_tf.data.images import Image, read_image
from pimms_tf.data.resizing import resized
from pimms_tf.data.slots import pad_slots
from pimms_tf.data.subjects import NULL_CLASS, Subject, restore
from pimms_tf.data.windows import resize_window
from pimms_tf.errors import InputError
from pimms_tf.inference.network import Network
from pimms_tf.inference.preparation import Method, Preparation
from pimms_tf.inference.segmentation import axis_across, label_scores, modality_scores, segment
from pimms_tf.models import PIMMS

Scans = Mapping[str, Path | Image] | Sequence[Path | Image]

_VOXELS_TO_CLASSIFY = 2**18  # at once: with the paper's classifier a million voxels take a gigabyte


class Answer(NamedTuple):
    """What the network says of a subject.

    `scores` (scan, modality) float32 are probabilities, in the order of the subject's scans, zero for those that were
    never there.
    `image` lies on the grid of the subject's own files: labels (x, y, z, 1) int32 or probabilities (x, y, z, class)
    float32; None from a network that only classifies scans.
    """

    scores: np.ndarray
    image: Image | None


class Segmenter:
    """Segments subjects from any number of scans in any order: `segmenter(segmenter.prepare(images))`.

    Args:
        model: with weights; of as many modalities and classes as the record says.
        preparation: how its scans were prepared, and how it is to be used.
        method: "slices" segments whole slices, "windows" cuts them; "auto" as `Preparation.takes_slices` says.
        done: is told how many seconds each answer of the segmenter took.

    Raises:
        InputError: slices are asked for where only windows can be had, or the record is of another network.
    """

    def __init__(
        self,
        model: PIMMS,
        preparation: Preparation,
        method: Method = "auto",
        done: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        for what, ours, theirs in (
            ("modalities", model.num_modalities, len(preparation.modalities)),
            ("segmentation classes", model.num_classes, preparation.num_classes),
        ):
            if ours != theirs:
                raise InputError(
                    f"the record of preparation is of a network with {theirs} {what}, this one has {ours}; use the "
                    "record that lies with its weights"
                )
        self.model = model
        self.preparation = preparation
        self.takes_slices = preparation.takes_slices(method)
        self._network = Network(model, done)

    def prepare(self, images: Scans, subject_id: str = "") -> Subject:
        """The subject of a patient's scans, prepared as those of training were, its scans in the order given.

        `images` are files or images that lie on one grid, nameless or under the names of their modalities (or of the
        sections of the configuration); only a network without a classifier (HeMIS), or one whose histograms were
        standardised, needs their names. A single image with several times or components holds as many scans. A scan
        that is zero everywhere counts as absent, and so does one that the record's `least_score` or `least_share` set
        aside where it `looks_at_each` scan; unless none would be left.

        Raises:
            InputError: a file cannot be read; no scan; scans on different grids; a name is needed but not known.
        """
        return self.prepare_with_brain(images, subject_id)[0]

    def prepare_with_brain(self, images: Scans, subject_id: str = "") -> tuple[Subject, np.ndarray]:
        """What `prepare` gives, and the brain (x, y, z) bool on the same grid; empty if it found none.

        It looks for one only where the record says that normalisation does.
        """
        scans = _by_name(images)
        loader = self.preparation.subject_loader(tuple(scans))
        # The first scan decides where the subject lies, to the last digit of the affine, so it must not be by chance.
        first_to_last = self._in_own_order(scans)
        in_own_order = replace(
            loader,
            scans=tuple(list(scans)[place] for place in first_to_last),
            modality=tuple(loader.modality[place] for place in first_to_last),
        )
        scores: list[np.ndarray] = []

        def belonging(each_by_itself: Subject) -> np.ndarray:
            scores.append(self.classify(self._with_empty_slots(each_by_itself))[: len(each_by_itself.valid)])
            belongs = self.preparation.belonging(scores[0])
            return belongs if belongs.any() else each_by_itself.valid

        looks = belonging if self.preparation.looks_at_each else None
        subject, brain = in_own_order.load_with_brain(scans, subject_id, looks)
        subject = replace(subject, scores=scores[0] if scores else None)
        return self._with_empty_slots(_with_scans(subject, np.argsort(first_to_last))), brain

    def _with_empty_slots(self, subject: Subject) -> Subject:
        """As many slots as in training, where empty ones have a say."""
        if not self.preparation.null_class:
            return subject
        return pad_slots(subject, max(len(subject.valid), len(self.preparation.scans)), NULL_CLASS)

    def classify(self, subject: Subject) -> np.ndarray:
        """Scores (scan, modality) float32 of a subject's scans, as in `Answer`, without segmenting anything; those that
        it has, if it was prepared with them.

        Raises:
            InputError: the subject has no scan; a modality that must be named is unknown.
        """
        return self._scores(resized(subject, self.preparation.window) if self.preparation.resizes else subject)

    def __call__(
        self,
        subject: Subject,
        *,
        probabilities: bool = False,
        order: int = 0,
        fill: float = 0.0,
        scores: np.ndarray | None = None,
    ) -> Answer:
        """Scores and segmentation of a subject; any order of its scans gives the same image.

        Args:
            probabilities: those of all classes instead of labels.
            order: of the splines on the way back to the grid of the files. Above 0, labels are the best of the
                interpolated probabilities, since interpolated labels mean nothing.
            fill: value of voxels that no window covers, which is none unless the record's border leaves some.
            scores: what `classify` said of the subject, where it has been asked before.

        Raises:
            InputError: the subject has no scan, or none that is of a modality the network knows; a modality that must
                be named is unknown; the model answers with NaN or infinity.
        """
        seen = resized(subject, self.preparation.window) if self.preparation.resizes else subject
        scores = self._scores(seen) if scores is None else scores
        if self.preparation.variant == "classifier":
            return Answer(scores, None)
        subject, seen = (self._without_strangers(each, scores) for each in (subject, seen))
        marks = self.preparation.threshold is not None and not probabilities
        image = self._image(subject, seen, scores, probabilities=probabilities or marks, order=order, fill=fill)
        if marks:
            image = _marked(image, self.preparation.threshold)
        return Answer(scores, image if probabilities else self._finished(image))

    def mask_of(self, probabilities: Image) -> Image:
        """Labels (x, y, z, 1) int32 of probabilities (x, y, z, class), as the record says they are marked."""
        threshold, classes = self.preparation.threshold, probabilities.data.shape[-1]
        if threshold is None and classes > 1:
            labels = np.argmax(probabilities.data, axis=-1)[..., np.newaxis].astype(np.int32)
            return self._finished(replace(probabilities, data=labels))
        return self._finished(_marked(probabilities, 0.5 if threshold is None else threshold))

    def _finished(self, image: Image) -> Image:
        least_ml = self.preparation.smallest_lesion_ml
        return _without_small_ones(image, least_ml) if least_ml > 0 else image

    def _in_own_order(self, scans: Mapping[str, Image]) -> list[int]:
        """Places of the scans, those that training had in its order, then the others by their content."""
        known = [slot.name.lower() for slot in self.preparation.scans]
        names = list(scans)

        def rank(place: int) -> tuple:
            name = names[place].lower()
            return (known.index(name), b"") if name in known else (len(known), _fingerprint(scans[names[place]]))

        return sorted(range(len(names)), key=rank)

    def _scores(self, subject: Subject) -> np.ndarray:
        preparation = self.preparation
        if subject.scores is not None:
            return subject.scores
        if preparation.variant == "hemis":
            return label_scores(subject, len(preparation.modalities))
        slices = max(1, _VOXELS_TO_CLASSIFY // int(np.prod(subject.scans.shape[:2] + subject.scans.shape[3:])))
        return modality_scores(
            self._network.classify,
            subject,
            preparation.classifier_slices,
            spatial_rank=preparation.spatial_rank,
            batch_size=slices,
        )

    def _without_strangers(self, subject: Subject, scores: np.ndarray) -> Subject:
        """The subject without scans that are none of the modalities, or only guesses beside sure ones."""
        valid = subject.valid & self.preparation.belonging(scores)
        if (valid == subject.valid).all():
            return subject
        if not valid.any():
            best = scores[subject.valid].max()
            raise InputError(
                f"subject {subject.subject_id}: no scan is one of {', '.join(self.preparation.modalities)}: the best "
                f"score is {best:.2f}, and {self.preparation.least_score:g} is needed; check the files"
            )
        return replace(subject, scans=subject.scans * valid, valid=valid)

    def _image(
        self, subject: Subject, seen: Subject, scores: np.ndarray, *, probabilities: bool, order: int, fill: float
    ) -> Image:
        preparation, rank = self.preparation, self.preparation.spatial_rank
        if self.takes_slices:
            axis = axis_across(preparation.window, subject.scans.shape[:3])
            return self._network.segment_slices(subject, scores, axis=axis, probabilities=probabilities, order=order)
        given = None if preparation.classifier_scope == "window" else scores
        if not preparation.resizes:
            return segment(
                self._network.predict,
                subject,
                given,
                preparation.window,
                preparation.border,
                preparation.batch_size,
                spatial_rank=rank,
                probabilities=probabilities,
                order=order,
                fill=fill,
            )
        # Interpolated labels mean nothing, so above order 0 the best of the interpolated probabilities is taken.
        soft = probabilities or order > 0
        full = (0, 0, 1) if rank == 2 else (0, 0, 0)
        small = segment(
            self._network.predict,
            seen,
            given,
            full,
            (0, 0, 0),
            preparation.batch_size,
            spatial_rank=rank,
            probabilities=soft,
        )
        image = restore(subject, resize_window(small.data, subject.scans.shape[:3], order, subject.far_plane), order)
        if soft and not probabilities:
            image = replace(image, data=np.argmax(image.data, axis=-1)[..., np.newaxis].astype(np.int32))
        return image


def _by_name(images: Scans) -> dict[str, Image]:
    """The images, read; nameless ones are numbered from 1, and so are the scans of one image with several."""
    if isinstance(images, (str, Path, Image)):
        images = [images]
    if not isinstance(images, Mapping):
        images = {f"scan {number}": image for number, image in enumerate(images, start=1)}
    if not images:
        raise InputError("there are no scans to be prepared; give at least one")
    scans = {name: image if isinstance(image, Image) else read_image(image) for name, image in images.items()}
    if len(scans) > 1:
        return scans
    ((name, image),) = scans.items()
    channels = np.moveaxis(image.data, -1, 0)
    if len(channels) == 1:
        return scans
    return {
        f"{name}[{number}]": replace(image, data=np.ascontiguousarray(channel)[..., np.newaxis])
        for number, channel in enumerate(channels)
    }


def _fingerprint(image: Image) -> bytes:
    """What orders images by what they hold."""
    told = hashlib.blake2b(np.ascontiguousarray(image.data))
    told.update(np.ascontiguousarray(image.affine))
    return told.digest()


def _with_scans(subject: Subject, places: Sequence[int]) -> Subject:
    if list(places) == list(range(len(subject.valid))):
        return subject
    stack = np.stack([subject.scans[..., place] for place in places])  # (scan, x, y, z): each scan is contiguous
    return replace(
        subject,
        scans=np.moveaxis(stack, 0, -1),
        valid=subject.valid[places],
        modality=subject.modality[places],
        scores=None if subject.scores is None else subject.scores[places],
    )


def _marked(image: Image, threshold: float) -> Image:
    """Labels of probabilities (x, y, z, class): the best class but background where these have `threshold` together."""
    data = image.data
    if data.shape[-1] == 1:
        labels = data[..., 0] >= threshold
    else:
        labels = np.where(1 - data[..., 0] >= threshold, 1 + np.argmax(data[..., 1:], axis=-1), 0)
    return replace(image, data=labels[..., np.newaxis].astype(np.int32))


def _without_small_ones(image: Image, least_ml: float) -> Image:
    """Labels without connected voxels (also over edges and corners) of less volume."""
    lesions, count = ndimage.label(image.data[..., 0] > 0, structure=np.ones((3, 3, 3)))
    voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    # The number of voxels decides, so that the rounding of an affine does not.
    stays = np.bincount(lesions.ravel(), minlength=count + 1) >= np.ceil(least_ml / voxel_ml - 1e-6)
    return replace(image, data=image.data * stays[lesions][..., np.newaxis])
