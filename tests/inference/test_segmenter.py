"""From files to a mask without a configuration: what the configuration's own inference gives, in any order of scans."""

import dataclasses
import shutil

import keras
import nibabel as nib
import numpy as np
import pytest

from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image, read_image
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError
from pimms_tf.inference.loading import load_segmenter
from pimms_tf.inference.preparation import PREPARATION_FILE, Preparation, ScanSlot, write_preparation
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.models import build_classifier, build_model
from pimms_tf.serving import export_saved_model
from pimms_tf.serving.proof import phantom

SMALL = {"classifier_blocks": 1, "classifier_features": (4, 8), "frontend": "highres_1x1"}
RECORD = Preparation(
    variant="soft",
    choices=SMALL,
    modalities=("T1", "T2", "FLAIR"),
    num_classes=2,
    foreground="threshold_plus",
    classifier_slices=3,
    window=(20, 20, 1),
    border=(6, 6, 0),
)
ORDERS = ((0, 1, 2), (2, 0, 1), (1, 0, 2))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    return build_model("soft", 3, 2, **SMALL)


def files(scans, subject="sub04"):
    return {name: scans / f"{subject}_{name}.nii.gz" for name in ("T1", "T2", "FLAIR")}


def subject_of(*shape, seed=0):
    scans = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    valid, affine = np.ones(shape[3], bool), np.eye(4)
    return Subject("s1", scans, valid, np.arange(shape[3], dtype=np.int32), None, affine, Grid(shape[:3], affine))


def reordered(subject, order):
    order = list(order)
    return dataclasses.replace(
        subject, scans=subject.scans[..., order], valid=subject.valid[order], modality=subject.modality[order]
    )


# Model folders and exports


def test_a_model_folder_alone_gives_the_mask_of_its_configuration(trained_study, eagerly):
    assert trained_study("inference", "x.ini") == 0
    output = trained_study.folder / "model" / "output"
    lines = (output / "modality_scores.csv").read_text().splitlines()[1:4]
    subject_id = lines[0].split(",")[0]
    segmenter = load_segmenter(trained_study.folder / "model")
    scores, image = segmenter(segmenter.prepare(files(trained_study.scans, subject_id)))
    expected = nib.load(output / f"{subject_id}_niftynet_out.nii.gz")
    np.testing.assert_array_equal(image.data[..., 0], np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(image.affine, expected.affine)
    assert [line.split(",")[2:5] for line in lines] == [[f"{score:.6f}" for score in row] for row in scores]


def test_an_export_gives_what_the_model_folder_gives_to_the_last_bit(trained, scans, tmp_path):
    segmenter = load_segmenter(trained / "model")
    export_saved_model(segmenter.model, tmp_path / "export", preparation=segmenter.preparation)
    subject = segmenter.prepare(files(scans))
    scores, image = segmenter(subject, probabilities=True)
    for folder in ("export", "export/1"):
        found = load_segmenter(tmp_path / folder)
        assert found.preparation == segmenter.preparation
        answer = found(found.prepare(files(scans)), probabilities=True)
        np.testing.assert_array_equal(answer.scores, scores)
        np.testing.assert_array_equal(answer.image.data, image.data)
    with pytest.raises(InputError, match="is an export, which has no iteration 2"):
        load_segmenter(tmp_path / "export", 2)


def test_an_earlier_checkpoint_can_be_asked_for(trained):
    first, last = (load_segmenter(trained / "model", iteration) for iteration in (2, None))
    assert any(
        not np.array_equal(one.numpy(), other.numpy())
        for one, other in zip(first.model.variables, last.model.variables, strict=True)
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "models"), "is neither a model folder nor an export"),
        (lambda folder: (folder / PREPARATION_FILE).unlink(), "has no preparation.json, so it is not known how"),
        (
            lambda folder: write_preparation(dataclasses.replace(RECORD, variant="hemis"), folder),
            "does not fit the model",
        ),
        (lambda folder: write_preparation(Preparation(), folder), "does not say which network"),
        (
            lambda folder: write_preparation(dataclasses.replace(RECORD, choices={"frontend": "ornate"}), folder),
            "describes a network that this release of pimms-tf cannot build: frontend is one of",
        ),
        (lambda folder: (folder / "models" / "checkpoint").unlink(), "names no checkpoint"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, trained, spoil, words):
    folder = shutil.copytree(trained / "model", tmp_path / "model")
    spoil(folder)
    with pytest.raises(InputError) as refused:
        load_segmenter(folder)
    assert words in str(refused.value)


# Preparing


def test_scans_may_be_files_or_images_with_or_without_names(model, scans):
    segmenter, named = Segmenter(model, RECORD), files(scans)
    known = segmenter.prepare(named, "s1")
    assert known.modality.tolist() == [0, 1, 2]
    for images in (list(named.values()), [read_image(path) for path in named.values()], map_of(named.values())):
        nameless = segmenter.prepare(images, "s1")
        np.testing.assert_array_equal(nameless.scans, known.scans)
        assert nameless.modality.tolist() == [-1, -1, -1]


def map_of(paths):
    return {f"scan_{number}": path for number, path in enumerate(paths)}


def test_times_of_one_file_are_scans_of_their_own(model, tmp_path, scans):
    volumes = [nib.load(path) for path in files(scans).values()]
    data = np.stack([volume.get_fdata(dtype=np.float32) for volume in volumes], axis=-1)
    nib.save(nib.Nifti1Image(data, volumes[0].affine), tmp_path / "all.nii.gz")
    segmenter = Segmenter(model, RECORD)
    together, apart = segmenter.prepare(tmp_path / "all.nii.gz"), segmenter.prepare(list(files(scans).values()))
    np.testing.assert_array_equal(together.scans, apart.scans)


def test_a_network_with_a_class_for_empty_slots_gets_as_many_slots_as_in_training(scans):
    record = dataclasses.replace(
        RECORD,
        modalities=("empty", "T1", "T2"),
        choices=SMALL | {"null_class": True},
        scans=(ScanSlot("T1", 1), ScanSlot("T2", 2), ScanSlot("FLAIR")),
    )
    segmenter = Segmenter(build_model("soft", 3, 2, **record.choices), record)
    subject = segmenter.prepare({"T2": files(scans)["T2"]})
    assert subject.valid.tolist() == [True, False, False]
    assert subject.modality.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "no scans to be prepared"),
        (["nowhere.nii.gz"], "nowhere.nii.gz"),
        ([Image(np.zeros((4, 4, 4, 1), np.float32), np.eye(4))], "no scan with a voxel other than 0: [scan 1]; check"),
    ],
)
def test_scans_that_cannot_be_prepared_are_refused(model, images, words):
    with pytest.raises(InputError) as refused:
        Segmenter(model, RECORD).prepare(images)
    assert words in str(refused.value)


def test_scans_on_different_grids_are_refused_by_name(model):
    images = {name: Image(np.ones((n, 4, 4, 1), np.float32), np.eye(4)) for name, n in (("a", 4), ("b", 5))}
    with pytest.raises(InputError, match=r"the subject: \[.\] and \[.\] lie on different grids"):
        Segmenter(model, RECORD).prepare(images)


# Any order of the scans


@pytest.mark.parametrize("method", ["slices", "windows"])
def test_any_order_of_the_files_gives_the_same_bytes(model, scans, method):
    record = dataclasses.replace(RECORD, window=(0, 0, 1), border=(0, 0, 0))
    segmenter, paths = Segmenter(model, record, method), list(files(scans).values())
    answers = []
    for order in ORDERS:
        subject = segmenter.prepare([paths[place] for place in order])
        scores, image = segmenter(subject, probabilities=True)
        answers.append((scores[np.argsort(order)], image.data, image.affine, subject.affine))
    for answer in answers[1:]:
        for ours, first in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(ours, first)


def test_grids_that_differ_by_little_do_not_make_the_order_matter(model, scans):
    images = [read_image(path) for path in files(scans).values()]
    shifted = images[1].affine + np.array([[0, 0, 0, 0.01]] * 3 + [[0] * 4])
    images[1] = Image(images[1].data, shifted)
    subjects = [Segmenter(model, RECORD).prepare([images[place] for place in order]) for order in ORDERS]
    for subject in subjects[1:]:
        np.testing.assert_array_equal(subject.affine, subjects[0].affine)
        np.testing.assert_array_equal(subject.original.affine, subjects[0].original.affine)


# Decisions


@pytest.mark.parametrize(
    ("changes", "method", "slices"),
    [
        ({}, "auto", True),
        ({}, "windows", False),
        ({"preset": "niftynet2018"}, "auto", False),
        ({"preset": "niftynet2018"}, "slices", True),
        ({"classifier_scope": "window"}, "auto", False),
        ({"resizes": True}, "auto", False),
        ({"choices": {"mask_scope": "batch"}}, "auto", False),
        ({"choices": {"spatial_rank": 3}}, "auto", False),
        ({"variant": "classifier"}, "slices", False),
    ],
)
def test_slices_are_taken_where_they_can_be_had(changes, method, slices):
    assert dataclasses.replace(RECORD, **changes).takes_slices(method) is slices


def test_slices_that_cannot_be_had_are_refused(model):
    with pytest.raises(InputError, match="inference_mode = slices .* cannot be had with window_sampling = resize"):
        Segmenter(model, dataclasses.replace(RECORD, resizes=True), "slices")


def test_the_record_of_another_network_is_refused(model):
    with pytest.raises(InputError, match="network with 2 modalities, this one has 3"):
        Segmenter(model, dataclasses.replace(RECORD, modalities=("T1", "T2")))


def test_a_classifier_gives_scores_alone(eagerly):
    network = build_classifier(3, classifier_blocks=1, classifier_features=(4, 8))
    record = dataclasses.replace(RECORD, variant="classifier", num_classes=1)
    scores, image = Segmenter(network, record)(subject_of(20, 20, 4, 2))
    assert image is None
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("window", [(100, 100, 0), (20, 20, 0), (0, 0, 0)])
@pytest.mark.parametrize("method", ["slices", "windows"])
def test_a_window_of_full_length_along_z_is_cut_into_slices(model, window, method, eagerly):
    subject = subject_of(22, 20, 2, 2)
    thin = dataclasses.replace(RECORD, window=(*window[:2], 1))
    full = dataclasses.replace(RECORD, window=window, border=(6, 6, 3))
    expected, found = (Segmenter(model, each, method)(subject, probabilities=True).image for each in (thin, full))
    np.testing.assert_array_equal(found.data, expected.data)


# What is marked


class Told:
    """A network that says what it is told of a volume of one slice."""

    num_modalities, num_classes = 3, 2

    def __init__(self, lesion):
        self.lesion = np.asarray(lesion, np.float32)

    def classify(self, scans, valid):
        import tensorflow as tf

        return tf.constant([[[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]]])

    def segment(self, scans, scores, valid):
        import tensorflow as tf

        there = tf.cast(tf.reduce_any(valid), tf.float32)
        odds = np.log(self.lesion / (1 - self.lesion))
        return tf.stack([tf.zeros_like(odds), odds * there], axis=-1)[tf.newaxis]


LESION = [[0.9, 0.1, 0.1, 0.1], [0.1, 0.45, 0.1, 0.1], [0.1, 0.1, 0.1, 0.45], [0.1, 0.1, 0.1, 0.1]]


def told(**changes):
    record = dataclasses.replace(RECORD, window=(0, 0, 1), **changes)
    image = Segmenter(Told(LESION), record, "windows")(subject_of(4, 4, 1, 2)).image
    assert image.data.dtype == np.int32
    return image.data[..., 0, 0].tolist()


def test_a_threshold_marks_what_the_best_class_does_not():
    assert told() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert told(threshold=0.4) == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert told(threshold=0.95) == [[0] * 4] * 4


def test_small_lesions_are_not_marked_and_corners_connect():
    # voxels of 1 mm
    assert told(threshold=0.4, smallest_lesion_ml=0.002) == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert told(threshold=0.4, smallest_lesion_ml=0.0021) == [[0] * 4] * 4


def test_a_scan_that_is_none_of_the_modalities_is_left_out():
    segmenter = Segmenter(Told(LESION), dataclasses.replace(RECORD, window=(0, 0, 1), least_score=0.5), "windows")
    seen = []
    segmenter._network.predict = lambda scans, scores, valid: seen.append((scans, valid)) or np.zeros((1, 4, 4, 2))
    assert segmenter(subject_of(4, 4, 1, 2)).scores.shape == (2, 3)
    ((scans, valid),) = seen
    assert valid.tolist() == [[True, False]]
    assert scans[..., 0].any()
    assert not scans[..., 1].any()
    with pytest.raises(InputError, match=r"no scan is one of T1, T2, FLAIR: the best score is 0.70, and 0.8 is needed"):
        Segmenter(Told(LESION), dataclasses.replace(RECORD, least_score=0.8), "windows")(subject_of(4, 4, 1, 2))


def test_a_scan_that_is_set_aside_by_its_scores_changes_no_voxel_of_the_others(model):
    record = dataclasses.replace(RECORD, foreground="brain", blank_outside=True, least_score=1e-3)
    scans, affine = phantom(record)
    images = [Image(scan[..., np.newaxis].astype(np.float32), affine) for scan in scans]
    scores = Segmenter(model, record).prepare(images).scores
    for place, image in enumerate(images):  # each has the scores that it has by itself
        alone = Segmenter(model, record)
        np.testing.assert_allclose(scores[place], alone.classify(alone.prepare([image]))[0], rtol=0, atol=1e-6)
    lowest, second, _ = np.argsort(scores.max(axis=1))
    least = float(scores.max(axis=1)[[lowest, second]].mean())
    segmenter = Segmenter(model, dataclasses.replace(record, least_score=least))
    kept = [place for place in range(3) if place != lowest]
    everything, others = segmenter.prepare(images), segmenter.prepare([images[place] for place in kept])
    assert everything.valid.tolist() == [place != lowest for place in range(3)]
    np.testing.assert_array_equal(everything.scores, scores)
    np.testing.assert_array_equal(everything.scans[..., kept], others.scans)
    changed, same = (segmenter(subject, probabilities=True).image.data for subject in (everything, others))
    np.testing.assert_allclose(changed, same, rtol=0, atol=1e-5)
    strict = Segmenter(model, dataclasses.replace(record, least_score=0.999))
    nobody = strict.prepare(images)
    with pytest.raises(InputError, match="no scan is one of T1, T2, FLAIR: the best score is 0"):
        strict(nobody)
