"""Properties of simulated subjects: where lesions lie and how they look, grids, heads, repeatability, files."""

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pimms_tf.data.intensity import foreground_masks
from pimms_tf.errors import InputError
from pimms_tf.simulation import (
    Head,
    Hospital,
    LesionMask,
    Protocol,
    Simulator,
    draw_lesions,
    packaged_head,
    read_head,
    read_hospitals,
    read_lesion_masks,
    scan_names,
    simulate,
    write_cohort,
)
from pimms_tf.simulation.tissues import FLUID, INDEX, WHITE, WHITE_LIKE

T1 = Protocol("T1", "MPRAGE", 3.0, 2100.0, 3.0, 1000.0, flip_deg=9.0, plane="volume", snr=60.0)
T2 = Protocol("T2", "spin echo", 3.0, 5000.0, 95.0, snr=60.0)
FLAIR = Protocol("FLAIR", "inversion recovery", 3.0, 9000.0, 120.0, 2480.0, snr=60.0)
CLINIC = Hospital("clinic", (T1, T2, FLAIR), "stripped", (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def head() -> Head:
    return packaged_head(np.random.default_rng(0))


@pytest.fixture(scope="module")
def lesions(head):
    return draw_lesions(head, np.random.default_rng(1), load_ml=20.0)


@pytest.fixture(scope="module")
def slab(head, lesions):
    return simulate(head, CLINIC, np.random.default_rng(2), lesions=lesions, num_slices=20)


@pytest.fixture(scope="module")
def whole(head) -> Head:
    """The same head within a skull, a scalp and skin."""
    tissue = head.tissue.copy()
    for outer_mm, name in ((5, "cerebrospinal fluid"), (8, "cortical bone"), (11, "fat"), (12, "skin")):
        tissue[(tissue == 0) & (head.brain_mm < outer_mm)] = INDEX[name]
    return replace(head, tissue=tissue, whole=True)


# Lesions


def test_grown_lesions_have_the_load_asked_for_and_lie_in_white_matter(head, lesions):
    assert 10 < lesions.label.sum() / 1000 < 24
    box = tuple(slice(start, start + n) for start, n in zip(lesions.start, lesions.label.shape, strict=True))
    tissue = head.tissue[box][lesions.label]
    assert not np.isin(tissue, (FLUID, 0, INDEX["choroid plexus"])).any()
    assert np.isin(tissue, WHITE_LIKE).mean() > 0.7


def test_patients_may_have_lesions_in_the_brain_stem(head):
    below = head.tissue == WHITE
    below &= (np.arange(head.tissue.shape[2]) < np.argwhere(below)[:, 2].mean() - 25)[None, None]
    stem = replace(head, tissue=np.where(below, np.uint8(INDEX["brain stem"]), head.tissue))
    for seed in range(12):
        found = draw_lesions(stem, np.random.default_rng(seed), load_ml=5.0)
        box = tuple(slice(start, start + n) for start, n in zip(found.start, found.label.shape, strict=True))
        if found.label[stem.tissue[box] == INDEX["brain stem"]].any():
            assert found.label.sum() < 8000
            return
    pytest.fail("twelve patients and none has a lesion there")


def test_lesions_are_many_and_mostly_small_as_real_ones_are(lesions):
    sizes = np.bincount(ndimage.label(lesions.label)[0].ravel())[1:]
    assert 20 < len(sizes) < 700
    assert np.median(sizes) < 30
    assert 0.1 < sizes.max() / sizes.sum() < 0.99


def test_lesions_differ_from_each_other_and_inside(lesions):
    marked = lesions.t2[lesions.label]
    low, high = np.percentile(marked, (10, 90))
    # T2 is longer by half as much again and more at the upper decile; the contrast itself is held against real scans.
    assert high > 1.5 * low > 0
    assert 0.3 < np.corrcoef(marked, lesions.t1[lesions.label])[0, 1] < 0.98


def test_real_masks_are_found_again_at_their_place(head):
    mask = np.zeros((30, 30, 30), bool)
    mask[10:20, 10:20, 10:20] = True
    affine = nib.affines.from_matvec(np.eye(3), (15, -35, 10))  # the lesion is about (30, -20, 25), in white matter
    real = LesionMask("cube", mask, affine)
    for seed in range(12):
        found = draw_lesions(head, np.random.default_rng(seed), (real,), load_ml=0.8)
        where = np.argwhere(found.label) + found.start
        middle = nib.affines.apply_affine(head.affine, where.mean(0))
        if abs(abs(middle[0]) - 30) < 8 and np.all(np.abs(middle[1:] - (-20, 25)) < 8):
            return
    pytest.fail("twelve patients and none has the lesion of the mask")


def test_no_load_gives_no_lesion_but_normal_caps(head):
    healthy = draw_lesions(head, np.random.default_rng(0), load_ml=0.0)
    assert not healthy.label.any()
    assert healthy.normal.max() > 0.02


# Scans


def test_an_equal_generator_gives_an_equal_subject_and_another_another(head, lesions):
    one, same, other = (
        simulate(head, CLINIC, np.random.default_rng(seed), lesions=lesions, num_slices=3) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one.scans, same.scans)
    np.testing.assert_array_equal(one.lesion, same.lesion)
    assert one.scans.shape != other.scans.shape or np.mean(one.scans != other.scans) > 0.1


def test_scans_are_finite_and_zero_outside_the_stripped_brain(slab):
    assert slab.scans.dtype == np.float32
    assert np.isfinite(slab.scans).all()
    assert slab.scans.min() == 0
    assert (slab.scans[~ndimage.binary_dilation(slab.brain, iterations=4)] == 0).all()
    np.testing.assert_allclose(nib.affines.voxel_sizes(slab.affine), 2)


def test_lesions_are_bright_on_t2_and_flair_and_dark_on_t1(slab):
    assert slab.lesion.sum() > 60
    normal = (slab.tissue == WHITE) & ~ndimage.binary_dilation(slab.lesion, iterations=2)
    t1, t2, flair = (slab.scans[..., number] for number in range(3))
    assert np.median(flair[slab.lesion]) > 1.15 * np.median(flair[normal])
    assert np.median(t2[slab.lesion]) > 1.15 * np.median(t2[normal])
    assert np.median(t1[slab.lesion]) < 0.95 * np.median(t1[normal])
    fluid = ndimage.binary_erosion(slab.tissue == FLUID) & slab.brain
    assert np.median(flair[fluid]) < 0.6 * np.median(flair[normal])
    assert np.median(t2[fluid]) > 1.8 * np.median(t2[normal])


def test_contrast_agent_brightens_vessels_and_leaves_the_rest(whole, lesions):
    plain = simulate(whole, replace(CLINIC, protocols=(T1,)), np.random.default_rng(3), lesions=lesions, num_slices=2)
    agent = replace(CLINIC, protocols=(replace(T1, contrast="T1ce"),))
    after = simulate(whole, agent, np.random.default_rng(3), lesions=lesions, num_slices=2)
    assert plain.contrasts == ("T1",)
    assert after.contrasts == ("T1ce",)
    assert after.subject().modality.tolist() == [0]


def test_thick_slices_blur_across_and_not_within(head, lesions):
    thick = replace(T2, plane="axial", resolution_mm=2.0, thickness_mm=12.0, snr=1e6, bias=0.0)
    found = simulate(
        head, replace(CLINIC, protocols=(thick,)), np.random.default_rng(4), lesions=lesions, num_slices=20
    )
    scan = found.scans[..., 0]
    inside = ndimage.binary_erosion(found.brain, iterations=5)
    inside[..., :4] = inside[..., -4:] = False
    steps = [np.abs(np.diff(scan, axis=axis)) for axis in range(3)]
    within, across = steps[0][inside[:-1]].mean(), steps[2][inside[..., :-1]].mean()
    assert across < 0.6 * within


def test_less_signal_over_noise_is_noisier(head, lesions):
    def roughness(snr: float) -> float:
        hospital = replace(CLINIC, protocols=(replace(T1, snr=snr, bias=0.0),))
        found = simulate(head, hospital, np.random.default_rng(5), lesions=lesions, num_slices=3)
        white = ndimage.binary_erosion(found.tissue == WHITE)
        return float(found.scans[..., 0][white].std() / found.scans[..., 0][white].mean())

    assert roughness(8.0) > 1.5 * roughness(80.0)


def test_movement_makes_ghosts_outside_the_head(whole, lesions):
    def outside(motion_mm: float) -> float:
        still = replace(T2, snr=1e5, motion_mm=motion_mm)
        hospital = Hospital("x", (still,), "kept", (2.0, 2.0, 4.0))
        found = simulate(whole, hospital, np.random.default_rng(6), lesions=lesions, num_slices=2)
        air = ~ndimage.binary_dilation(found.tissue > 0, iterations=3)
        return float(found.scans[..., 0][air].mean() / found.scans[..., 0][found.brain].mean())

    assert outside(1.5) > 3 * outside(0.0)


def test_heads_are_kept_defaced_or_stripped_as_the_hospital_does(whole, lesions):
    scans = {}
    for treatment in ("kept", "defaced", "stripped", "badly stripped"):
        hospital = Hospital("x", (T2,), treatment, (3.0, 3.0, 3.0))
        scans[treatment] = simulate(whole, hospital, np.random.default_rng(7), lesions=lesions)
    shares = {word: float(np.mean(one.scans[..., 0] > 0)) for word, one in scans.items()}
    assert shares["kept"] > shares["defaced"] > 0
    assert not (scans["kept"].scans == 0).all()
    for word in ("stripped", "badly stripped"):
        one = scans[word]
        beyond = ~ndimage.binary_dilation(one.brain, iterations=6)
        assert not one.scans[beyond].any()
    defaced = scans["defaced"]
    assert (defaced.scans[..., 0][defaced.brain] > 0).all()


def test_a_head_without_a_skull_is_always_stripped(head, lesions):
    kept = simulate(head, replace(CLINIC, head="kept"), np.random.default_rng(8), lesions=lesions, num_slices=2)
    assert (kept.scans == 0).any()
    assert kept.hospital.head == "stripped"


def test_a_subject_is_prepared_as_a_loader_would(slab):
    subject = slab.subject()
    assert nib.aff2axcodes(subject.affine) == ("L", "P", "S")
    assert subject.modality.tolist() == [0, 1, 2]
    assert subject.label.sum() == slab.lesion.sum()
    inside = foreground_masks(slab.scans, "threshold_plus", "and")[::-1, ::-1, :, 0]
    np.testing.assert_allclose(subject.scans[inside].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(subject.scans[inside].std(0), 1, atol=1e-4)
    where, place = np.argwhere(subject.label)[0], np.argwhere(slab.lesion[::-1, ::-1])[0]
    back = [slab.lesion.shape[0] - 1 - place[0], slab.lesion.shape[1] - 1 - place[1], place[2]]
    np.testing.assert_allclose(
        nib.affines.apply_affine(subject.affine, where), nib.affines.apply_affine(slab.affine, back)
    )


def test_a_slab_needs_a_slice(head):
    with pytest.raises(InputError, match="num_slices = 0"):
        simulate(head, CLINIC, np.random.default_rng(0), num_slices=0)


# Files


def test_a_cohort_is_written_with_sidecars_and_a_manifest_and_does_not_depend_on_threads(tmp_path, head):
    hospital = replace(CLINIC, protocols=(T1, FLAIR, replace(T1, contrast="T1ce"), T1), grid_mm=(4.0, 4.0, 6.0))
    simulator = Simulator((hospital,), (head,), seed=3, load_ml=(5, 20), num_slices=4)
    assert write_cohort(tmp_path / "a", simulator, 2, num_threads=2) == ["sim01", "sim02"]
    write_cohort(tmp_path / "b", simulator, 1)
    assert scan_names(hospital.protocols) == ["T1", "FLAIR", "T1ce", "rep2-T1"]
    for name in ("T1", "FLAIR", "rep2-T1", "lesion"):
        one, same = (nib.load(tmp_path / folder / f"sim01_{name}.nii.gz") for folder in "ab")
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(same.dataobj))
        np.testing.assert_allclose(one.header.get_zooms(), (4, 4, 6))
    told = json.loads((tmp_path / "a" / "sim02_FLAIR.json").read_text())
    assert (told["RepetitionTime"], told["EchoTime"], told["InversionTime"]) == (9.0, 0.12, 2.48)
    assert told["MagneticFieldStrength"] == 3.0
    with (tmp_path / "a" / "subjects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == ["sim01", "sim02"]
    stored = np.asarray(nib.load(tmp_path / "a" / "sim01_lesion.nii.gz").dataobj)
    assert float(rows[0]["lesion_ml"]) == pytest.approx(stored.sum() * 0.096, abs=1e-3)
    assert read_hospitals(tmp_path / "a" / "hospitals.json") == (hospital,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as a list of hospitals"),
        ("[]", "holds no list"),
        ('[{"name": "a"}]', "hospital 1: protocols is missing"),
        ('[{"name": "a", "protocols": [{"te": 3}]}]', "hospital 1, protocol 1: te is no setting"),
        ('[{"name": "a", "protocols": [{"contrast": "T1"}]}]', "protocol 1: sequence is missing"),
        ('[{"name": "a", "protocols": [], "grid_mm": 1}]', "hospital 1: protocols is no list"),
    ],
)
def test_a_wrong_file_of_hospitals_ends_as_one_sentence(tmp_path, text, words):
    (tmp_path / "h.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_hospitals(tmp_path / "h.json")


def test_folders_without_maps_or_masks_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no"):
        read_lesion_masks(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        read_lesion_masks(tmp_path / "nowhere")
    small = nib.Nifti1Image(np.full((9, 9, 9), 2, np.uint8), np.eye(4))
    nib.save(small, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="no whole head"):
        read_head(tmp_path / "a.nii.gz")
