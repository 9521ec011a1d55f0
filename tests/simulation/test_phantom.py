"""Simulated subjects: the signal equations, the contrasts they give, the lesions, and the files."""

import time
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pimms_tf.errors import InputError
from pimms_tf.simulation import atlas, phantom
from pimms_tf.simulation.phantom import CSF, HYPERINTENSITY, TISSUES, WHITE_MATTER
from pimms_tf.simulation.scans import bias_field

SPACING_MM = (2.0, 2.0, 3.0)
TEMPLATE = Path(__file__).parents[2].parent / "shared" / "data" / "real" / "template_icbm152_2009a_sym"


def subject(seed: int = 0, **choices) -> phantom.Phantom:
    return phantom.draw_phantom(np.random.default_rng(seed), SPACING_MM, **choices)


@pytest.fixture(scope="module")
def three() -> list[phantom.Phantom]:
    return [subject(seed) for seed in range(3)]


def mean_by_tissue(one: phantom.Phantom, scan: np.ndarray) -> np.ndarray:
    """Mean intensity where a tissue fills nearly the whole voxel, in order TISSUES."""
    return np.array([scan[one.fractions[..., tissue] > 0.9].mean() for tissue in range(len(TISSUES))])


# Contrast


def test_every_protocol_in_range_orders_the_tissues_as_radiologists_expect():
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(200):
        drawn = phantom.draw_protocols(rng)
        grey, white, csf, lesion = ([phantom.signal(tissue, p) for p in drawn] for tissue in TISSUES)
        assert white[0] > grey[0] > abs(csf[0])
        assert white[0] > lesion[0] > abs(csf[0])
        assert csf[1] > lesion[1] > grey[1] > white[1]
        assert lesion[2] > grey[2] > white[2] > 3 * abs(csf[2])
        kinds.add(drawn.t1.ti_ms is None)
    assert kinds == {True, False}


def test_tissues_of_a_subject_scatter_around_the_published_values():
    rng = np.random.default_rng(0)
    drawn = [phantom.draw_tissues(rng) for _ in range(300)]
    for index, published in enumerate(TISSUES):
        t1_ms = np.array([tissues[index].t1_ms for tissues in drawn])
        assert t1_ms.mean() == pytest.approx(published.t1_ms, rel=0.02)
        assert 0.01 < t1_ms.std() / published.t1_ms < 0.1
    assert {tissue.proton_density for tissue in drawn[0]} == {t.proton_density for t in TISSUES}


# Noise and bias


def test_noise_on_nothing_is_rayleigh_distributed():
    noise = phantom.add_rician_noise(np.zeros((60, 60, 60), np.float32), 2.0, np.random.default_rng(0))
    assert noise.min() >= 0
    assert noise.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)
    assert noise.std() == pytest.approx(2 * np.sqrt(2 - np.pi / 2), rel=0.01)


def test_noise_on_a_strong_signal_is_gaussian_with_the_rician_offset():
    noisy = phantom.add_rician_noise(np.full((60, 60, 60), 50, np.float32), 2.0, np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(np.sqrt(50**2 + 2**2), rel=0.001)
    assert noisy.std() == pytest.approx(2, rel=0.01)


def test_noise_of_no_width_gives_the_magnitude():
    scan = np.array([[[-3.0, 0.0, 2.0]]], np.float32)
    np.testing.assert_array_equal(phantom.add_rician_noise(scan, 0.0, np.random.default_rng(0)), [[[3, 0, 2]]])


def test_the_bias_field_is_positive_smooth_and_moderate():
    gain = bias_field((40, 50, 30), 0.12, np.random.default_rng(0))
    assert gain.shape == (40, 50, 30)
    assert 0.5 < gain.min() < 1 < gain.max() < 2
    assert max(np.abs(np.diff(gain, axis=axis)).max() for axis in range(3)) < 0.06
    np.testing.assert_array_equal(bias_field((4, 5, 6), 0.0, np.random.default_rng(0)), 1)


# Atlas


def test_the_shipped_atlas_is_small_and_carries_its_notice():
    with resources.as_file(resources.files("pimms_tf.simulation") / "assets") as assets:
        assert sum(path.stat().st_size for path in assets.glob("*.nii.gz")) <= 2e6
        notice = (assets / "NOTICE.txt").read_text(encoding="utf-8")
    assert "Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "10.1016/j.neuroimage.2010.07.033" in notice


def test_atlas_probabilities_sum_to_one_in_the_brain_and_are_symmetric():
    maps = atlas.tissue_maps()
    total = maps.probability.sum(-1)
    np.testing.assert_allclose(total[total > 0], 1, rtol=1e-6)
    np.testing.assert_array_equal(maps.probability, maps.probability[::-1])
    assert nib.aff2axcodes(maps.affine) == ("R", "A", "S")
    # The midline is x = 0; adult brains have 1.2 to 1.9 l, the lateral ventricles of this average 10 to 25 ml.
    assert maps.affine[0, 3] + (total.shape[0] - 1) / 2 == 0
    assert 1.2e6 < (total > 0).sum() < 2.0e6
    assert 10e3 < maps.ventricles.sum() < 25e3
    assert maps.probability[..., 2][maps.ventricles].min() >= 0.5


@pytest.mark.skipif(not TEMPLATE.is_dir(), reason="the ICBM152 template is not beside the repository")
def test_the_atlas_can_be_made_again_from_the_template(tmp_path):
    atlas.write_tissue_maps(TEMPLATE, tmp_path)
    with resources.as_file(resources.files("pimms_tf.simulation") / "assets") as assets:
        for name in ("tissue_maps.nii.gz", "ventricles.nii.gz"):
            made, shipped = nib.load(tmp_path / name), nib.load(assets / name)
            np.testing.assert_array_equal(np.asarray(made.dataobj), np.asarray(shipped.dataobj))
            np.testing.assert_array_equal(made.affine, shipped.affine)


# Subjects


def test_an_equal_seed_gives_an_equal_subject_and_another_seed_another():
    one, same, other = subject(5), subject(5), subject(6)
    assert one.protocols == same.protocols
    assert one.tissues == same.tissues
    for name in ("t1", "t2", "flair", "lesion", "fractions", "affine"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert one.protocols != other.protocols
    assert np.mean(one.fractions != other.fractions) > 0.1


def test_scans_and_lesion_share_one_grid(three):
    for one in three:
        shapes = {scan.shape for scan in (one.t1, one.t2, one.flair, one.lesion)}
        assert shapes == {one.fractions.shape[:3]}
        np.testing.assert_allclose(nib.affines.voxel_sizes(one.affine), SPACING_MM)
        assert nib.aff2axcodes(one.affine) == ("R", "A", "S")
        assert {scan.dtype for scan in (one.t1, one.t2, one.flair)} == {np.dtype(np.float32)}
        assert one.lesion.dtype == bool


def test_contrasts_are_those_of_t1w_t2w_and_flair(three):
    for one in three:
        grey, white, csf, lesion = mean_by_tissue(one, one.t1)
        assert white > grey > csf
        assert white > lesion > csf
        grey, white, csf, lesion = mean_by_tissue(one, one.t2)
        assert csf > grey > white
        assert csf > lesion > white
        grey, white, csf, lesion = mean_by_tissue(one, one.flair)
        assert lesion > white > csf
        assert grey > white


def test_lesions_lie_in_white_matter_only(three):
    for one in three:
        grey, white, csf, hyperintense = np.moveaxis(one.fractions[one.lesion], -1, 0)
        assert np.all(white + hyperintense > 0.6)
        assert np.all(hyperintense >= white)
        assert max(grey.max(), csf.max()) < 0.4


def test_lesions_stand_out_where_the_mask_says_so(three):
    for one in three:
        around = ndimage.binary_dilation(one.lesion, iterations=3) & (one.fractions[..., 1] > 0.95)
        assert around.sum() > 100
        for scan, ratio in ((one.flair, 1.15), (one.t2, 1.25), (1 / np.maximum(one.t1, 1), 1.05)):
            assert scan[one.lesion].mean() > ratio * scan[around].mean()


def test_lesions_gather_around_the_ventricles_and_some_lie_deep(three):
    for one in three:
        csf = one.fractions[..., 2] > 0.5
        inside = ndimage.distance_transform_edt(one.fractions.sum(-1) > 0, sampling=SPACING_MM)
        ventricles = csf & (inside > 25)
        distance_mm = ndimage.distance_transform_edt(~ventricles, sampling=SPACING_MM)[one.lesion]
        white_mm = ndimage.distance_transform_edt(~ventricles, sampling=SPACING_MM)[one.fractions[..., 1] > 0.5]
        assert np.median(distance_mm) < 0.6 * np.median(white_mm)
        assert np.mean(distance_mm > 12) > 0.01


@pytest.mark.parametrize("load_ml", [(8.0, 8.0), (30.0, 30.0)])
def test_the_lesion_load_is_the_one_asked_for(load_ml):
    one = subject(1, load_ml=load_ml)
    # Specks below 8 mm3 are dropped after the threshold is set.
    assert one.lesion.sum() * np.prod(SPACING_MM) / 1000 == pytest.approx(load_ml[0], rel=0.05)


def test_loads_stay_within_their_range_and_differ(three):
    loads_ml = [one.lesion.sum() * np.prod(SPACING_MM) / 1000 for one in three]
    assert all(4.5 < load < 40.1 for load in loads_ml)
    assert len(set(loads_ml)) == 3


def test_no_load_gives_a_healthy_brain():
    one = subject(1, load_ml=(0.0, 0.0))
    assert not one.lesion.any()
    assert not one.fractions[..., 3].any()


def test_an_impossible_load_fills_at_most_half_of_the_white_matter():
    one = subject(1, load_ml=(5000.0, 5000.0))
    assert 0 < one.lesion.sum() < 0.5 * (one.fractions[..., 1] + one.fractions[..., 3] > 0.6).sum()


def test_fractions_sum_to_one_in_the_brain_and_scans_are_zero_outside(three):
    for one in three:
        total = one.fractions.sum(-1)
        brain = total > 0
        np.testing.assert_allclose(total[brain], 1, rtol=1e-5)
        for scan in (one.t1, one.t2, one.flair):
            assert np.all(np.isfinite(scan))
            assert np.all(scan[brain] > 0)
            assert not scan[~brain].any()
        litres = brain.sum() * np.prod(SPACING_MM) / 1e6
        assert 1.1 < litres < 2.6
        # The atlas itself ends in the neck; on the five other sides there is air.
        faces = [brain[0], brain[-1], brain[:, 0], brain[:, -1], brain[..., -1]]
        assert not any(face.any() for face in faces)


def test_a_slab_holds_only_its_slices():
    one = subject(0, z_range_mm=(0.0, 30.0))
    assert one.t1.shape[2] == 10
    assert one.affine[2, 3] == 0
    assert one.lesion.any()


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"spacing_mm": (0.1, 1, 1)}, "between 0.5 and 10"),
        ({"spacing_mm": (2, 2)}, "three numbers"),
        ({"z_range_mm": (30, 30)}, "empty"),
        ({"load_ml": (5, 1)}, "smallest and a largest"),
        ({"load_ml": (-1, 1)}, "0 or more"),
    ],
)
def test_impossible_choices_are_refused_in_one_sentence(choices, words):
    with pytest.raises(InputError, match=words):
        phantom.draw_phantom(np.random.default_rng(0), **choices)


# Files


def test_written_files_are_named_as_niftynet_finds_them_and_hold_the_subject(tmp_path, three):
    paths = phantom.write_phantom(tmp_path / "scans", "sim01", three[0])
    names = ["sim01_T1.nii.gz", "sim01_T2.nii.gz", "sim01_FLAIR.nii.gz", "sim01_lesion.nii.gz"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "scans").iterdir()) == sorted(names)
    images = [nib.load(path) for path in paths]
    scans = (three[0].t1, three[0].t2, three[0].flair)
    for image, scan in zip(images, scans, strict=False):
        stored = np.asarray(image.dataobj)
        assert stored.dtype == np.int16
        np.testing.assert_allclose(stored, scan, atol=1)
        np.testing.assert_array_equal(stored > 0, scan > 0)
    np.testing.assert_array_equal(np.asarray(images[3].dataobj), three[0].lesion)
    for image in images:
        np.testing.assert_allclose(image.affine, three[0].affine)


@pytest.mark.slow
def test_a_subject_of_1_mm_takes_seconds():
    start = time.perf_counter()
    one = phantom.draw_phantom(np.random.default_rng(0))
    assert time.perf_counter() - start < 20
    assert one.t1.size > 4e6


def test_hyperintensities_lie_between_white_matter_and_csf():
    for name in ("t1_ms", "t2_ms", "proton_density"):
        assert getattr(WHITE_MATTER, name) < getattr(HYPERINTENSITY, name) < getattr(CSF, name)
