"""From scans to scores through the command line, on simulated subjects small enough for seconds."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.inference.preparation import read_preparation
from pimms_tf.serving.export import exported_preparation
from pimms_tf.training.checkpoints import load_arrays

ROOT = Path(__file__).parents[1]
eager = pytest.mark.usefixtures("eagerly")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def inferred(folder: Path) -> dict[str, Path]:
    with (folder / "inferred.csv").open(newline="") as file:
        return {subject_id: Path(path) for subject_id, path in csv.reader(file)}


def phases(study) -> dict[str, str]:
    with (study.folder / "model" / "dataset_split.csv").open(newline="") as file:
        return dict(csv.reader(file))


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def events(folder: Path) -> dict[str, list[int]]:
    """{tag: steps} of all summaries of a folder of event files."""
    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def weights(model_dir: Path, iteration: int) -> dict[str, np.ndarray]:
    prefix = model_dir / "models" / f"model.ckpt-{iteration}"
    reader = tf.train.load_checkpoint(str(prefix))
    return load_arrays(prefix, reader.get_variable_to_shape_map())


def assert_on_own_grid(path: Path, scan: Path) -> None:
    segmentation, original = nib.load(path), nib.load(scan)
    assert segmentation.shape == original.shape
    np.testing.assert_allclose(segmentation.affine, original.affine, atol=1e-4)


# One whole run


def test_training_leaves_files_under_the_names_of_niftynet(trained):
    model = trained / "model"
    for name in (
        "models/model.ckpt-2.index",
        "models/model.ckpt-4.index",
        "models/model.ckpt-4.data-00000-of-00001",
        "models/checkpoint",
        "settings_training.txt",
        "settings_training.ini",
        "dataset_split.csv",
    ):
        assert (model / name).is_file(), name
    assert "model.ckpt-4" in (model / "models" / "checkpoint").read_text().splitlines()[0]
    assert (model / "settings_training.txt").read_text().startswith("Input params at ")
    assert [path.name for path in (model / "logs").iterdir()] == ["0"]
    lines = (model / "dataset_split.csv").read_text().splitlines()
    assert sorted(line.partition(",")[2] for line in lines) == ["inference"] * 2 + ["training"] * 2 + ["validation"] * 2


def test_event_files_hold_scalars_the_confusion_of_modalities_and_a_preview(trained):
    logs = trained / "model" / "logs" / "0"
    training, validation = events(logs / "training"), events(logs / "validation")
    for name in ("total_loss", "segmentation_loss", "modality_loss", "penalty", "dice", "modality_accuracy"):
        assert training[name] == [1, 2, 3, 4]
        assert validation[name] == [2, 4]
    assert training["confusion"] == [1, 2, 3, 4]
    assert validation["preview"] == [2, 4]


def test_the_settings_that_training_writes_can_be_run_again(trained_study):
    settings = trained_study.folder / "model" / "settings_training.ini"
    assert trained_study("inference", str(settings), "--model_dir", "./model") == 0


def test_training_resumes_where_it_ended(trained_study, capsys):
    assert trained_study("train", "x.ini", "--starting_iter", "-1", "--max_iter", "6", "--validation_every_n", "0") == 0
    lines = [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("training iter")]
    assert lines == ["training iter 5", "training iter 6"]
    model = trained_study.folder / "model"
    assert (model / "models" / "model.ckpt-6.index").is_file()
    assert [path.name for path in (model / "logs").iterdir()] == ["0"]
    assert events(model / "logs" / "0" / "training")["total_loss"] == [1, 2, 3, 4, 5, 6]
    assert weights(model, 6)["iteration"] == 6


def test_segmentations_lie_on_the_grids_of_their_scans_and_are_scored(trained_study, capsys):
    study = trained_study
    assert study("inference", "x.ini") == 0
    said = capsys.readouterr().out
    assert "2 of 6 subjects (dataset_to_infer is unset; " in said
    assert "model.ckpt-4" in said
    output = study.folder / "model" / "output"
    found = inferred(output)
    assert sorted(found) == sorted(name for name, phase in phases(study).items() if phase == "inference")
    for subject_id, path in found.items():
        assert path == output / f"{subject_id}_niftynet_out.nii.gz"
        assert_on_own_grid(path, study.scans / f"{subject_id}_T1.nii.gz")
        assert set(np.unique(voxels(path))) <= {0, 1}
    scores = rows(output / "modality_scores.csv")
    assert [row["scan"] for row in scores[:3]] == [f"{min(found)}_{name}.nii.gz" for name in ("T1", "T2", "FLAIR")]
    for row in scores:
        assert sum(float(row[name]) for name in ("T1", "T2", "FLAIR")) == pytest.approx(1, abs=1e-4)

    assert study("evaluation", "x.ini") == 0
    said = capsys.readouterr().out
    assert "Dice" in said
    assert "not evaluated" not in said  # training subjects were never meant to be segmented
    evaluated = rows(study.folder / "model" / "evaluation" / "evaluation.csv")
    assert [row["subject_id"] for row in evaluated] == sorted(found)
    summary = rows(study.folder / "model" / "evaluation" / "evaluation_summary.csv")
    assert float(next(row for row in summary if row["metric"] == "dice")["mean"]) == pytest.approx(
        np.mean([float(row["dice"]) for row in evaluated])
    )
    assert not (study.folder / "model" / "evaluation" / "eval_label.csv").exists()
    assert study("evaluation", "x.ini", "--evaluations", "dice,n_pos_ref") == 0
    table = rows(study.folder / "model" / "evaluation" / "eval_subject_id_label.csv")
    assert [row["subject_id"] for row in table] == sorted(found)
    assert [float(row["dice"]) for row in table] == pytest.approx([float(row["dice"]) for row in evaluated])
    for action in ("inference", "evaluation"):
        assert (study.folder / "model" / f"settings_{action}.txt").is_file()


def test_every_subset_of_scans_is_segmented_and_scored_and_two_models_are_compared(trained_study, capsys):
    study = trained_study
    assert study("inference", "x.ini", "--subsets") == 0
    output = study.folder / "model" / "output"
    names = ["T1_T2_FLAIR", "T1_T2", "T1_FLAIR", "T2_FLAIR", "T1", "T2", "FLAIR"]
    assert sorted(path.name for path in output.iterdir()) == sorted(f"subset_{name}" for name in names)
    assert len(rows(output / "subset_T1_FLAIR" / "modality_scores.csv")) == 4
    assert {Path(row["scan"]).name[6:] for row in rows(output / "subset_T2" / "modality_scores.csv")} == {"T2.nii.gz"}
    assert study("evaluation", "x.ini", "--subsets") == 0
    results = study.folder / "model" / "evaluation" / "evaluation.csv"
    assert len(rows(results)) == 14
    other = study.folder / "other.csv"
    shutil.copy(results, other)
    capsys.readouterr()
    assert study("report", str(results), str(other)) == 0
    said = capsys.readouterr().out
    assert "T1+FLAIR: Dice" in said
    assert "2 pairs, p = 1 one-sided" in said


def test_a_trained_network_is_exported_with_a_proof(trained_study, capsys):
    assert trained_study("export", "x.ini", "--output", "served") == 0
    said = capsys.readouterr().out
    assert "comparisons with the model in memory: largest difference" in said
    assert (trained_study.folder / "served" / "1" / "saved_model.pb").is_file()
    assert said.splitlines()[-1] == "served/1"
    record = exported_preparation(trained_study.folder / "served")
    assert record.modalities == ("T1", "T2", "FLAIR")
    assert (record.foreground, record.fusion, record.standardises) == ("threshold_plus", "and", False)
    assert record == read_preparation(trained_study.folder / "model")


# Other networks


@eager
def test_hemis_needs_no_classifier_and_knows_its_scans_by_their_sections(study):
    study.write(NETWORK={"name": "hemis"})
    assert study("train", "x.ini") == 0
    assert not any("/classifier/" in name for name in weights(study.folder / "model", 2))
    assert study("inference", "x.ini", "--subsets") == 0
    scores = rows(study.folder / "model" / "output" / "subset_T1_T2_FLAIR" / "modality_scores.csv")
    assert [row["best"] for row in scores[:3]] == ["T1", "T2", "FLAIR"]
    assert study("evaluation", "x.ini", "--subsets") == 0


@eager
@pytest.mark.parametrize(("divisor", "warned"), [("none", True), ("sum", False)])
def test_scans_of_one_modality_that_add_up_are_named(study, hemis, capsys, divisor, warned):
    shutil.copytree(hemis / "model", study.folder / "model")
    same = {"modalities": "T1,T2,FLAIR", "image_modalities": "T1,T1,FLAIR", "attention_normalise": divisor}
    study.write(NETWORK={"name": "hemis"}, PIMMS=same)
    assert study("inference", "x.ini") == 0
    assert ("_T2.nii.gz are all taken for T1 and add up" in capsys.readouterr().out) == warned


@eager
def test_a_classifier_tells_scans_apart_and_makes_no_segmentation(study, classifier):
    shutil.copytree(classifier / "model", study.folder / "model")
    study.write(NETWORK={"name": "modality_classifier"})
    assert study("inference", "x.ini") == 0
    output = study.folder / "model" / "output"
    assert [path.name for path in output.iterdir()] == ["modality_scores.csv"]
    assert len(rows(output / "modality_scores.csv")) == 6
    assert all("/classifier/" in name for name in weights(study.folder / "model", 2) if name.startswith("pimms/"))


@eager
@pytest.mark.parametrize("name", ["pimms_soft", "pimms_hard"])
def test_soft_and_hard_need_no_training_of_their_own(study, hemis, classifier, name, capsys):
    study.write(
        NETWORK={"name": name},
        PIMMS={"segmenter": hemis / "model", "classifier": classifier / "model"},
        SYSTEM={"dataset_split_file": hemis / "model" / "dataset_split.csv"},
    )
    assert study("inference", "x.ini") == 0
    assert "variables from" in capsys.readouterr().out
    assert len(inferred(study.folder / "model" / "output")) == 2
    assert study("evaluation", "x.ini") == 0
    # The classifier answers as it does alone.
    study.write("cls.ini", NETWORK={"name": "modality_classifier"}, SYSTEM={"model_dir": classifier / "model"})
    assert study("inference", "cls.ini", "--save_seg_dir", str(study.folder / "alone")) == 0
    both = (study.folder / "model" / "output", study.folder / "alone")
    ours, alone = (rows(folder / "modality_scores.csv") for folder in both)
    assert ours == alone


@eager
@pytest.mark.parametrize("assemble_with", ["score", "label"])
def test_training_soft_leaves_the_classifier_as_it_was(study, hemis, classifier, assemble_with):
    study.write(
        NETWORK={"name": "pimms_soft"},
        PIMMS={
            "segmenter": hemis / "model",
            "classifier": classifier / "model",
            "assemble_with": assemble_with,
        },
    )
    assert study("train", "x.ini") == 0
    after, classifying, segmenting = (weights(folder / "model", 2) for folder in (study.folder, classifier, hemis))
    ours = [name for name in after if name.startswith("pimms/classifier/")]
    assert len(ours) > 5
    for name in ours:
        np.testing.assert_array_equal(after[name], classifying[name], err_msg=name)
    trained = [name for name in after if name.startswith("pimms/backend_0/")]
    assert any(np.any(after[name] != segmenting[name]) for name in trained)
    assert study("train", "x.ini", "--starting_iter", "-1", "--max_iter", "3") == 0


# Modality and label files


def write_modalities(folder: Path, codes: dict[str, tuple[float, ...]]) -> None:
    folder.mkdir()
    for subject_id, values in codes.items():
        image = nib.Nifti1Image(np.array(values, np.int16).reshape(1, 1, -1), np.eye(4))
        nib.save(image, folder / f"{subject_id}_modalities.nii.gz")


MULTITASK = {
    "image": "T1,T2,FLAIR",
    "label": "lesion",
    "modalities": "modalities",
    "num_classes_seg": 2,
    "num_classes_classification": 4,
}


@eager
@pytest.mark.parametrize("null_class", [False, True])
def test_a_multitask_configuration_learns_modalities_from_their_files(study, null_class):
    copied = study.copy_scans()
    for path in (copied / "sub01_T2.nii.gz", *copied.glob("sub0[345]_*")):
        path.unlink()
    every = {f"sub{number:02d}": (1, 2, 3) for number in range(6)} | {"sub01": (1, 0, 3)}
    write_modalities(study.folder / "known", every)
    study.write(
        scans=copied,
        SEGMENTATION=None,
        MULTITASK=MULTITASK,
        modalities={"path_to_search": study.folder / "known", "filename_contains": "_modalities"},
        PIMMS={"null_class": null_class, "max_slots": 3},
        TRAINING={"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0},
    )
    assert study("train", "x.ini") == 0
    confusion = events(study.folder / "model" / "logs" / "0" / "training")["confusion"]
    assert confusion == [1, 2]
    assert study("inference", "x.ini") == 0
    scores = rows(study.folder / "model" / "output" / "modality_scores.csv")
    names = [name for name in scores[0] if name not in ("subject_id", "scan", "best")]
    assert names == ["empty"] * null_class + ["modality_1", "modality_2", "modality_3"]
    assert len(scores) == 8
    assert study("inference", "x.ini", "--subsets") == 0
    assert study("evaluation", "x.ini", "--subsets") == 0


def test_values_of_modality_files_become_classes(study):
    from niftynet_compat import load_config
    from pimms_tf.study import cohort, mappings
    from pimms_tf.study.task import task_of

    write_modalities(study.folder / "known", {f"sub{number:02d}": (3, 0, 1) for number in range(6)})
    loaded = {}
    for null_class in (False, True):
        path = study.write(
            SEGMENTATION=None,
            MULTITASK=MULTITASK,
            modalities={"path_to_search": study.folder / "known", "filename_contains": "_modalities"},
            PIMMS={"null_class": null_class},
        )
        config = load_config(path, action="train")
        task = task_of(config)
        loader = mappings.with_mappings(cohort.subject_loader(config, task, True), config, task, [])
        files = cohort.find_cohort(config, task, needs_label=True).subjects[0]
        loaded[null_class] = loader.load(files.images, files.subject_id).modality.tolist()
    assert loaded == {False: [2, -1, 0], True: [3, 0, 1]}


@eager
@pytest.mark.parametrize(("codes", "normalise"), [((0, 1, 2), False), ((7, 20, 100), True)])
def test_a_classification_learns_from_labels_of_one_voxel(study, codes, normalise):
    copied = study.folder / "one"
    copied.mkdir()
    labels = {}
    for number in range(6):
        for place, name in enumerate(("T1", "T2", "FLAIR")):
            shutil.copy(study.scans / f"sub{number:02d}_{name}.nii.gz", copied / f"s{number}{place}_scan.nii.gz")
            labels[f"s{number}{place}"] = (codes[place],)
    write_modalities(study.folder / "known", labels)
    window = {"spatial_window_size": "(24, 24, 1)"}
    study.write(
        NETWORK={"name": "modality_classifier"},
        SEGMENTATION=None,
        CLASSIFICATION={
            "image": "scan",
            "label": "kind",
            "num_classes": 3,
            "label_normalisation": normalise,
        },
        scan={"path_to_search": copied, "filename_contains": "_scan", **window},
        kind={"path_to_search": study.folder / "known", "filename_contains": "_modalities", "interp_order": -1},
        **dict.fromkeys(("T1", "T2", "FLAIR", "lesion")),
    )
    assert study("train", "x.ini") == 0
    assert study("inference", "x.ini") == 0
    scores = rows(study.folder / "model" / "output" / "modality_scores.csv")
    assert len(scores) == 6
    assert {"modality_1", "modality_2", "modality_3"} <= set(scores[0])
    if normalise:
        assert "label_kind-from 7.0 20.0 100.0" in (study.folder / "model" / "histogram_ref_file.txt").read_text()


@eager
def test_labels_are_read_and_written_in_the_codes_of_their_files(study):
    copied = study.copy_scans()
    for path in copied.glob("*_lesion.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image((voxels(path) * 155 + 100).astype(np.int16), image.affine), path)
    study.write(scans=copied, SEGMENTATION={"label_normalisation": True})
    assert study("train", "x.ini") == 0
    assert "label_lesion-from 100.0 255.0" in (study.folder / "model" / "histogram_ref_file.txt").read_text()
    assert study("inference", "x.ini") == 0
    for path in inferred(study.folder / "model" / "output").values():
        assert set(np.unique(voxels(path))) <= {100, 255}
    assert study("evaluation", "x.ini") == 0
    # Scored as its own reference would be, the reference scores 1.
    listed = study.folder / "model" / "output" / "inferred.csv"
    same = []
    for subject_id in inferred(listed.parent):
        shutil.copy(copied / f"{subject_id}_lesion.nii.gz", study.folder / f"{subject_id}.nii.gz")
        same.append(f"{subject_id},{study.folder / subject_id}.nii.gz")
    listed.write_text("\n".join(same) + "\n")
    assert study("evaluation", "x.ini") == 0
    evaluated = rows(study.folder / "model" / "evaluation" / "evaluation.csv")
    assert [float(row["dice"]) for row in evaluated] == [1, 1]


@eager
def test_histogram_landmarks_are_learnt_in_training_and_used_in_inference(study, capsys):
    study.write(NETWORK={"name": "hemis", "normalisation": True})
    assert study("train", "x.ini") == 0
    assert "computing histogram landmarks of T1, T2, FLAIR from 2 subjects" in capsys.readouterr().out
    path = study.folder / "model" / "histogram_ref_file.txt"
    lines = {line.split()[0]: line.split()[1:] for line in path.read_text().splitlines()}
    assert {name: len(values) for name, values in lines.items()} == {"T1": 13, "T2": 13, "FLAIR": 13}
    assert study("inference", "x.ini") == 0
    capsys.readouterr()
    path.unlink()
    assert study("inference", "x.ini") == 2
    assert "has no landmarks for T1, T2, FLAIR" in capsys.readouterr().err


# Scans of every kind


@eager
def test_missing_empty_and_turned_scans_are_trained_on_and_segmented(study):
    copied = study.copy_scans()
    for path in (copied / "sub00_T2.nii.gz", *copied.glob("sub0[345]_*")):
        path.unlink()
    image = nib.load(copied / "sub01_FLAIR.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.int16), image.affine), copied / "sub01_FLAIR.nii.gz")
    turned = nib.orientations.axcodes2ornt(("I", "P", "R"))
    for name in ("T1", "T2", "FLAIR", "lesion"):
        path = copied / f"sub02_{name}.nii.gz"
        nib.save(nib.load(path).as_reoriented(turned), path)
    study.write(scans=copied, TRAINING={"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0})
    assert study("train", "x.ini") == 0
    assert study("inference", "x.ini") == 0
    output = study.folder / "model" / "output"
    for subject_id, path in inferred(output).items():
        assert_on_own_grid(path, copied / f"{subject_id}_T1.nii.gz")
    scanned = [row["scan"][:-7] for row in rows(output / "modality_scores.csv")]
    assert scanned[:4] == ["sub00_T1", "sub00_FLAIR", "sub01_T1", "sub01_T2"]
    assert study("evaluation", "x.ini") == 0
    assert study("inference", "x.ini", "--subsets") == 0
    assert "sub00" not in inferred(output / "subset_T1_T2")
    assert study("evaluation", "x.ini", "--subsets") == 0


@eager
def test_a_cohort_may_lack_a_modality_altogether_and_have_no_labels(trained_study, capsys):
    study = trained_study
    folder = study.folder / "new"
    folder.mkdir()
    shutil.copy(study.scans / "sub03_FLAIR.nii.gz", folder / "patient_FLAIR.nii.gz")
    study.write(scans=folder, SYSTEM={"dataset_split_file": "./none.csv"})
    assert study("inference", "x.ini") == 0
    said = capsys.readouterr().out
    assert "no file name contains _T1" in said
    assert "1 subject lacks T1, T2: patient" in said
    output = study.folder / "model" / "output"
    assert list(inferred(output)) == ["patient"]
    assert [row["scan"] for row in rows(output / "modality_scores.csv")] == ["patient_FLAIR.nii.gz"]


@eager
def test_scans_on_three_grids_are_put_onto_that_of_the_reference(study):
    copied = study.copy_scans()
    for path in copied.glob("*_T2.nii.gz"):
        image = nib.load(path)
        nib.save(image.slicer[2:, :-3, 1:], path)
    for path in copied.glob("*_FLAIR.nii.gz"):
        image = nib.load(path)
        affine = image.affine @ np.diag([2, 1, 1, 1])
        nib.save(nib.Nifti1Image(voxels(path)[::2], affine), path)
    study.write(scans=copied, PIMMS={"reference": "T1"})
    assert study("train", "x.ini") == 0
    assert study("inference", "x.ini") == 0
    for subject_id, path in inferred(study.folder / "model" / "output").items():
        assert_on_own_grid(path, copied / f"{subject_id}_T1.nii.gz")
    assert study("evaluation", "x.ini") == 0


@eager
def test_resampled_and_padded_scans_come_back_onto_their_own_grid(study):
    sections = {name: {"pixdim": "(5.0, 7.0, 6.0)", "axcodes": "(A, R, S)"} for name in ("T1", "T2", "FLAIR", "lesion")}
    study.write(
        NETWORK={"name": "hemis", "volume_padding_size": "(4, 3, 1)"},
        INFERENCE={"spatial_window_size": "(24, 24, 1)", "border": "(3, 3, 0)", "output_interp_order": 1},
        **sections,
    )
    assert study("train", "x.ini") == 0
    assert study("inference", "x.ini") == 0
    for subject_id, path in inferred(study.folder / "model" / "output").items():
        assert_on_own_grid(path, study.scans / f"{subject_id}_T1.nii.gz")
        assert set(np.unique(voxels(path))) <= {0, 1}


@eager
def test_probabilities_have_an_image_per_class_and_are_scored(study):
    study.write(NETWORK={"name": "hemis"}, SEGMENTATION={"output_prob": True})
    assert study("train", "x.ini") == 0
    assert study("inference", "x.ini") == 0
    for subject_id, path in inferred(study.folder / "model" / "output").items():
        probabilities = voxels(path)
        assert probabilities.shape == (*voxels(study.scans / f"{subject_id}_T1.nii.gz").shape, 1, 2)
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    assert study("evaluation", "x.ini") == 0


@eager
@pytest.mark.parametrize(
    "sampling", ["uniform", "weighted", pytest.param("balanced", marks=pytest.mark.slow), "resize"]
)
def test_every_way_to_cut_windows_trains_and_segments(study, sampling):
    task = {"sampler": "lesion"} if sampling in ("weighted", "balanced") else {}
    changes = {"random_flipping_axes": "0", "rotation_angle": "-5, 5", "scaling_percentage": "0, 5"}
    network = {"name": "hemis", "window_sampling": sampling}
    study.write(NETWORK=network, SEGMENTATION=task, TRAINING=changes | {"do_elastic_deformation": "True"})
    assert study("train", "x.ini", "--save_every_n", "1", "--max_iter", "1") == 0
    assert events(study.folder / "model" / "logs" / "0" / "validation")["preview"] == [1]
    for order in ("0", "1") if sampling == "resize" else ("0",):
        assert study("inference", "x.ini", "--output_interp_order", order) == 0
        for subject_id, path in inferred(study.folder / "model" / "output").items():
            assert_on_own_grid(path, study.scans / f"{subject_id}_T1.nii.gz")
            assert set(np.unique(voxels(path))) <= {0, 1}


@eager
def test_windows_can_be_classified_one_by_one(study, trained):
    shutil.copytree(trained / "model", study.folder / "model")
    outputs = []
    for scope in ("scan", "window"):
        study.write(PIMMS={"classifier_scope": scope}, SEGMENTATION={"output_prob": True})
        assert study("inference", "x.ini", "--save_seg_dir", scope) == 0
        outputs.append(voxels(min(inferred(study.folder / "model" / scope).values())))
    assert outputs[0].shape == outputs[1].shape
    assert np.any(outputs[0] != outputs[1])


@pytest.mark.slow
def test_a_network_of_three_dimensions_goes_the_whole_way(study):
    sections = {name: {"spatial_window_size": "(12, 12, 8)"} for name in ("T1", "T2", "FLAIR", "lesion")}
    study.write(
        PIMMS={"spatial_rank": 3},
        NETWORK={"batch_size": 1, "queue_length": 2},
        INFERENCE={"spatial_window_size": "(16, 16, 10)", "border": "(2, 2, 0)"},
        **sections,
    )
    assert study("train", "x.ini") == 0
    assert study("inference", "x.ini") == 0
    assert study("evaluation", "x.ini") == 0
    for subject_id, path in inferred(study.folder / "model" / "output").items():
        assert_on_own_grid(path, study.scans / f"{subject_id}_T1.nii.gz")
    assert study("export", "x.ini", "--output", "served") == 0


# Interruptions


def start(study, *argv: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "pimms_tf", *argv],
        cwd=study.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_training_with_a_checkpoint_from_which_it_goes_on(study, sent, code):
    study.write(TRAINING={"max_iter": 100000})
    process = start(study, "train", "x.ini")
    deadline = time.monotonic() + 120
    for line in process.stdout:
        if line.startswith("training iter 3,") or time.monotonic() > deadline:
            break
    process.send_signal(sent)
    said, complaint = process.communicate(timeout=60)
    assert process.returncode == code, complaint
    assert complaint == ""
    assert "--resume goes on" in said
    (reached,) = (int(path.stem.rpartition("-")[2]) for path in (study.folder / "model" / "models").glob("*.index"))
    assert reached >= 3
    assert study("train", "x.ini", "--starting_iter", "-1", "--max_iter", str(reached + 1)) == 0
    assert weights(study.folder / "model", reached + 1)["iteration"] == reached + 1


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_asked_for_while_the_queue_fills_ends_at_once_and_leaves_no_checkpoint(study, sent, code):
    # A queue that takes minutes to fill.
    study.write(NETWORK={"queue_length": 40000}, TRAINING={"sample_per_volume": 1, "do_elastic_deformation": True})
    process = start(study, "train", "x.ini", "--resume")
    for line in process.stdout:
        if re.match(r"filling the queue: \d+ of 40000 windows, for \d+s so far", line):
            break
    process.send_signal(sent)
    said, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (code, "")
    assert "training iter" not in said
    assert "stopped before the first iteration was done, so there is nothing to save" in said
    assert not list((study.folder / "model" / "models").iterdir())


@pytest.mark.slow
def test_a_resumed_training_equals_one_that_was_never_interrupted_bit_for_bit(study):
    study.write(PIMMS={"device_threads": 1}, TRAINING={"random_flipping_axes": "0, 1"})
    for model, runs in (("whole", [("0", "4")]), ("pieces", [("0", "2"), ("-1", "4")])):
        for first, last in runs:
            process = start(study, "train", "x.ini", "--model_dir", model, "--starting_iter", first, "--max_iter", last)
            _, complaint = process.communicate(timeout=120)
            assert process.returncode == 0, complaint
    whole, pieces = (weights(study.folder / model, 4) for model in ("whole", "pieces"))
    assert whole.keys() == pieces.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, pieces[name], err_msg=name)
