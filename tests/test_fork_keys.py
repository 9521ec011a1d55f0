"""Keys that the fork added and its scripts use: scans dropped and reordered, lists of modalities, keys of training."""

import csv
import logging

import numpy as np
import pytest

from niftynet_compat import ConfigError, load_config
from niftynet_compat.subjects.lists import distinct_values, read_value_list
from pimms_tf.data.grids import Grid
from pimms_tf.data.subjects import Subject
from pimms_tf.study import cohort, mappings
from pimms_tf.study.predicting import arranged
from pimms_tf.study.task import task_of

eager = pytest.mark.usefixtures("eagerly")


def config_of(study, action="inference", **changes):
    return load_config(study.write(**changes), action=action)


def subject_of(valid=(True, True, True)):
    affine = np.eye(4)
    scans = np.ones((2, 2, 2, 3), np.float32) * [1, 2, 3] * valid
    return Subject("s", scans, np.array(valid), np.arange(3, dtype=np.int32), None, affine, Grid((2, 2, 2), affine))


# idxs_to_drop and permuted_indices


def test_dropped_scans_are_absent_and_the_others_change_places_but_slots_keep_their_modality(study):
    config = config_of(study, SEGMENTATION={"idxs_to_drop": "0", "permuted_indices": "1,2,0"})
    order, subject = arranged(config, subject_of())
    assert order == [1, 2, 0]
    assert subject.scans[0, 0, 0].tolist() == [2, 3, 0]
    assert subject.valid.tolist() == [True, True, False]
    assert subject.modality.tolist() == [0, 1, 2]


def test_an_order_holds_also_without_dropped_scans(study):
    order, subject = arranged(config_of(study, SEGMENTATION={"permuted_indices": "2,0,1"}), subject_of())
    assert (order, subject.scans[0, 0, 0].tolist()) == ([2, 0, 1], [3, 1, 2])


def test_without_either_key_the_subject_is_left_as_it_is(study):
    subject = subject_of()
    assert arranged(config_of(study), subject) == ([0, 1, 2], subject)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"idxs_to_drop": "1,3"}, r"idxs_to_drop = 1, 3 in \[SEGMENTATION\], but there are 3 scans, 0 to 2"),
        ({"permuted_indices": "0,1"}, r"permuted_indices = 0, 1 .* is no order of 3 scans; write each of 0 to 2 once"),
        ({"permuted_indices": "0,1,1"}, r"is no order of 3 scans"),
    ],
)
def test_indices_of_scans_that_are_not_there_are_refused(study, keys, words):
    with pytest.raises(ConfigError, match=words):
        arranged(config_of(study, SEGMENTATION=keys), subject_of())


def test_an_order_and_subsets_do_not_go_together(study):
    config = config_of(study, SEGMENTATION={"permuted_indices": "2,1,0"}, PIMMS={"subsets": True})
    with pytest.raises(ConfigError, match="permuted_indices changes which scan lies in which slot"):
        arranged(config, subject_of())


@eager
def test_the_scripts_of_the_fork_segment_without_scans_and_in_another_order(trained_study, capsys):
    study = trained_study
    words = ("--idxs_to_drop", "0", "--permuted_indices", "1,2,0", "--save_seg_dir", "./some")
    assert study("inference", "x.ini", *words) == 0
    with (study.folder / "model" / "some" / "modality_scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    said = {name for row in rows for name in row.values() if str(name).endswith(".nii.gz")}
    assert {name.split("_")[1] for name in said} == {"T2.nii.gz", "FLAIR.nii.gz"}
    assert study("inference", "x.ini", "--idxs_to_drop", "0,1,2", "--save_seg_dir", "./none") == 0
    assert "has no scan but those of idxs_to_drop and is left out" in capsys.readouterr().out
    assert study("inference", "x.ini", "--idxs_to_drop", "5") == 2


# csv_data_file


def test_values_are_read_as_text_and_comments_and_equal_rows_do_not_matter(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("# note\n001, T1\n\n002,FLAIR\n001,T1\n")
    assert read_value_list(path) == {"001": ("T1",), "002": ("FLAIR",)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("001,T1\n001,T2\n", "line 2: subject 001 has T2 here and T1 above; keep the row that is right"),
        ("001,1,2\n002,1\n", "line 2: subject 002 has 1 value and the rows above 2"),
        ("001\n", "line 1: subject 001 has an empty column"),
        ("id,label\n001,1\n002,0\n", "line 1: id,label looks like a header; remove it"),
        ("", "lists no subject"),
    ],
)
def test_a_faulty_list_of_values_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_value_list(path, "label")
    with pytest.raises(ConfigError, match=r"\[label\] csv_data_file = .*there is no such list"):
        read_value_list(tmp_path / "other.csv", "label")


def test_values_are_ordered_by_appearance_or_by_size():
    assert distinct_values(["10", "2", "10"], "appearance") == ["10", "2"]
    assert distinct_values(["10", "2", "10"], "sorted") == ["2", "10"]
    assert distinct_values(["b", "2", "a"], "sorted") == ["2", "a", "b"]


def modality_list(study, text, action="train", **changes):
    (study.folder / "m.csv").write_text(text)
    changes = {
        "SEGMENTATION": {"modality_label": "modality_label"},
        "modality_label": {"csv_data_file": "./m.csv", "to_ohe": False},
    } | changes
    return config_of(study, action, **changes)


def rows_of(study, *values):
    return "".join(f"sub0{number},{row}\n" for number, row in enumerate(values))


@pytest.mark.parametrize(
    ("row", "classes"),
    [
        ("T1,T2,FLAIR", (0, 1, 2)),
        ("2,0,1", (2, 0, 1)),
        ("2,2,0,0,1,1", (2, 0, 1)),
        ("2,0,1,2,0,1", (2, 0, 1)),
    ],
)
def test_a_row_of_names_or_numbers_gives_each_scan_its_modality(study, row, classes):
    config = modality_list(study, rows_of(study, *[row] * 6))
    task = task_of(config)
    assert (task.modality_image, task.modality_values) == (None, "modality_label")
    assert cohort.modality_classes(config, task)["sub03"] == classes
    subjects = cohort.find_cohort(config, task, needs_label=True).subjects
    loader = mappings.with_mappings(cohort.subject_loader(config, task, needs_label=True), config, task, subjects)
    assert tuple(loader.load(subjects[0].images, subjects[0].subject_id).modality) == classes


def test_one_label_per_subject_is_numbered_in_the_order_asked_for(study):
    values = ("T2", "Flair", "PD", "T2", "PD", "PD")
    sections = {
        "SEGMENTATION": None,
        "CLASSIFICATION": {"image": "T1", "label": "kind", "num_classes": 3},
        "kind": {"csv_data_file": "m.csv"},
        "NETWORK": {"name": "modality_classifier"},
    }
    found = {}
    for order in ("sorted", "appearance", None):
        config = modality_list(study, rows_of(study, *values), **sections, PIMMS={"value_order": order})
        task = task_of(config)
        assert task.modalities == ("modality_1", "modality_2", "modality_3")
        found[order] = [classes for (classes,) in cohort.modality_classes(config, task).values()]
    assert found["sorted"] == found[None] == [2, 0, 1, 2, 1, 1]
    assert found["appearance"] == [0, 1, 2, 0, 2, 2]


def test_class_numbers_mean_themselves_unless_an_order_is_asked_for(study):
    sections = {
        "SEGMENTATION": None,
        "CLASSIFICATION": {"image": "T1", "label": "kind", "num_classes": 3},
        "kind": {"csv_data_file": "m.csv"},
    }
    for order, classes in ((None, [2, 0, 2, 0, 2, 0]), ("appearance", [0, 1, 0, 1, 0, 1])):
        config = modality_list(study, rows_of(study, *"202020"), **sections, PIMMS={"value_order": order})
        assert [each for (each,) in cohort.modality_classes(config, task_of(config)).values()] == classes


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["T1,T2,T1"] * 5 + ["T1,T2,Flair"], "has Flair for sub05, where other values are modalities"),
        (["0,1,0"] * 5 + ["0,1,x"], "has x for sub05, where other values are numbers"),
    ],
)
def test_one_odd_row_never_renumbers_the_others(study, rows, words):
    config = modality_list(study, rows_of(study, *rows))
    with pytest.raises(ConfigError, match=words):
        cohort.modality_classes(config, task_of(config))
    config = modality_list(study, rows_of(study, *rows[:5]))
    assert cohort.modality_classes(config, task_of(config))["sub00"] == (0, 1, 0)


def test_more_values_than_modalities_are_refused(study):
    config = modality_list(study, rows_of(study, *["a,b,c", "a,b,d"] * 3))
    with pytest.raises(ConfigError, match=r"has 4 different values, a, b, c, d, but there are 3 modalities, T1"):
        cohort.modality_classes(config, task_of(config))


def test_subjects_without_a_row_are_left_out_and_named(study, caplog):
    config = modality_list(study, rows_of(study, *["0,1,2"] * 4))
    with caplog.at_level(logging.WARNING):
        found = cohort.find_cohort(config, task_of(config), needs_label=True)
        cohort.say_cohort(task_of(config), found)
    assert [subject.subject_id for subject in found.subjects] == ["sub00", "sub01", "sub02", "sub03"]
    assert "2 subjects are left out, each of which has no row in [modality_label]: sub04, sub05" in caplog.text


def test_a_list_of_other_subjects_is_refused_with_one_of_each(study):
    config = modality_list(study, "0,0,1,2\n1,0,1,2\n")
    words = "lists 2 subjects such as 0, but the data has 6 such as sub00 and none are in common"
    with pytest.raises(ConfigError, match=words):
        cohort.find_cohort(config, task_of(config), needs_label=True)


@eager
def test_a_classifier_trains_on_labels_from_a_list(study):
    (study.folder / "m.csv").write_text(rows_of(study, *"010101"))
    study.write(
        NETWORK={"name": "modality_classifier"},
        SEGMENTATION=None,
        CLASSIFICATION={"image": "T1", "label": "kind", "num_classes": 2},
        kind={"csv_data_file": "m.csv", "to_ohe": False},
    )
    assert study("train", "x.ini") == 0
    assert study("inference", "x.ini") == 0


# Keys of training


@eager
def test_the_first_iterations_train_the_classifier_alone(study):
    from pimms_tf.training.checkpoints import load_arrays

    study.write(TRAINING={"max_iter": 2, "save_every_n": 1, "curriculum_learning_iter": 1, "lr": 0.1})
    assert study("train", "x.ini") == 0

    import tensorflow as tf

    def weights(iteration):
        prefix = study.folder / "model" / "models" / f"model.ckpt-{iteration}"
        return load_arrays(prefix, tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map())

    first, second = weights(1), weights(2)
    moved = {path for path in first if path.endswith("kernel") and not np.array_equal(first[path], second[path])}
    assert any("backend" in path for path in moved)
    study.write(TRAINING={"max_iter": 2, "save_every_n": 1, "curriculum_learning_iter": 2, "lr": 0.1})
    assert study("train", "x.ini", "--model_dir", "./other") == 0
    before, after = weights(1), None
    prefix = study.folder / "other" / "models" / "model.ckpt-2"
    after = load_arrays(prefix, tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map())
    kernels = [path for path in before if path.endswith("kernel")]
    changed = {path for path in kernels if not np.array_equal(before[path], after[path])}
    assert changed
    assert all("/classifier/" in path for path in changed)


@eager
def test_whole_validation_subjects_are_segmented_as_at_inference(study, capsys):
    study.write(TRAINING={"max_iter": 2, "validation_every_n": 1, "do_whole_volume_validation": True})
    assert study("train", "x.ini") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    validation iter")]
    assert len(lines) == 2
    values = dict(pair.split("=") for pair in lines[0].split(", ", 1)[1].rsplit(" (", 1)[0].split(", "))
    assert float(values["loss"]) == pytest.approx(1 - float(values["dice"]))
    assert float(values["modality_loss"]) > 0


@eager
def test_training_says_what_its_windows_hold_how_long_an_epoch_is_and_what_it_waited_for(study, capsys):
    study.write(TRAINING={"max_iter": 4})
    assert study("train", "x.ini") == 0
    said = capsys.readouterr().out
    assert "max_iter = 4: 4.0 epochs of 1.0 iterations" in said
    assert "the first windows hold" in said
    assert "have foreground, classes 0" in said
    assert "% waiting for windows" in said
