"""A graph makes of volumes and files what `Segmenter` makes of them, whatever the record says."""

from dataclasses import replace

import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.data.images import Image
from pimms_tf.graph import VolumeGraph, mask_files, obstacles, read_files
from pimms_tf.graph.volume import belonging
from pimms_tf.inference.preparation import Preparation, ScanSlot
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.models import build_model
from pimms_tf.serving.proof import phantom

NAMES = ("T1", "T2", "FLAIR")
RECORD = Preparation(
    variant="soft",
    choices={"classifier_blocks": 1, "classifier_features": (4, 8), "frontend": "highres_1x1"},
    modalities=NAMES,
    num_classes=2,
    axcodes=("L", "P", "S"),
    pixdim_mm=(1.5, 1.5, 0.0),
    foreground="otsu_plus",
    scans=tuple(ScanSlot(name, place) for place, name in enumerate(NAMES)),
    classifier_slices=3,
)
LANDMARKS = tuple(float(n) for n in np.linspace(0, 100, 13))
RECORDS = {
    "plain": RECORD,
    "stripped": replace(RECORD, foreground="threshold_plus", fusion="multi", blank_outside=True, far_plane="zeroed"),
    "no foreground, coronal": replace(RECORD, foreground=None, pixdim_mm=None, axcodes=None, window=(0, 1, 0)),
    "brain": replace(RECORD, foreground="brain", blank_outside=True, variant="hard"),
    "histograms": replace(RECORD, scans=tuple(replace(slot, landmarks=LANDMARKS) for slot in RECORD.scans)),
    "hemis": replace(RECORD, variant="hemis", scans=tuple(replace(s, order=1 + s.modality) for s in RECORD.scans)),
    "padded": replace(RECORD, padding=(3, 2, 1), whitening=False, foreground=None),
    "padded to": replace(RECORD, padding_to=(50, 0, 9), padding_mode="edge", keep_zeros=False),
    "marked": replace(RECORD, threshold=0.3, smallest_lesion_ml=0.2, zero_background=True),
    "empty slots": replace(RECORD, modalities=("empty", "T1", "T2"), choices=RECORD.choices | {"null_class": True}),
}


def model_of(record):
    keras.utils.set_random_seed(3)
    return build_model(record.variant, 3, 2, **record.choices)


def in_graph(graph, scans, affine, names=None):
    scans, affine = tf.cast(np.asarray(scans), tf.float32), tf.cast(affine, tf.float64)
    names = None if names is None else tf.constant(names)
    prepared = graph.prepare(scans, affine, names)
    return graph.segment(prepared, affine, graph.classify(prepared, names))


@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
def test_a_volume_is_answered_as_by_inference(record, rounding):
    check_answer(record, rounding)


def test_a_scan_that_is_set_aside_has_no_say_in_the_brain_as_by_inference(rounding):
    record = replace(RECORDS["brain"], least_score=1e-3)
    scans, affine = phantom(record)
    images = [Image(scan[..., None].astype(np.float32), affine) for scan in scans]
    best = np.sort(Segmenter(model_of(record), record).prepare(images).scores.max(axis=1))
    subject = check_answer(replace(record, least_score=float(best[:2].mean())), rounding)
    assert (subject.valid.sum(), len(subject.valid)) == (2, 4)


def check_answer(record, rounding):
    scans, affine = phantom(record)
    if record.zero_background:
        scans = [(scan - scan.mean()) / scan.std() for scan in scans]
    scans = [scans[0], np.zeros_like(scans[1]), *scans[1:]]  # one is absent
    names = ["T1", "t2", "T2", "FLAIR"][: len(scans)]
    model = model_of(record)
    graph, segmenter = VolumeGraph(model, record), Segmenter(model, record)
    volumes = [Image(scan[..., None].astype(np.float32), affine) for scan in scans]
    named = dict(zip(names if graph.needs_names else map(str, range(len(scans))), volumes, strict=True))
    subject = segmenter.prepare(named)
    scores, image = segmenter(subject, probabilities=True)
    names = tf.constant(names) if graph.needs_names else None
    prepared = graph.prepare(tf.constant(np.stack(scans), tf.float32), tf.constant(affine, tf.float64), names)
    expected = np.moveaxis(subject.scans, -1, 0)[: len(scans)]
    np.testing.assert_allclose(prepared.scans, expected, rtol=1e-6, atol=1e-6)
    found = graph.segment(prepared, tf.constant(affine, tf.float64), graph.classify(prepared, names))
    np.testing.assert_allclose(found.modality_scores, scores[: len(scans)], rtol=0, atol=1e-5)

    def probabilities(windows):
        given = (np.broadcast_to(each, (len(windows), *each.shape)) for each in (scores, subject.valid))
        return keras.ops.softmax(model.segment(windows, *given))

    # Crops of another size are computed otherwise, and weights that were drawn make much of the last digit.
    tolerance = max(1e-5, rounding(probabilities, np.moveaxis(subject.scans, 2, 0)))
    assert tolerance < 1e-3
    np.testing.assert_allclose(found.probability, image.data[..., 1], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(found.mask, segmenter(subject).image.data[..., 0])
    return subject


def test_files_are_answered_as_volumes_are_in_any_order():
    scans, affine = phantom(RECORD)
    graph = VolumeGraph(model_of(RECORD), RECORD)
    expected = in_graph(graph, scans, affine)
    files = [nib.Nifti1Image(scan, affine).to_bytes() for scan in scans]
    for order in ((0, 1, 2), (2, 0, 1)):
        read = read_files(tf.constant([files[place] for place in order]))
        found = in_graph(graph, read.scans, read.affine)
        np.testing.assert_array_equal(found.mask, expected.mask)
        np.testing.assert_array_equal(found.modality_scores, tf.gather(expected.modality_scores, order))
        image = nib.Nifti1Image.from_bytes(mask_files(found.mask, read).numpy())
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected.mask)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"scans": np.zeros((0, 3, 3, 3))}, "there is no scan"),
        ({"scans": np.zeros((1, 3, 3, 3))}, "no scan has a voxel other than 0"),
        ({"scans": np.full((1, 3, 3, 3), np.nan)}, "NaN or infinite"),
        ({"scans": np.ones((1, 3, 0, 3))}, "scans of 3 x 0 x 3 voxels show nothing"),
        ({"scans": np.ones((1, 6, 6, 6))}, "no voxel of foreground|the same in every voxel"),
        ({"affine": np.zeros((4, 4))}, "it cannot be inverted"),
        ({"affine": np.diag([9e4, 9e4, 1.0, 1.0])}, "correct the voxel size"),
    ],
)
def test_volumes_that_cannot_be_used_are_refused_in_words(change, complaint):
    scans, affine = phantom(RECORD)
    given = {"scans": scans, "affine": affine} | change
    with pytest.raises(tf.errors.InvalidArgumentError, match=complaint):
        in_graph(VolumeGraph(model_of(RECORD), RECORD), given["scans"], given["affine"])


def test_a_network_that_must_know_the_names_says_which():
    record = RECORDS["histograms"]
    scans, affine = phantom(record)
    graph = VolumeGraph(model_of(record), record)
    with pytest.raises(tf.errors.InvalidArgumentError, match="call each of them one of T1, T2, FLAIR"):
        in_graph(graph, scans[:2], affine, ["T1", "PD"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="names has 1 entries for 2 scans"):
        in_graph(graph, scans[:2], affine, ["T1"])


def test_scans_of_no_known_modality_are_refused_with_the_score():
    record = replace(RECORD, least_score=0.999)
    scans, affine = phantom(record)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no scan is one of T1, T2, FLAIR: the best score is 0"):
        in_graph(VolumeGraph(model_of(record), record), scans, affine)


def test_which_scans_are_used_is_decided_as_by_inference():
    scores = np.random.default_rng(0).dirichlet((0.7, 0.7, 0.7), (50, 6)).astype(np.float32)
    scores[:, -1] = 0  # is absent
    for record in (RECORD, replace(RECORD, least_score=0.6), replace(RECORD, least_score=0.5, least_share=0.8)):
        for patient in scores:
            np.testing.assert_array_equal(belonging(record, tf.constant(patient)), record.belonging(patient))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"choices": {"spatial_rank": 3}}, "3-D"),
        ({"preset": "niftynet2018"}, "windows instead of whole slices"),
        ({"resizes": True}, "resize"),
        ({"padding": (1, 1, 1), "padding_mode": "reflect"}, "volume_padding_mode = reflect"),
        ({"variant": "unknown"}, "does not say how scans are prepared"),
    ],
)
def test_what_stands_in_the_way_of_volumes_is_said(change, reason):
    assert not obstacles(RECORD)
    assert reason in obstacles(replace(RECORD, **change))
