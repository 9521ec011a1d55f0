"""The dry run: what it finds, what it leaves alone, and how it says so."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.check import Level, check_config
from pimms_tf.check.report import Report, print_bytes, print_seconds

ROOT = Path(__file__).parents[2]
eager = pytest.mark.usefixtures("eagerly")


def check(study, *options, action="training", fast=False, **changes):
    return check_config(study.write(**changes), list(options), action=action, fast=fast)


def spoil(path, change):
    """Rewrites an image file with `change` applied to its voxels."""
    image = nib.load(path)
    voxels = change(np.asarray(image.dataobj).astype(np.float32))
    nib.save(nib.Nifti1Image(voxels, image.affine), path)


def texts(report, level=None):
    return "\n".join(finding.text for finding in report.findings if level in (None, finding.level))


def rows(report, topic):
    return [row for table in report.tables if table.topic == topic for row in table.rows]


def fact(report, name):
    return next(item.value for item in report.facts if item.name == name)


def state_of(folder):
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


# A whole check


@eager
def test_a_check_reads_all_measures_two_steps_and_leaves_the_tree_as_it_was(study):
    path = study.write(TRAINING={"max_iter": 1000, "save_every_n": 100, "max_checkpoints": 3})
    before = state_of(study.folder), state_of(study.scans)
    report = check_config(path)
    assert (state_of(study.folder), state_of(study.scans)) == before
    assert (report.exit_code, texts(report, Level.MISTAKE), texts(report, Level.REMARK)) == (0, "", "")
    assert [row[:5] for row in rows(report, "Subjects")] == [
        *((name, "scan", 6, 6, 0) for name in ("T1", "T2", "FLAIR")),
        ("lesion", "label", 6, 6, 0),
    ]
    assert {row[:7] for row in rows(report, "Files")} == {
        *((name, "28 x 35 x 10", "6 x 6 x 6", "RAS", "int16", "nibabel", 4) for name in ("T1", "T2", "FLAIR")),
        ("lesion", "28 x 35 x 10", "6 x 6 x 6", "RAS", "uint8", "nibabel", 4),
    }
    assert [row[:2] for row in rows(report, "Labels")] == [("0", 0), ("1", 1)]
    assert sum(row[2] for row in rows(report, "Labels")) == 4 * 28 * 35 * 10
    assert (fact(report, "training"), fact(report, "validation"), fact(report, "iterations")) == (2, 2, 1000)
    assert fact(report, "whole run") > 1000 * fact(report, "step")
    assert fact(report, "memory") > 1e6
    assert report.text().splitlines()[-1] == "training can run"


@eager
def test_the_size_of_checkpoints_is_what_training_writes(study, capsys):
    path = study.write(TRAINING={"max_iter": 2, "save_every_n": 1, "max_checkpoints": 2})
    expected = fact(check_config(path), "disk for checkpoints")
    assert study("train", "x.ini") == 0
    data = (study.folder / "model" / "models").glob("model.ckpt-*.data-*")
    written = sum(file.stat().st_size for file in data)
    assert expected == pytest.approx(written, rel=0.05)


@eager
def test_inference_is_measured_without_a_word_written(trained_study):
    study = trained_study
    before = state_of(study.folder)
    report = check_config(study.folder / "x.ini", action="inference")
    assert state_of(study.folder) == before
    assert report.exit_code == 0
    assert (fact(report, "uses"), fact(report, "dataset_to_infer = (unset)")) == (4, 2)
    assert fact(report, "results") == 4 * 2 * 28 * 35 * 10
    assert fact(report, "whole run") > 0


def python(program, folder):
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("faulty", [True, False])
def test_tensorflow_is_needed_neither_for_a_faulty_file_nor_with_fast(study, faulty):
    study.write(TRAINING={"lr": "quick" if faulty else 0.1})
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pimms_tf.commands.cli import main\n"
        "code = main(['check', 'x.ini'] + ([] if 'quick' in open('x.ini').read() else ['--fast']))\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = python(program, study.folder)
    assert done.returncode == (2 if faulty else 0), done.stdout + done.stderr


# Settings


def test_all_mistakes_of_a_file_come_together(study):
    report = check(study, NETWORK={"batch_size": 0, "foreground_type": "otsu"}, TRAINING={"lr": "quick"})
    assert report.exit_code == 2
    assert len(report.findings) == 3
    assert all(key in texts(report) for key in ("batch_size", "foreground_type", "lr"))


def test_several_missing_settings_are_named_at_once(study):
    missing = {name: {"spatial_window_size": None} for name in ("T1", "T2", "FLAIR")}
    report = check(study, fast=True, **missing, INFERENCE=None, NETWORK={"window_sampling": "weighted"})
    mistakes = texts(report, Level.MISTAKE).splitlines()
    for words in ("spatial_window_size is set neither", "window_sampling = weighted needs a map"):
        assert sum(words in mistake for mistake in mistakes) == 1, words
    assert fact(report, "training") == 2  # and on it went


def test_remarks_of_the_file_change_the_exit_code_unless_results_stay_the_same(study):
    assert check(study, fast=True, NETWORK={"keep_prob": 1.0}).exit_code == 0
    report = check(study, fast=True, SYSTEM={"queue_length": 30})
    assert report.exit_code == 1
    assert "queue_length" in texts(report, Level.REMARK)


def test_a_modality_loss_that_the_released_program_lost_is_remarked_upon(study):
    sections = {
        "SEGMENTATION": None,
        "MULTITASK": {"image": "T1,T2,FLAIR", "label": "lesion", "modalities": "lesion", "num_classes_seg": 2},
        "PIMMS": {"modalities": "T1,T2,FLAIR"},
    }
    words = "decay = 0 switched the modality loss off in the released program"
    assert words in texts(check(study, fast=True, **sections), Level.REMARK)
    assert words not in texts(check(study, fast=True, **sections, NETWORK={"decay": 1e-4}))


# Subjects and phases


def test_files_and_subjects_left_aside_are_named_with_the_reason(study):
    scans = study.copy_scans()
    (scans / "sub00_lesion.nii.gz").unlink()
    (scans / "sub01_T2.nii.gz").unlink()
    report = check(study, fast=True, scans=scans)
    assert "1 subject is left out, which has no file in [lesion]: sub00" in texts(report, Level.REMARK)
    assert "1 subject lacks T2: sub01" in texts(report, Level.NOTE)
    assert [row[2:5] for row in rows(report, "Subjects")] == [(6, 5, 1), (5, 4, 1), (6, 5, 1), (5, 5, 0)]


def test_sections_that_find_nothing_are_all_reported(study, tmp_path):
    changes = {name: {"path_to_search": tmp_path / "nowhere"} for name in ("T1", "lesion")}
    report = check(study, fast=True, **changes)
    mistakes = texts(report, Level.MISTAKE)
    assert "[T1] path_to_search" in mistakes
    assert "[lesion] path_to_search" in mistakes


def test_phases_come_with_their_origin(study):
    split = study.folder / "split.csv"
    split.write_text("".join(f"sub0{n},{phase}\n" for n, phase in enumerate(["training"] * 4 + ["inference"] * 2)))
    report = check(study, fast=True, SYSTEM={"dataset_split_file": split}, TRAINING={"validation_every_n": 10})
    assert fact(report, "from") == f"split file {split}"
    assert (fact(report, "training"), fact(report, "validation")) == (4, 0)
    assert "validation_every_n = 10 needs validation subjects" in texts(report, Level.MISTAKE)
    fractions = {"exclude_fraction_for_validation": None, "exclude_fraction_for_inference": None}
    assert "all subjects are for training" in fact(check(study, fast=True, TRAINING=fractions), "from")


def test_several_phases_may_be_asked_for(trained_study):
    words = ["--dataset_to_infer", "training,validation"]
    report = check_config(trained_study.folder / "x.ini", words, action="inference", fast=True)
    assert fact(report, "dataset_to_infer = training,validation") == 4


def test_a_split_that_names_nobody_for_inference_is_remarked_upon(study):
    split = study.folder / "split.csv"
    split.write_text("".join(f"sub0{n},{'training' if n < 4 else 'validation'}\n" for n in range(6)))
    report = check(study, action="inference", fast=True, SYSTEM={"dataset_split_file": split})
    assert fact(report, "dataset_to_infer = (unset)") == 6
    assert "so all 6 subjects are taken, 6 of which training has looked at" in texts(report, Level.REMARK)


def test_a_stale_split_is_refused(study):
    split = study.folder / "split.csv"
    split.write_text("1,training\n2,training\n")
    report = check(study, fast=True, SYSTEM={"dataset_split_file": split})
    assert "none are in common" in texts(report, Level.MISTAKE)


# Files


def everybody_trains():
    return {"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0}


def test_every_spoilt_file_is_found_in_one_go(study):
    scans = study.copy_scans()

    def with_nan(voxels):
        voxels[3, 3, 3] = np.nan
        return voxels

    spoil(scans / "sub00_T1.nii.gz", with_nan)
    whole = (scans / "sub01_T2.nii.gz").read_bytes()
    (scans / "sub01_T2.nii.gz").write_bytes(whole[: len(whole) // 2])
    spoil(scans / "sub02_FLAIR.nii.gz", lambda voxels: 0 * voxels + 7)
    spoil(scans / "sub03_FLAIR.nii.gz", lambda voxels: 0 * voxels)
    spoil(scans / "sub04_lesion.nii.gz", lambda voxels: 5 * voxels)
    (scans / "sub05_T1.nii.gz").write_bytes(b"")
    report = check(study, scans=scans, TRAINING=everybody_trains())
    mistakes = texts(report, Level.MISTAKE).splitlines()
    for words in (
        "subject sub00, section [T1]",
        "subject sub01, section [T2]",
        "subject sub02, section [FLAIR]: ",
        "label value 5 of 1 subject (sub04) is outside 0 to 1",
        "subject sub05, section [T1]",
    ):
        assert sum(words in mistake for mistake in mistakes) == 1, words
    assert len(mistakes) == 5
    assert "1 voxels that are NaN" in mistakes[0]
    assert "[FLAIR] is 0 everywhere in 1 subject, and so absent: sub03" in texts(report, Level.NOTE)
    assert report.exit_code == 2


def test_with_fast_damage_behind_a_good_header_is_not_looked_for(study):
    scans = study.copy_scans()
    file = scans / "sub00_T1.nii.gz"
    voxels = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(voxels[:4000]))
    training = everybody_trains()
    assert check(study, fast=True, scans=scans, TRAINING=training).exit_code == 0
    assert "subject sub00, section [T1]" in texts(check(study, scans=scans, TRAINING=training), Level.MISTAKE)


def test_files_of_a_subject_on_different_grids_are_named_with_the_remedy(study):
    scans = study.copy_scans()
    path = scans / "sub00_T2.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-2], image.affine), path)
    report = check(study, fast=True, scans=scans, TRAINING=everybody_trains())
    assert "lie on different grids" in texts(report, Level.MISTAKE)
    assert "[PIMMS] reference = T1" in texts(report, Level.MISTAKE)
    assert len(rows(report, "Files")) == 5
    mended = check(study, fast=True, scans=scans, TRAINING=everybody_trains(), PIMMS={"reference": "T1"})
    assert mended.exit_code == 0


def test_settings_that_refuse_every_subject_are_said_once(study):
    report = check(study, fast=True, T2={"axcodes": None}, TRAINING=everybody_trains())
    (mistake,) = texts(report, Level.MISTAKE).splitlines()
    assert mistake.startswith(
        "6 subjects (sub00, sub01, sub02, sub03, sub04 and 1 more), section [T2]: lies on one grid"
    )
    assert "make it RAS of (28, 35, 10), and there axcodes ('L', 'P', 'S')" in mistake


# Labels


def test_a_class_that_no_subject_has_is_remarked_upon(study):
    report = check(study, "--max_iter", "0", SEGMENTATION={"num_classes": 3}, TRAINING=everybody_trains())
    assert "no label map has class 2, though num_classes = 3" in texts(report, Level.REMARK)


def test_codes_that_training_would_give_are_shown_and_held_against_the_classes(study):
    scans = study.copy_scans()
    for file in scans.glob("*_lesion.nii.gz"):
        spoil(file, lambda voxels: 40 * voxels + 2)
    spoil(scans / "sub00_lesion.nii.gz", lambda voxels: np.where(np.arange(10) == 5, 9.0, voxels))
    task = {"label_normalisation": True}
    report = check(study, scans=scans, SEGMENTATION=task, TRAINING=everybody_trains())
    assert fact(report, "label_normalisation") == "2 becomes 0, 9 becomes 1, 42 becomes 2"
    assert "label_normalisation numbers 3 values up to class 2, but num_classes = 2" in texts(report, Level.MISTAKE)
    assert not (study.folder / "model").exists()
    codes = study.folder / "codes.txt"
    codes.write_text("label_lesion-from 2 42\nlabel_lesion-to 0 1\n")
    network = {"histogram_ref_file": codes}
    report = check(
        study, scans=scans, SEGMENTATION=task, TRAINING=everybody_trains(), NETWORK=network, action="training"
    )
    assert "label value 9 of 1 subject (sub00) is not among the codes and becomes 0" in texts(report, Level.REMARK)


def test_values_between_whole_numbers_are_no_classes(study):
    scans = study.copy_scans()
    spoil(scans / "sub00_lesion.nii.gz", lambda voxels: 0.5 * voxels)
    report = check(study, scans=scans, TRAINING=everybody_trains())
    assert "label value 0.5 of 1 subject (sub00) is no whole number" in texts(report, Level.MISTAKE)
    spoil(scans / "sub01_lesion.nii.gz", lambda voxels: np.arange(voxels.size, dtype=np.float32).reshape(voxels.shape))
    report = check(study, scans=scans, TRAINING=everybody_trains())
    assert "has more than 100 different values and is no label map" in texts(report, Level.MISTAKE)


# Windows


def windows(size):
    return {name: {"spatial_window_size": size} for name in ("T1", "T2", "FLAIR")}


def test_a_window_larger_than_volumes_is_held_against_all_and_one_that_fits_is_told(study):
    report = check(study, fast=True, **windows("(40, 24, 1)"))
    mistake = texts(report, Level.MISTAKE)
    assert "the window (40, 24, 1) is larger than the volume (28, 35, 10) of 4 subjects" in mistake
    assert "spatial_window_size = (28, 24, 1) fits all, or pad by volume_padding_size = 6" in mistake
    padded = check(study, fast=True, **windows("(40, 24, 1)"), NETWORK={"volume_padding_size": "6, 0, 0"})
    assert padded.exit_code == 0


def test_full_lengths_that_differ_do_not_form_batches(study):
    scans = study.copy_scans()
    for file in scans.glob("sub00_*"):
        image = nib.load(file)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :-5], image.affine), file)
    report = check(study, fast=True, scans=scans, **windows("(24, 0, 1)"), TRAINING=everybody_trains())
    assert "the full length of y, which differs between subjects" in texts(report, Level.MISTAKE)
    assert "give (24, 30, 1), or batch_size = 1" in texts(report, Level.MISTAKE)


def test_a_border_that_leaves_nothing_is_refused_and_a_small_one_advised_upon(trained_study):
    path = trained_study.folder / "x.ini"
    words = ["--inference_mode", "windows", "--spatial_window_size", "24,24,1", "--border"]
    report = check_config(path, [*words, "12,12,0"], action="inference", fast=True)
    assert "border (12, 12, 0) leaves nothing of window (24, 24, 1)" in texts(report, Level.MISTAKE)
    report = check_config(path, [*words, "0,0,0"], action="inference", fast=True)
    assert "border = (5, 5, 0) prevents them" in texts(report, Level.NOTE)
    assert report.exit_code == 0
    report = check_config(path, [*words, "5,5,0"], action="inference", fast=True)
    assert "seams" not in texts(report)
    assert rows(report, "Windows")[0][3] > 10


def test_windows_are_no_matter_where_whole_slices_are_taken(trained_study):
    words = ["--spatial_window_size", "24,24,1", "--border", "0,0,0"]
    report = check_config(trained_study.folder / "x.ini", words, action="inference", fast=True)
    assert [item.name for item in report.facts if item.topic == "Windows"] == ["segments"]
    assert [len(row) for row in rows(report, "Windows")] == [3]
    assert "seams" not in texts(report)


# The model folder


def test_checkpoints_that_would_be_written_over_stop_training(trained_study):
    report = check_config(trained_study.folder / "x.ini", fast=True)
    assert "starting_iter = 0 would write over them" in texts(report, Level.MISTAKE)
    report = check_config(trained_study.folder / "x.ini", ["--starting_iter", "-1", "--max_iter", "10"], fast=True)
    assert report.exit_code == 0
    assert (fact(report, "starts from"), fact(report, "iterations")) == (4, 6)


def test_a_model_that_is_not_there_stops_inference_and_resuming(study):
    assert "train first, or correct model_dir" in texts(check(study, action="inference", fast=True), Level.MISTAKE)
    assert "has no checkpoint" in texts(check(study, "--starting_iter", "-1", fast=True), Level.MISTAKE)
    report = check(study, fast=True, NETWORK={"name": "pimms_soft"})
    assert "name its model folder in [PIMMS] classifier" in texts(report, Level.MISTAKE)


def test_landmarks_are_learnt_by_training_and_needed_by_inference(trained_study):
    words = ["--normalisation", "True"]
    path = trained_study.folder / "x.ini"
    report = check_config(path, [*words, "--starting_iter", "-1"], fast=True)
    assert "landmarks of T1, T2, FLAIR will be learnt" in texts(report, Level.NOTE)
    report = check_config(path, words, action="inference", fast=True)
    assert "has no landmarks for T1, T2, FLAIR" in texts(report, Level.MISTAKE)


@eager
def test_a_trial_learns_landmarks_and_codes_without_storing_them(study):
    before = state_of(study.folder)
    path = study.write(
        NETWORK={"normalisation": True}, SEGMENTATION={"label_normalisation": True}, TRAINING={"max_iter": 5}
    )
    report = check_config(path)
    assert report.exit_code == 0
    assert set(state_of(study.folder)) == set(before)


@pytest.mark.parametrize("action", ["training", "inference"])
def test_links_that_lead_nowhere_sizes_that_cannot_be_and_folders_are_named_from_headers_alone(study, action):
    study.scans = study.copy_scans()
    link, small = study.scans / "sub01_T1.nii.gz", study.scans / "sub02_T2.nii.gz"
    for name in ("T1", "T2", "FLAIR"):
        (study.scans / f"sub01_{name}.nii.gz").unlink()
        (study.scans / f"sub01_{name}.nii.gz").symlink_to(f"../annex/{name}.nii.gz")
    image = nib.load(small)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1e6, 1e6, 1e6, 1]) @ image.affine), small)
    (study.scans / "sub99_T1.nii.gz").mkdir()
    report = check(study, action=action, fast=True, T2={"pixdim": "(6, 6, 6)"}, INFERENCE={"dataset_to_infer": "all"})
    mistakes = texts(report, Level.MISTAKE)
    assert f"subject sub01, section [T1], {link}: is a link to ../annex/T1.nii.gz, where no file is" in mistakes
    assert "voxels of (6e+06, 6e+06, 6e+06) mm would become" in mistakes
    assert "sub99_T1.nii.gz" in texts(report, Level.REMARK)


# Evaluation


def test_evaluation_wants_segmentations_on_the_grids_of_the_labels(study):
    report = check(study, action="evaluation", fast=True)
    assert "so there is nothing to evaluate: run pimms-tf inference" in texts(report, Level.MISTAKE)
    report = check(study, action="evaluation", SEGMENTATION={"inferred": "lesion"})
    assert "reference and segmentation are the same file" in texts(report, Level.MISTAKE)
    found = study.copy_scans()
    image = nib.load(found / "sub00_lesion.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), found / "sub00_lesion.nii.gz")
    section = {"path_to_search": found, "filename_contains": "_lesion"}
    report = check(study, action="evaluation", SEGMENTATION={"inferred": "found"}, found=section)
    assert fact(report, "pairs") == 6
    mistakes = texts(report, Level.MISTAKE).splitlines()
    assert len(mistakes) == 1
    assert "subject sub00: reference" in mistakes[0]
    assert "are not on one grid" in mistakes[0]


def test_evaluation_misses_only_segmentations_that_inference_was_meant_to_write(study):
    found = study.copy_scans()
    for number in (2, 3, 4, 5):
        (found / f"sub0{number}_lesion.nii.gz").unlink()
    image = nib.load(found / "sub00_lesion.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), found / "sub00_lesion.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), found / "sub01_lesion.nii.gz")
    section = {"path_to_search": found, "filename_contains": "_lesion"}
    changes = {"SEGMENTATION": {"inferred": "found"}, "found": section}
    (study.folder / "model").mkdir()
    split = [f"sub0{number},{'inference' if number < 2 else 'training'}\n" for number in range(6)]
    (study.folder / "model" / "dataset_split.csv").write_text("".join(split))
    report = check(study, action="evaluation", **changes)
    assert (fact(report, "pairs"), texts(report, Level.REMARK)) == (2, "")
    (study.folder / "model" / "dataset_split.csv").write_text("".join(split).replace("training", "inference"))
    assert "no segmentation and are not evaluated: sub02, sub03" in texts(
        check(study, action="evaluation", **changes), Level.REMARK
    )


# The command line and the report


def test_the_command_prints_text_or_json_and_ends_with_the_code_of_the_worst(study, capsys):
    assert study("check", "x.ini", "--fast") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "train can run"
    assert study("check", "x.ini", "--fast", "--json", "--queue_length", "9") == 0
    assert json.loads(capsys.readouterr().out)["exit_code"] == 0
    study.write(SYSTEM={"queue_length": 30}, TRAINING={"starting_iter": 7})
    assert study("check", "x.ini", "--fast", "--json") == 2
    content = json.loads(capsys.readouterr().out)
    assert {finding["level"] for finding in content["findings"]} >= {"mistake", "remark"}
    assert content["tables"][0]["rows"][0]["section"] == "T1"
    assert study("check") == 2


def test_the_last_line_counts_what_to_look_at(tmp_path):
    report = Report(tmp_path / "x.ini", "train")
    assert report.text().splitlines()[-1] == "train can run"
    report.remark("Files", "something")
    report.remark("Files", "something")
    assert report.text().splitlines()[-1] == "train can run; 1 remark to look at first"
    report.mistake("Files", "one")
    report.mistake("Files", "another")
    assert report.text().splitlines()[-1] == "train cannot run: 2 mistakes"
    assert report.exit_code == 2


def test_sizes_and_durations_are_told_in_words():
    assert [print_bytes(size) for size in (12, 1500, 2.5e9)] == ["12 B", "1.5 kB", "2.5 GB"]
    seconds = [print_seconds(each) for each in (0.05, 12, 600, 12_000, 300_000)]
    assert seconds == ["0.05 s", "12 s", "10 min", "3 h 20 min", "3 days 11 h"]


def test_more_gpus_than_there_are_are_a_mistake_before_training(study):
    report = check(study, "--num_gpus", "64")
    assert report.exit_code == 2
    assert "num_gpus = 64, but TensorFlow sees" in texts(report, Level.MISTAKE)


@pytest.mark.parametrize("action", ["training", "inference"])
def test_a_folder_in_place_of_the_split_file_is_a_mistake(study, action):
    report = check(study, action=action, fast=True, SYSTEM={"dataset_split_file": str(study.folder)})
    assert f"dataset_split_file = {study.folder} is a folder" in texts(report, Level.MISTAKE)


def test_scans_standardised_before_are_remarked_on_where_the_foreground_is_what_lies_above_0(study):
    study.scans = study.copy_scans()
    for subject in ("sub00", "sub03"):
        spoil(study.scans / f"{subject}_FLAIR.nii.gz", lambda voxels: (voxels - voxels.mean()) / voxels.std())
    sentence = "[FLAIR] lies below 0 for a good part in 2 subjects, as after a standardisation"
    assert sentence in texts(check(study, action="inference"), Level.REMARK)
    for changes in ({"PIMMS": {"zero_background": True}}, {"NETWORK": {"foreground_type": "mean_plus"}}):
        assert sentence not in texts(check(study, action="inference", **changes))
