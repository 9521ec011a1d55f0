"""The weights in the box: whole, unpickled, without a configuration, in any order of scans, and from any INI file."""

import hashlib
from importlib import resources

import numpy as np
import pytest

from niftynet_compat import ConfigError, load_config
from pimms_tf.data.images import Image
from pimms_tf.errors import InputError
from pimms_tf.simulation.phantom import draw_phantom
from pimms_tf.study.bundled import with_bundled
from pimms_tf.study.preparing import preparation_of
from pimms_tf.study.task import task_of
from pimms_tf.training.checkpoints import load_arrays
from pimms_tf.weights import bundled, bundled_arrays, bundled_preparation, files

FOLDER = resources.files("pimms_tf.weights")


@pytest.fixture(scope="module")
def segmenter():
    return bundled()


@pytest.fixture(scope="module")
def subject():
    return draw_phantom(np.random.default_rng((1, 5)), (1.5, 1.5, 4.0), (-10.0, 50.0), (15.0, 25.0))


def images(subject, *names):
    return [Image(getattr(subject, name)[..., np.newaxis].astype(np.float32), subject.affine) for name in names]


def test_checksums_are_those_of_the_files():
    for line in FOLDER.joinpath("bundled.sha256").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256(FOLDER.joinpath(name).read_bytes()).hexdigest() == digest


def test_all_weights_together_stay_below_8_mb():
    assert sum(len(FOLDER.joinpath(name).read_bytes()) for name in ("bundled.npz", "bundled.json")) < 8e6


def test_weights_are_finite_numbers_and_nothing_else():
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in bundled_arrays().values())


def test_a_file_that_is_not_what_was_released_is_refused(monkeypatch, tmp_path):
    for name in ("bundled.json", "bundled.npz", "bundled.sha256"):
        (tmp_path / name).write_bytes(FOLDER.joinpath(name).read_bytes())
    (tmp_path / "bundled.json").write_text(FOLDER.joinpath("bundled.json").read_text() + " ")
    monkeypatch.setattr(files.resources, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="bundled.json of the installed package is not what was released"):
        bundled_preparation()


@pytest.mark.slow
def test_lesions_of_an_unseen_subject_are_found_whatever_the_order_of_its_scans(segmenter, subject):
    scores, first = segmenter(segmenter.prepare(images(subject, "t1", "t2", "flair")))
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]
    shuffled, second = segmenter(segmenter.prepare(images(subject, "flair", "t1", "t2")))
    assert shuffled.argmax(axis=1).tolist() == [2, 0, 1]
    np.testing.assert_array_equal(first.data, second.data)
    found = first.data[..., 0] > 0
    assert (found & subject.lesion).sum() / subject.lesion.sum() > 0.5
    assert found.mean() < 0.05


@pytest.mark.slow
def test_a_scan_given_twice_changes_nothing(segmenter, subject):
    _, once = segmenter(segmenter.prepare(images(subject, "t1", "flair")))
    _, twice = segmenter(segmenter.prepare(images(subject, "flair", "t1", "flair")))
    np.testing.assert_array_equal(once.data, twice.data)


def an_ini(tmp_path, task="num_classes = 2", pimms="weights = bundled"):
    path = tmp_path / "x.ini"
    path.write_text(
        "[NETWORK]\nname = hemis\nwhitening = False\n[TRAINING]\nloss_type = Dice\n[INFERENCE]\n"
        f"spatial_window_size = (0, 0, 1)\n[SEGMENTATION]\nimage = a,b\n{task}\n[PIMMS]\n{pimms}\n"
        "[a]\npath_to_search = .\nfilename_contains = a\npixdim = (2, 2, 2)\n"
        "[b]\npath_to_search = .\nfilename_contains = b\n"
    )
    return load_config(path, [], None, "inference")


def test_an_ini_with_bundled_weights_has_their_network_and_preparation(tmp_path):
    config, record = with_bundled(an_ini(tmp_path)), bundled_preparation()
    assert config.network.name == "pimms_hard"
    assert config.network.whitening
    assert config.network.foreground_type == "brain"
    assert config.pimms.blank_outside
    assert tuple(config.inputs["a"].pixdim) == record.pixdim_mm
    assert config.pimms.modalities == record.modalities


def test_an_ini_with_bundled_weights_marks_what_pimms_tf_segment_marks(tmp_path):
    config, record = with_bundled(an_ini(tmp_path)), bundled_preparation()
    ours = preparation_of(config, task_of(config))
    assert record.least_score > 1 / 3
    for name in ("threshold", "smallest_lesion_ml", "least_score", "least_share"):
        assert getattr(ours, name) == getattr(record, name)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_training_goes_on_from_the_bundled_weights_and_leaves_the_classifier_as_it_is(study):
    study.write(TRAINING={"lr": 1e-6, "max_iter": 1}, PIMMS={"weights": "bundled"})
    assert study("train", "x.ini") == 0
    before = bundled_arrays()
    after = load_arrays(study.folder / "model/models/model.ckpt-1", {path: a.shape for path, a in before.items()})
    moved = {path for path in before if (after[path] != before[path]).any()}
    assert not any("/classifier/" in path for path in moved)
    learnt = [path for path in moved if path.endswith(("kernel", "gamma", "beta"))]
    assert learnt
    for path in learnt:
        np.testing.assert_allclose(after[path], before[path], atol=2e-6)


def test_without_the_key_an_ini_stays_as_it_is(tmp_path):
    config = an_ini(tmp_path, pimms="preset = paper")
    assert with_bundled(config) is config


@pytest.mark.parametrize(
    ("task", "pimms", "message"),
    [
        ("num_classes = 5", "weights = bundled", "segments background and lesion"),
        ("num_classes = 2", "weights = bundled\nmodalities = T1,CT", "modalities in .PIMMS. has CT"),
    ],
)
def test_what_the_weights_cannot_do_is_refused(tmp_path, task, pimms, message):
    with pytest.raises(ConfigError, match=message):
        with_bundled(an_ini(tmp_path, task, pimms))
