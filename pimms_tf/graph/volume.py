"""From raw intensities to a mask inside a graph: what `Segmenter` does with arrays, with stock operations alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from nibabel import orientations

from pimms_tf.graph import grids
from pimms_tf.graph.brain import Brains, brain_mask
from pimms_tf.graph.checks import checked, listed
from pimms_tf.graph.intensity import foreground, fused, standardised, whitened, with_zero_background
from pimms_tf.graph.regions import without_small_parts
from pimms_tf.graph.slices import central_slices, segmented_slices
from pimms_tf.inference.preparation import Preparation
from pimms_tf.models import PIMMS

MOST_VOXELS = 2**27  # of a scan as the network sees it: half a gigabyte
_SMALLEST_FACTOR = 0.01
_PADDING_MODES = ("minimum", "constant", "edge")


class Answer(NamedTuple):
    """What the network says of a subject, on the grid the scans were given on."""

    probability: tf.Tensor  # (x, y, z) float32, of not being background
    mask: tf.Tensor  # (x, y, z) uint8, the class
    modality_scores: tf.Tensor  # (scan, modality) float32, zero for absent scans


class Prepared(NamedTuple):
    """Scans as the network wants them, and the way back."""

    scans: tf.Tensor  # (scan, x, y, z) float32
    valid: tf.Tensor  # (scan,) bool
    turn: grids.Turn
    shape: tf.Tensor  # (3,) of the turned grid, before it was resampled
    padding: tf.Tensor  # (3, 2) voxels before and after each axis
    scores: tf.Tensor | None = None  # (scan, modality) where each scan was classified before the brain was known


def obstacles(preparation: Preparation) -> str:
    """Why a network with this record cannot segment volumes inside a graph; "" if it can."""
    if preparation.variant in ("unknown", "classifier") or not preparation.modalities:
        return "the record of preparation does not say how scans are prepared"
    if preparation.num_classes < 2 or preparation.num_classes > 256:
        return f"num_classes = {preparation.num_classes}, and masks of 2 to 256 classes can be made"
    if preparation.padding_mode not in _PADDING_MODES and (any(preparation.padding) or preparation.padding_to):
        return f"volume_padding_mode = {preparation.padding_mode}, and known here are {', '.join(_PADDING_MODES)}"
    if not preparation.takes_slices():
        return "it segments by windows instead of whole slices (3-D, niftynet2018, resize, or scores of each window)"
    if all(size > 1 for size in preparation.window):
        return f"its window {preparation.window} is thick, but a 2-D network sees slices"
    return ""


def belonging(record: Preparation, scores: tf.Tensor) -> tf.Tensor:
    """Which scans are used by their scores (scan, modality), (scan,) bool; see `Preparation.belonging`."""
    best, modality = tf.reduce_max(scores, axis=-1), tf.argmax(scores, axis=-1)
    surest = tf.math.unsorted_segment_max(best, modality, len(record.modalities))
    is_sure = best >= record.least_share * tf.gather(surest, modality)
    return tf.logical_and(tf.logical_and(best > 0, best >= record.least_score), is_sure)


class VolumeGraph:
    """The graph of a network and its record: prepare, classify, segment, to be called while one is traced.

    Scans are (scan, x, y, z) float32 raw intensities on one grid, `affine` (4, 4) float64 their place in mm as NIfTI
    has it, `names` (scan,) strings what each scan is called, for networks that need to know.
    """

    def __init__(self, model: PIMMS, preparation: Preparation) -> None:
        self.model, self.preparation = model, preparation

    @property
    def needs_names(self) -> bool:
        """Whether every scan must be called by its modality: HeMIS, and networks that standardise histograms."""
        return self.preparation.variant == "hemis" or self.preparation.standardises

    def default_affine(self) -> np.ndarray:
        """(4, 4) of a grid that is as the network wants it, so that nothing has to be turned or resampled."""
        ends = orientations.axcodes2ornt(self.preparation.axcodes or ("R", "A", "S"))
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, ((world, sign), size) in enumerate(zip(ends, self.preparation.pixdim_mm or (1.0,) * 3, strict=True)):
            affine[int(world), axis] = sign * (size or 1.0)
        return affine

    def prepare(self, scans: tf.Tensor, affine: tf.Tensor, names: tf.Tensor | None = None) -> Prepared:
        """The scans turned, resampled, padded, standardised, whitened; InvalidArgument for what cannot be used."""
        record = self.preparation
        scans, affine = _sound(scans, affine)
        slots = self._slots(scans, names)
        if record.zero_background:
            scans = tf.map_fn(with_zero_background, scans, parallel_iterations=1)
        shape = tf.shape(scans)[1:]
        turn = grids.turn_to(record.axcodes, affine, shape)
        scans, affine = grids.turned(scans, turn), grids.turned_affine(affine, turn, shape)
        shape = tf.shape(scans)[1:]
        if record.pixdim_mm is not None:
            scans, affine = self._resampled(scans, affine, slots)
        scans, padding = self._padded(scans)
        valid = tf.reduce_any(scans != 0, axis=(1, 2, 3))
        text = "no scan has a voxel other than 0, so there is nothing to segment"
        scans = checked(scans, tf.reduce_any(valid), text)
        if not record.looks_at_each:
            scans = self._normalised(scans, valid, self._foreground(scans, valid, affine), slots)
            return Prepared(scans, valid, turn, shape, padding)
        brains = Brains(scans, affine)
        scores = self._scores(self._each_by_itself(scans, valid, brains, slots), valid)
        belongs = belonging(record, scores)
        valid = tf.where(tf.reduce_any(belongs), belongs, valid)
        scans = tf.where(valid[:, None, None, None], scans, tf.zeros_like(scans))
        scans = self._normalised(scans, valid, _within(brains.by(valid), scans, valid), slots)
        return Prepared(scans, valid, turn, shape, padding, scores)

    def classify(self, prepared: Prepared, names: tf.Tensor | None = None) -> tf.Tensor:
        """(scan, modality) float32: the probability of each modality, averaged over central slices of each scan."""
        if prepared.scores is not None:
            return prepared.scores
        if self.preparation.variant != "hemis":
            return self._scores(prepared.scans, prepared.valid)
        modality = tf.gather([slot.modality for slot in self._known()], self._slots(prepared.scans, names))
        scores = tf.one_hot(modality, len(self.preparation.modalities))
        return tf.where(prepared.valid[:, None], scores, tf.zeros_like(scores))

    def segment(self, prepared: Prepared, affine: tf.Tensor, scores: tf.Tensor) -> Answer:
        """Probability and mask on the grid with `affine` that the scans came from, by the scores of `classify`."""
        record = self.preparation
        valid = tf.logical_and(prepared.valid, belonging(record, scores))
        text = (
            f"no scan is one of {', '.join(record.modalities)}: the best score is ",
            tf.strings.as_string(tf.reduce_max(scores), precision=2),
            f", and {record.least_score:g} is needed; check the scans",
        )
        valid = checked(valid, tf.reduce_any(valid), *text)
        scans = tf.where(valid[:, None, None, None], prepared.scans, tf.zeros_like(prepared.scans))
        padded_scans, padded_valid = self._with_empty_slots(scans, valid)
        missing = tf.shape(padded_valid)[0] - tf.shape(valid)[0]
        probability, mask = segmented_slices(
            self.model,
            self._cast(padded_scans),
            tf.pad(scores, [[0, missing], [0, 0]]),
            padded_valid,
            _axis_across(record.window),
            record.threshold,
        )
        probability, mask = (self._restored(each, prepared) for each in (probability, mask))
        if record.smallest_lesion_ml > 0:
            voxel_ml = tf.abs(tf.linalg.det(tf.cast(affine, tf.float64)[:3, :3])) / 1000
            least = tf.cast(tf.math.ceil(record.smallest_lesion_ml / voxel_ml - 1e-6), tf.int32)
            mask = tf.where(without_small_parts(mask > 0, least), mask, tf.zeros_like(mask))
        text = "the network answers with NaN or infinity, so its training has diverged; take another version"
        return checked(Answer(probability, mask, scores), tf.reduce_all(tf.math.is_finite(probability)), text)

    def _known(self) -> tuple:
        """The slots by whose names scans can be called."""
        named = [self.preparation.slot_of(name) for name in self.preparation.modalities]
        slots = (*self.preparation.scans, *named)
        return tuple(slot for slot in slots if slot.landmarks or not self.preparation.standardises)

    def _slots(self, scans: tf.Tensor, names: tf.Tensor | None) -> tf.Tensor | None:
        """(scan,) int32: the first of `_known` that has the name of each scan."""
        if not self.needs_names:
            return None
        known = [slot.name.lower() for slot in self._known()]
        number = tf.shape(names)[0]
        text = ("names has ", number, " entries for ", tf.shape(scans)[0], " scans; give one for each scan")
        names = checked(names, number == tf.shape(scans)[0], *text)
        fits = tf.strings.lower(names)[:, None] == tf.constant(known)
        listing = ", ".join(dict.fromkeys(slot.name for slot in self._known()))
        text = ("this network must be told which scan is which; call each of them one of ", listing)
        return tf.argmax(tf.cast(checked(fits, tf.reduce_all(tf.reduce_any(fits, axis=1)), *text), tf.int32), axis=1)

    def _resampled(self, scans: tf.Tensor, affine: tf.Tensor, slots: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        record = self.preparation
        before = tf.shape(scans)[1:]
        after = grids.resampled_shape(before, affine, record.pixdim_mm)
        spacing = tf.strings.reduce_join(tf.strings.as_string(grids.spacing_of(affine), precision=4), separator=", ")
        text = (listed(before), " voxels of ", spacing, " mm would become ", listed(after), "; correct the voxel size")
        count = tf.cast(tf.shape(scans)[0], tf.int64) * tf.reduce_prod(after)
        shrinks = tf.reduce_max(tf.cast(after, tf.float64) / tf.cast(before, tf.float64)) >= _SMALLEST_FACTOR
        in_bounds = tf.logical_and(tf.reduce_all(after < 2**15), count <= 4 * MOST_VOXELS)
        after = tf.cast(checked(after, tf.logical_and(in_bounds, shrinks), *text), tf.int32)
        known = self._known() or (record.slot_of(""),)
        orders = sorted({slot.order for slot in known})
        if slots is None:
            orders = [record.slot_of("").order]
        each = [self._by_splines(scans, after, order) for order in orders]
        result = each[0]
        for order, volumes in zip(orders[1:], each[1:], strict=True):
            has_it = tf.gather(tf.constant([slot.order == order for slot in known]), slots)
            result = tf.where(has_it[:, None, None, None], volumes, result)
        old, new = tf.cast(before, tf.float64), tf.cast(after, tf.float64)
        both = tf.logical_and(before > 1, after > 1)
        step = tf.where(both, (old - 1) / tf.where(both, new - 1, tf.ones_like(new)), old / new)
        step = tf.where(before == after, tf.ones_like(step), step)
        return result, affine * tf.concat([step, [1.0]], axis=0)

    def _by_splines(self, scans: tf.Tensor, after: tf.Tensor, order: int) -> tf.Tensor:
        if order < 0:
            text = "this network allows no interpolation, but the scans have another voxel size than those it knows"
            return checked(scans, tf.reduce_all(tf.shape(scans)[1:] == after), text)
        return grids.resampled(scans, after, order, self.preparation.keep_zeros, self.preparation.far_plane)

    def _padded(self, scans: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record = self.preparation
        padding = tf.constant(_pairs(record.padding), tf.int32)
        if record.padding_to is not None:
            wanted = tf.constant([*record.padding_to, 0, 0, 0][:3], tf.int32)
            missing = tf.maximum(wanted - tf.shape(scans)[1:], 0)
            padding = tf.stack([missing // 2, (missing + 1) // 2], axis=1)
        elif not any(map(any, _pairs(record.padding))):
            return scans, padding
        for axis in range(3):
            scans = _padded_along(scans, 1 + axis, padding[axis], record.padding_mode)
        return scans, padding

    def _scores(self, scans: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """(scan, modality) float32 of scans as the classifier wants them; zero for absent ones."""
        padded_scans, padded_valid = self._with_empty_slots(scans, valid)
        windows = central_slices(padded_scans, self.preparation.classifier_slices)  # (slice, x, y, scan)

        def of_one(window: tf.Tensor) -> tf.Tensor:
            return tf.cast(self.model.classify(self._cast(window[None]), padded_valid[None])[0], tf.float32)

        # One at a time: all together would take gigabytes.
        each = tf.map_fn(of_one, windows, parallel_iterations=1)
        scores = tf.reduce_mean(each, axis=0)[: tf.shape(valid)[0]]
        return tf.where(valid[:, None], scores, tf.zeros_like(scores))

    def _each_by_itself(
        self, scans: tf.Tensor, valid: tf.Tensor, brains: Brains, slots: tf.Tensor | None
    ) -> tf.Tensor:
        """The scans, each normalised within its own brain; one without a brain within its foreground."""

        def own(place: tf.Tensor) -> tf.Tensor:
            alone = tf.range(tf.shape(scans)[0]) == place
            return tf.cond(
                valid[place],
                lambda: _within(brains.by(alone), scans, alone)[place],
                lambda: tf.zeros_like(scans[place], tf.bool),
            )

        places = tf.range(tf.shape(scans)[0])
        masks = tf.map_fn(own, places, fn_output_signature=tf.bool, parallel_iterations=1)
        return self._normalised(scans, valid, masks, slots)

    def _normalised(
        self, scans: tf.Tensor, valid: tf.Tensor, foreground: tf.Tensor | None, slots: tf.Tensor | None
    ) -> tf.Tensor:
        """The scans standardised and whitened within their foreground (scan, x, y, z), everywhere if that is None."""
        record = self.preparation
        masked = foreground is not None
        masks = foreground if masked else tf.broadcast_to(valid[:, None, None, None], tf.shape(scans))
        landmarks = [slot.landmarks for slot in self._known()]
        mappings = tf.constant(landmarks, tf.float64) if record.standardises else None

        def change(place: tf.Tensor) -> tf.Tensor:
            scan, mask = scans[place], masks[place]
            if mappings is not None:
                inside = mask if masked else tf.ones_like(mask)
                mapping = tf.gather(mappings, tf.gather(slots, place))
                scan = standardised(scan, inside, mapping, record.norm_type, record.cutoff)
            if record.whitening:
                scan = whitened(scan, mask)
            return tf.where(mask, scan, tf.zeros_like(scan)) if record.blank_outside and masked else scan

        def unless_absent(place: tf.Tensor) -> tf.Tensor:
            return tf.cond(valid[place], lambda: change(place), lambda: scans[place])

        places = tf.range(tf.shape(scans)[0])
        changed = tf.map_fn(unless_absent, places, fn_output_signature=tf.float32, parallel_iterations=1)
        return tf.ensure_shape(changed, (None, None, None, None))

    def _foreground(self, scans: tf.Tensor, valid: tf.Tensor, affine: tf.Tensor) -> tf.Tensor | None:
        """Which voxels normalisation looks at, (scan, x, y, z) bool; None for all."""
        record = self.preparation
        if record.foreground is None or not (record.whitening or record.standardises):
            return None
        if record.foreground == "brain":
            return _within(brain_mask(scans, valid, affine), scans, valid)
        return fused(_foregrounds(scans, valid, record.foreground), valid, record.fusion, record.multi_is_empty)

    def _with_empty_slots(self, scans: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As many slots as in training, for networks in which empty ones have a say."""
        if not self.preparation.null_class:
            return scans, valid
        missing = tf.maximum(len(self.preparation.scans) - tf.shape(valid)[0], 0)
        return tf.pad(scans, [[0, missing], [0, 0], [0, 0], [0, 0]]), tf.pad(valid, [[0, missing]])

    def _cast(self, scans: tf.Tensor) -> tf.Tensor:
        return tf.cast(scans, self.model.compute_dtype)

    def _restored(self, volume: tf.Tensor, prepared: Prepared) -> tf.Tensor:
        """A volume (x, y, z) of the prepared grid on the one that the scans came from."""
        before, after = prepared.padding[:, 0], prepared.padding[:, 1]
        volume = tf.slice(volume, before, tf.shape(volume) - before - after)
        volume = grids.nearest(volume, prepared.shape, self.preparation.far_plane)
        return grids.turned_back(volume[None], prepared.turn)[0]


def _sound(scans: tf.Tensor, affine: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(scans)
    scans = checked(scans, shape[0] > 0, "there is no scan; give at least one")
    text = ("scans of ", listed(shape[1:]), " voxels show nothing; give whole volumes")
    scans = checked(scans, tf.reduce_all(shape > 0), *text)
    count = tf.reduce_prod(tf.cast(shape[1:], tf.int64))
    text = ("scans of ", listed(shape[1:]), " voxels are larger than any that is taken here")
    scans = checked(scans, count <= MOST_VOXELS, *text)
    text = "a scan has voxels that are NaN or infinite; replace them, by 0 outside the head for instance"
    scans = checked(scans, tf.reduce_all(tf.math.is_finite(scans)), text)
    text = "the affine is no (4, 4) matrix that says where voxels lie in mm: it cannot be inverted"
    sound = tf.logical_and(tf.reduce_all(tf.math.is_finite(affine)), tf.abs(tf.linalg.det(affine[:3, :3])) > 1e-12)
    return scans, checked(affine, sound, text)


def _within(brain: tf.Tensor, scans: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """The brain for each scan, (scan, x, y, z); where it is empty, their foreground."""
    return tf.cond(
        tf.reduce_any(brain),
        lambda: tf.broadcast_to(brain, tf.shape(scans)),
        lambda: fused(_foregrounds(scans, valid, "otsu_plus"), valid, "and", False),
    )


def _foregrounds(scans: tf.Tensor, valid: tf.Tensor, method: str) -> tf.Tensor:
    def one(place: tf.Tensor) -> tf.Tensor:
        scan = scans[place]
        return tf.cond(valid[place], lambda: foreground(scan, method), lambda: tf.zeros_like(scan, tf.bool))

    places = tf.range(tf.shape(scans)[0])
    return tf.map_fn(one, places, fn_output_signature=tf.bool, parallel_iterations=1)


def _padded_along(scans: tf.Tensor, axis: int, pair: tf.Tensor, mode: str) -> tf.Tensor:
    """The volume with voxels added along an axis, as numpy.pad does with a mode of `_PADDING_MODES`."""
    if mode == "constant":
        return tf.pad(scans, [pair if k == axis else [0, 0] for k in range(4)])
    length = tf.shape(scans)[axis]
    if mode == "edge":
        return tf.gather(scans, tf.clip_by_value(tf.range(-pair[0], length + pair[1]), 0, length - 1), axis=axis)
    least = tf.reduce_min(scans, axis=axis, keepdims=True)
    return tf.concat([tf.repeat(least, pair[0], axis), scans, tf.repeat(least, pair[1], axis)], axis=axis)


def _pairs(padding: Sequence[int]) -> list[tuple[int, int]]:
    return ([(int(voxels), int(voxels)) for voxels in padding] + [(0, 0)] * 3)[:3]


def _axis_across(window: Sequence[int]) -> int:
    """The axis along which slices lie, see `inference.segmentation.axis_across`."""
    return next(axis for test in (lambda n: n == 1, lambda n: n <= 0) for axis in (2, 1, 0) if test(window[axis]))
