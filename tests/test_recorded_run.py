"""A recorded run of NiftyNet 0.6 from files to tables (goldens/09_endtoend): its settings, its data, its results.

`net_segment` trained its ToyNet for 20 iterations, segmented six subjects and scored them. Here the same files go
through our reading of the settings, loader, windows, segmentation and tables, with the network of our convolutions.
"""

import csv
import io
import shutil
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from niftynet_compat import Phase, find_subjects, load_config, read_mapping, read_split
from pimms_tf.data.images import read_image, write_image
from pimms_tf.data.learning import train_mapping
from pimms_tf.evaluation import LabelPair, niftynet_tables
from pimms_tf.inference import segment
from pimms_tf.models.layers import Convolution
from pimms_tf.study import cohort, mappings
from pimms_tf.study.task import task_of, window_of

GOLDENS = Path(__file__).parent / "goldens" / "09_endtoend"
SUBJECTS = [f"case{number:02}" for number in range(6)]


class ToyNet(keras.layers.Layer):
    """NiftyNet's smallest network, of our convolutions; layers carry the recorded names."""

    def __init__(self, num_classes, spatial_rank):
        super().__init__(name="ToyNet")
        self.first = Convolution(10, 3, spatial_rank, name="conv_input_bn_relu")
        self.last = Convolution(num_classes, 1, spatial_rank, activation="none", name="conv_output_bn")

    def build(self, shape):
        self.first.build(shape)
        self.last.build((*shape[:-1], 10))

    def call(self, x):
        return self.last(self.first(x))


@pytest.fixture(scope="module")
def trained():
    """The network at the recorded iteration 20, as `segment` takes it."""
    network = ToyNet(2, 3)
    network.build((None, None, None, None, 2))
    checkpoint = tf.train.load_checkpoint(str(GOLDENS / "model_models" / "model.ckpt-20"))
    for variable in network.variables:
        name = variable.path.replace("/conv/kernel", "/conv_/w").replace("/norm/", "/bn_/")
        if not name.endswith("/unseen"):
            variable.assign(checkpoint.get_tensor(name))
    compiled = tf.function(network)
    return lambda scans, scores, valid: compiled(tf.constant(scans)).numpy()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder of the run before inference: data, settings, and what training left in the model folder."""
    (tmp_path / "model").mkdir()
    shutil.copytree(GOLDENS / "data", tmp_path / "data")
    for name in ("e2e.ini", "e2e_explicit.ini"):
        shutil.copy(GOLDENS / name, tmp_path)
    for name in ("hist.txt", "split.csv"):
        shutil.copy(GOLDENS / name, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(**overrides):
    # ToyNet is none of the networks that can be built, but all the rest of the file is honoured.
    return load_config("e2e.ini", {"name": "hemis", **overrides}, "net_segment", "inference")


def segmented(config, trained, subject, probabilities, pads_edges=False):
    return segment(
        trained,
        subject,
        None,
        window_of(config, "inference"),
        config.inference.border,
        config.network.batch_size,
        spatial_rank=3,
        probabilities=probabilities,
        order=config.inference.output_interp_order,
        pads_edges=pads_edges,
    )


def loaded(config, number):
    task = task_of(config)
    files = cohort.find_cohort(config, task, needs_label=False).subjects[number]
    loader = mappings.with_mappings(cohort.subject_loader(config, task, needs_label=False), config, task)
    return loader.load(cohort.scan_files(files, task), files.subject_id)


def result_file(config, subject):
    return config.save_seg_dir / f"window_seg_{subject.subject_id}_{config.inference.output_postfix}.nii.gz"


def test_the_settings_are_read_as_written(folder):
    config = configured()
    assert config.model_dir == folder / "model"
    assert config.histogram_file == folder / "model" / "hist.txt"
    assert window_of(config, "inference") == (16, 16, 8)
    assert (config.network.multimod_foreground_type, config.network.cutoff) == ("or", (0.01, 0.99))
    assert config.sources("image") == ("T1", "T2")


def test_the_recorded_split_sends_every_subject_where_it_went(folder):
    config = configured()
    subjects = cohort.find_cohort(config, task_of(config), needs_label=True).subjects
    assert [subject.subject_id for subject in subjects] == SUBJECTS
    split = read_split(config.split_file)
    assert split == cohort.phases_of(config, subjects)
    for phase, numbers in ((Phase.TRAINING, (1, 4)), (Phase.VALIDATION, (2, 5)), (Phase.INFERENCE, (0, 3))):
        part = cohort.subjects_in_phase(subjects, split, phase, config)
        assert [subject.subject_id for subject in part] == [SUBJECTS[number] for number in numbers]


def test_training_subjects_give_the_recorded_landmarks(folder):
    config = configured()
    subjects = cohort.find_cohort(config, task_of(config), needs_label=True).subjects
    training = cohort.subjects_in_phase(subjects, read_split(config.split_file), Phase.TRAINING, config)
    loader = cohort.subject_loader(config, task_of(config), needs_label=False)
    recorded = read_mapping(config.histogram_file)
    computed = train_mapping(loader, training)
    for name in ("T1", "T2"):
        np.testing.assert_allclose(computed[name], recorded[name], rtol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "niftynet2018"])
@pytest.mark.parametrize("number", range(6))
def test_every_label_map_is_the_recorded_one_to_the_voxel(folder, trained, number, preset):
    config = configured(preset=preset)
    subject = loaded(config, number)
    path = result_file(config, subject)
    write_image(segmented(config, trained, subject, probabilities=False), path)
    written, recorded = nib.load(path), nib.load(GOLDENS / "out" / path.name)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(recorded.dataobj))
    np.testing.assert_array_equal(written.affine, recorded.affine)
    assert written.get_data_dtype() == recorded.get_data_dtype()


@pytest.mark.parametrize("number", [0, 3])
def test_probabilities_are_the_recorded_ones(folder, trained, number):
    config = configured(output_prob="True", save_seg_dir="./out_prob")
    subject = loaded(config, number)
    path = result_file(config, subject)
    write_image(segmented(config, trained, subject, config.task.output_prob), path)
    written, recorded = nib.load(path), nib.load(GOLDENS / "out_prob" / path.name)
    assert written.shape == recorded.shape == (24, 24, 16, 1, 2)
    np.testing.assert_allclose(np.asarray(written.dataobj), np.asarray(recorded.dataobj), rtol=0, atol=1e-5)


def test_only_in_the_recorded_manner_the_windows_that_fill_the_last_batch_are_pasted_again(folder, trained):
    # 27 windows in batches of 2: NiftyNet segments the first window twice, the second time over its neighbours.
    config = configured()
    subject = loaded(config, 0)
    again, once = (segmented(config, trained, subject, False, pads_edges).data for pads_edges in (False, True))
    differs = np.argwhere(again != once)
    assert len(differs) > 0
    assert np.all(differs < (16, 16, 8, 1))


def test_the_evaluation_tables_are_the_recorded_ones(folder):
    shutil.copytree(GOLDENS / "out", folder / "model" / "out")
    config = load_config("e2e_explicit.ini", {"name": "hemis"}, "net_segment", "evaluation")
    assert config.save_csv_dir == folder / "model" / "ev_explicit"
    named = {key: config.inputs[config.sources(key)[0]] for key in ("label", "inferred")}
    pairs = [
        LabelPair(files.subject_id, *(read_image(files.images[key]).data[..., 0] for key in named))
        for files in find_subjects(named)
    ]
    assert [pair.subject_id for pair in pairs] == SUBJECTS
    metrics = config.evaluation.evaluations.split(",")
    for table in niftynet_tables(pairs, [config.task.evaluation_units], metrics, config.task.num_classes):
        path = table.write(config.save_csv_dir)
        rows, recorded = (
            list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
            for file in (path, GOLDENS / "ev_explicit" / table.file_name)
        )
        assert rows[0] == recorded[0]
        assert len(rows) == len(recorded)
        for row, expected in zip(rows[1:], recorded[1:], strict=True):
            # Sums over border voxels only and over the whole volume differ in the last digit.
            ours, theirs = ([cell if cell[:4] == "case" else float(cell) for cell in line] for line in (row, expected))
            assert ours == [pytest.approx(cell, rel=1e-14) if isinstance(cell, float) else cell for cell in theirs]
