"""Windows go out and come back: nothing is lost, seams do not show, order and batches do not matter."""

import dataclasses
import re

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pimms_tf.data.grids import Grid
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError
from pimms_tf.inference.segmentation import label_scores, modality_scores, segment


def subject_of(scans, valid=None, modality=None, padding=((0, 0),) * 3):
    scans = np.asarray(scans, np.float32)
    shape = tuple(n - sum(sides) for n, sides in zip(scans.shape[:3], padding, strict=True))
    affine = np.eye(4)
    affine[:3, 3] = [-before for before, _ in padding]
    num_scans = scans.shape[3]
    return Subject(
        subject_id="s012",
        scans=scans,
        valid=np.ones(num_scans, bool) if valid is None else np.array(valid),
        modality=np.full(num_scans, -1, np.int32) if modality is None else np.array(modality, np.int32),
        label=None,
        affine=affine,
        original=Grid(shape, np.eye(4)),
        padding=padding,
    )


def random_subject(*shape, **others):
    return subject_of(np.random.default_rng(7).uniform(0.1, 0.9, shape), **others)


def probability_is_intensity(windows, scores, valid):
    """Two classes; the second has the intensity of the first scan as its probability."""
    lesion = windows[..., 0]
    return np.stack([np.log(1 - lesion), np.log(lesion)], axis=-1)


def label_is_intensity(windows, scores, valid):
    return (windows[..., :1] == np.arange(4)).astype(np.float32)


def neighbourhood(windows, scores, valid):
    """Two classes from all scans, mixed by scores and seen through a lopsided 5×5 filter with zero padding."""
    mixed = np.einsum("b...n,bnm,bn->b...m", windows, scores, valid)
    weights = np.arange(25, dtype=np.float32).reshape(1, 5, 5) / 100
    return np.stack([ndimage.correlate(mixed[..., m], weights, mode="constant") for m in range(2)], axis=-1)


def scores_of(num_scans):
    return np.random.default_rng(8).dirichlet([1, 1], num_scans).astype(np.float32)


def probabilities(predict, subject, scores, window, border, **others):
    return segment(predict, subject, scores, window, border, probabilities=True, **others).data


@pytest.mark.parametrize(
    ("window", "border"),
    [
        ((8, 6, 1), (0, 0, 0)),
        ((8, 6, 1), (2, 1, 0)),
        ((0, 0, 1), (0, 0, 0)),
        ((0, 7, 1), (9, 3, 0)),
        ((1, 6, 8), (0, 1, 2)),
        ((30, 30, 1), (3, 3, 0)),
        ((9, 30, 1), (4, 0, 0)),
    ],
)
def test_windows_cut_and_pasted_are_the_volume_itself(window, border):
    subject = random_subject(17, 13, 4, 1)
    found = probabilities(probability_is_intensity, subject, None, window, border, batch_size=3)
    np.testing.assert_allclose(found[..., 1], subject.scans[..., 0], rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("window", [(8, 6, 5), (0, 0, 0), (8, 0, 40)])
def test_thick_windows_of_a_3d_model_are_the_volume_itself(window):
    subject = random_subject(17, 13, 9, 1)
    found = probabilities(probability_is_intensity, subject, None, window, (2, 1, 2), spatial_rank=3, batch_size=2)
    np.testing.assert_allclose(found[..., 1], subject.scans[..., 0], rtol=1e-6)


def test_a_border_as_wide_as_the_network_sees_hides_the_seams():
    subject, scores = random_subject(40, 37, 2, 2), scores_of(2)
    whole = probabilities(neighbourhood, subject, scores, (0, 0, 1), (0, 0, 0))
    tiled = probabilities(neighbourhood, subject, scores, (16, 15, 1), (2, 2, 0))
    np.testing.assert_allclose(tiled[2:-2, 2:-2], whole[2:-2, 2:-2], atol=1e-6)
    narrow = probabilities(neighbourhood, subject, scores, (16, 15, 1), (1, 1, 0))
    assert np.abs(narrow - whole)[2:-2, 2:-2].max() > 1e-3


def test_the_edge_is_seen_as_if_the_volume_went_on():
    subject, scores = subject_of(np.full((12, 12, 1, 1), 0.7)), np.ones((1, 2), np.float32)
    found = probabilities(neighbourhood, subject, scores, (8, 8, 1), (2, 2, 0))
    np.testing.assert_allclose(found, found[6:7, 6:7] * np.ones_like(found), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_batches_are_always_full_and_change_nothing(batch_size):
    subject, scores = random_subject(20, 21, 3, 2, valid=[True, True]), scores_of(2)
    shapes = set()

    def predict(windows, scores, valid):
        shapes.add((windows.shape, scores.shape, valid.shape))
        return neighbourhood(windows, scores, valid)

    expected = probabilities(neighbourhood, subject, scores, (9, 9, 1), (2, 2, 0))
    found = probabilities(predict, subject, scores, (9, 9, 1), (2, 2, 0), batch_size=batch_size)
    np.testing.assert_array_equal(found, expected)
    assert shapes == {((batch_size, 9, 9, 2), (batch_size, 2, 2), (batch_size, 2))}


def test_scans_in_another_order_with_their_scores_change_nothing():
    subject, scores = random_subject(12, 11, 2, 3, valid=[True, False, True]), scores_of(3)
    order = [2, 0, 1]
    shuffled = dataclasses.replace(subject, scans=subject.scans[..., order], valid=subject.valid[order])
    found = probabilities(neighbourhood, shuffled, scores[order], (8, 8, 1), (2, 2, 0))
    expected = probabilities(neighbourhood, subject, scores, (8, 8, 1), (2, 2, 0))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_absent_scan_arrives_blank_and_marked():
    scans = np.random.default_rng(0).uniform(0.1, 0.9, (6, 6, 2, 2))
    scans[..., 0] = 0
    seen = []

    def predict(windows, scores, valid):
        seen.append((windows[..., 0].any(), valid.tolist()))
        return probability_is_intensity(windows[..., 1:], scores, valid)

    probabilities(predict, subject_of(scans, valid=[False, True]), scores_of(2), (5, 5, 1), (1, 1, 0))
    assert {(bool(blank), *map(tuple, valid)) for blank, valid in seen} == {(False, (False, True))}


def test_without_scores_the_network_scores_each_window_itself():
    received = []

    def predict(windows, scores, valid):
        received.append(scores)
        return probability_is_intensity(windows, scores, valid)

    segment(predict, random_subject(6, 6, 1, 1), None, (6, 6, 1), (0, 0, 0))
    assert received == [None]


def test_labels_are_whole_numbers_and_the_first_of_equals():
    labels = np.random.default_rng(2).integers(0, 4, (9, 8, 3, 1))
    image = segment(label_is_intensity, subject_of(labels), None, (5, 5, 1), (1, 1, 0), batch_size=4)
    assert image.data.dtype == np.int32
    np.testing.assert_array_equal(image.data, labels)
    undecided = segment(label_is_intensity, subject_of(np.full((4, 4, 1, 1), 0.5)), None, (4, 4, 1), (0, 0, 0))
    assert not undecided.data.any()


def test_a_single_class_is_given_as_it_is():
    subject = random_subject(6, 6, 1, 1)
    for keeps in (True, False):
        image = segment(lambda windows, *_: windows, subject, None, (4, 4, 1), (1, 1, 0), probabilities=keeps)
        np.testing.assert_array_equal(image.data, subject.scans)


def test_niftynet_leaves_the_rim_to_the_fill():
    subject = subject_of(np.full((6, 7, 1, 1), 2))
    image = segment(label_is_intensity, subject, None, (5, 5, 1), (1, 2, 0), pads_edges=False, fill=9)
    expected = [
        [9, 9, 9, 9, 9, 9, 9],
        [9, 9, 2, 2, 2, 9, 9],
        [9, 9, 2, 2, 2, 9, 9],
        [9, 9, 2, 2, 2, 9, 9],
        [9, 9, 2, 2, 2, 9, 9],
        [9, 9, 9, 9, 9, 9, 9],
    ]
    np.testing.assert_array_equal(image.data[:, :, 0, 0], expected)


def test_padding_of_the_loader_counts_towards_the_border_and_does_not_come_back():
    padding = ((2, 2), (1, 1), (0, 0))
    subject = random_subject(14, 12, 1, 1, padding=padding)
    sizes = []

    def predict(windows, scores, valid):
        sizes.append(len(windows))
        return probability_is_intensity(windows, scores, valid)

    found = probabilities(predict, subject, None, (6, 6, 1), (2, 2, 0))
    np.testing.assert_allclose(found[..., 1], subject.scans[2:-2, 1:-1, :, 0], rtol=1e-6)
    # 14 + 0 and 12 + 2 voxels hold 5 windows each at steps of 2.
    assert len(sizes) == 5 * 5


# Files on an odd grid: tilted, permuted, flipped, anisotropic.


def odd_affine():
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ [[0, 0, -3.0], [1.1, 0, 0], [0, -0.9, 0]]
    affine[:3, 3] = [20, -30, 12]
    return affine


def write(path, data, affine):
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    return path


def test_labels_come_back_to_the_voxels_of_an_odd_file(tmp_path):
    labels = np.random.default_rng(4).integers(0, 4, (11, 9, 7))
    path = write(tmp_path / "t1.nii.gz", labels, odd_affine())
    subject = SubjectLoader(pixdim_mm=None, padding=(2, 1, 0), whitening=False).load({"T1": path}, "odd")
    assert subject.scans.shape[:3] != labels.shape
    image = segment(label_is_intensity, subject, None, (6, 6, 1), (2, 2, 0), batch_size=8)
    np.testing.assert_array_equal(image.data[..., 0], labels)
    np.testing.assert_allclose(image.affine, odd_affine(), atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_resampled_volumes_come_back_at_the_size_and_place_of_the_file(tmp_path, order):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 20, 9)), indexing="ij")
    inside = (x**2 + y**2 + z**2 < 0.5).astype(np.float32)
    path = write(tmp_path / "t1.nii.gz", inside, odd_affine())
    loader = SubjectLoader(pixdim_mm=(1.0, 1.0, 1.5), whitening=False, orders={"T1": 1})
    subject = loader.load({"T1": path}, "odd")

    def predict(windows, scores, valid):
        return np.stack([0.5 - windows[..., 0], windows[..., 0] - 0.5], axis=-1)

    labels = segment(predict, subject, None, (16, 16, 1), (2, 2, 0), order=order)
    assert labels.data.shape == (24, 20, 9, 1)
    assert labels.data.dtype == np.int32
    np.testing.assert_allclose(labels.affine, odd_affine(), atol=1e-5)
    overlap = 2 * np.sum(labels.data[..., 0] * inside) / (labels.data.sum() + inside.sum())
    assert overlap > 0.9
    soft = segment(predict, subject, None, (16, 16, 1), (2, 2, 0), order=order, probabilities=True)
    assert soft.data.shape == (24, 20, 9, 2)
    assert soft.data.dtype == np.float32
    if order == 1:
        np.testing.assert_array_equal(np.argmax(soft.data, axis=-1), labels.data[..., 0])


# Scores.


def test_probabilities_are_averaged_over_slices_and_absent_scans_get_zeros():
    z = np.arange(40)
    scans = np.zeros((6, 6, 40, 3), np.float32)
    scans[1:4, 1:4, 10:30, :2] = 1
    scans[0, 0, :, 0] = z
    subject = subject_of(scans, valid=[True, True, False])
    calls = []

    def classify(windows, valid):
        calls.append((windows.shape, valid.shape))
        third = windows[:, 0, 0] / 40
        return np.stack([third, 1 - third], axis=-1)

    scores = modality_scores(classify, subject, num_slices=5)
    assert scores.shape == (3, 2)
    assert scores.dtype == np.float32
    assert calls == [((5, 6, 6, 3), (5, 3))]
    np.testing.assert_allclose(scores[:2].sum(axis=-1), 1, rtol=1e-6)
    assert not scores[2].any()
    one_by_one = modality_scores(classify, subject, num_slices=5, batch_size=2)
    np.testing.assert_allclose(one_by_one, scores, rtol=1e-6)
    assert [shape[0] for shape, _ in calls[1:]] == [2, 2, 1]


def seen_slices(subject, num_slices):
    """The z of the slices shown of each scan, for scans whose corner holds z."""
    seen = []

    def classify(windows, valid):
        seen.extend(windows[:, 0, 0])
        return np.ones((*valid.shape, 1))

    modality_scores(classify, subject, num_slices)
    return np.array(seen)


def test_slices_lie_in_the_central_half_of_what_each_scan_shows():
    scans = np.zeros((20, 20, 80, 2), np.float32)
    scans[4:16, 4:16, 0:40, 0] = 1000
    scans[4:16, 4:16, 40:80, 1] = 1000
    scans[0, 0] = np.arange(80)[:, np.newaxis]
    slices = seen_slices(subject_of(scans), 11)
    assert slices.shape == (11, 2)
    assert (np.diff(slices, axis=0) > 0).all()
    assert slices[:, 0].min() >= 10
    assert slices[:, 0].max() <= 30
    np.testing.assert_allclose(slices[:, 1] - slices[:, 0], 40, atol=1)


def test_the_single_slice_asked_for_is_the_middle_one():
    scans = np.ones((3, 3, 9, 1))
    scans[0, 0, :, 0] = np.arange(9)
    scans[2, 2, :, 0] = 50
    assert seen_slices(subject_of(scans), 1).tolist() == [[4]]


def test_a_subject_of_one_slice_is_scored_from_it_once():
    scans = np.full((3, 3, 1, 1), 5.0)
    assert seen_slices(subject_of(scans), 11).tolist() == [[5]]


def test_a_constant_scan_is_scored_from_its_middle():
    scans = np.full((3, 3, 8, 1), 5.0)
    assert seen_slices(subject_of(scans), 4).tolist() == [[5]] * 4


def test_a_3d_classifier_sees_the_whole_volume_once():
    subject = random_subject(5, 6, 7, 2, valid=[True, False])
    shapes = []

    def classify(volumes, valid):
        shapes.append(volumes.shape)
        return np.full((*valid.shape, 3), 0.25)

    scores = modality_scores(classify, subject, spatial_rank=3)
    np.testing.assert_array_equal(scores, [[0.25] * 3, [0] * 3])
    assert shapes == [(1, 5, 6, 7, 2)]


def test_known_labels_become_one_hot_and_absent_scans_zeros():
    subject = random_subject(2, 2, 2, 3, valid=[True, False, True], modality=[2, -1, 0])
    scores = label_scores(subject, 3)
    np.testing.assert_array_equal(scores, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    assert scores.dtype == np.float32


# What a user can mend.


@pytest.mark.parametrize(("modality", "reason"), [(-1, "unknown"), (3, "3, and the model has modalities 0 to 2")])
def test_a_scan_of_unknown_modality_is_named(modality, reason):
    subject = random_subject(2, 2, 2, 2, modality=[0, modality])
    with pytest.raises(InputError, match=f"modality of scan 1 of subject s012 is {reason}; name"):
        label_scores(subject, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (8, 8, 1), "border": (4, 0, 0)}, "border (4, 0, 0) leaves nothing of window (8, 8, 1)"),
        ({"window": (8, 8, 1), "border": (0, 0, 5)}, "border (0, 0, 5) leaves nothing of window (8, 8, 1)"),
        ({"window": (8, 8, 4)}, "window (8, 8, 4) is thick, but a 2-D model sees slices"),
        (
            {"window": (11, 8, 1), "pads_edges": False},
            "window (11, 8, 1) is larger than volume (10, 10, 2) of subject s012",
        ),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"scores": np.ones((3, 2))}, "subject s012 has 2 scans and scores for 3"),
    ],
)
def test_settings_that_cannot_work_are_named(change, message):
    settings = {"scores": None, "window": (8, 8, 1), "border": (2, 2, 0)} | change
    with pytest.raises(InputError, match=re.escape(message)):
        segment(probability_is_intensity, random_subject(10, 10, 2, 2), **settings)


def test_a_subject_without_scans_is_named():
    subject = subject_of(np.zeros((6, 6, 1, 2)), valid=[False, False])
    with pytest.raises(InputError, match="subject s012 has no scan that is not blank"):
        segment(probability_is_intensity, subject, None, (6, 6, 1), (0, 0, 0))


def test_a_diverged_network_is_not_taken_for_a_healthy_brain():
    with pytest.raises(InputError, match="answers subject s012 with NaN or infinity; .* earlier checkpoint"):
        segment(
            lambda windows, *_: np.full((*windows.shape[:-1], 2), np.nan),
            random_subject(6, 6, 1, 1),
            None,
            (6, 6, 1),
            (0, 0, 0),
        )


def test_no_slices_or_empty_batches_cannot_be_scored():
    subject = random_subject(3, 3, 3, 1)
    with pytest.raises(InputError, match="num_slices is 0; .* at least 1 slice"):
        modality_scores(lambda windows, valid: valid, subject, num_slices=0)
    with pytest.raises(InputError, match="batch_size is -1"):
        modality_scores(lambda windows, valid: valid, subject, batch_size=-1)
