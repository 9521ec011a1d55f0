"""The command line: its words, its exit codes, and one sentence for every mistake."""

import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.commands.running import _hidden


@pytest.fixture
def complaint(capsys):
    """Returns what a failed command said on the error stream: one sentence after `error: `."""

    def read() -> str:
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in captured.out
        return lines[0]

    return read


def change(path: Path, alter) -> None:
    """Writes what `alter` makes of an image's voxels and affine."""
    image = nib.load(path)
    data, affine = alter(np.asarray(image.dataobj), image.affine)
    nib.save(nib.Nifti1Image(data, affine), path)


# Words


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ((), "the following arguments are required: VERB"),
        (("trian", "x.ini"), "trian is not a verb of pimms-tf; did you mean train?"),
        (("train",), "no configuration file given: pimms-tf train CONFIG.ini"),
        (("train", "no.ini"), "there is no configuration file"),
        (("train", "x.ini", "y.ini"), "'y.ini' on the command line is neither an option"),
        (("train", "x.ini", "-z"), "'-z' on the command line"),
        (("train", "x.ini", "--max_itr", "4"), "did you mean --max_iter?"),
        (("train", "x.ini", "--max_iter", "many"), "--max_iter many is not a whole number"),
        (("train", "x.ini", "--axcodes", "R,A,S"), "belongs to input sections, which the command line cannot change"),
        (("train", "x.ini", "--loss_type", "Dise"), "did you mean Dice?"),
        (("train", "x.ini", "--name", "pims_online"), "did you mean pimms_online?"),
        (("export", "x.ini"), "the following arguments are required: --output"),
        (("report", "no.csv"), "there is no such file of results"),
        (("report", "no.csv", "--subsets"), "--subsets is not an option of pimms-tf report"),
        (("simulate", "."), "is not an empty folder"),
        (("simulate", "new", "--subjects", "1", "--seed", "-1"), "seed -1 is negative"),
        (("train", "x.ini", "-a", "net_gan"), "net_gan"),
        (("train", "x.ini", "-a", "net_classify"), "requires the section [CLASSIFICATION]"),
    ],
)
def test_a_wrong_word_ends_as_one_sentence_that_names_it(study, complaint, argv, says):
    before = study.listing()
    assert study(*argv) == 2
    assert says in complaint()
    assert study.listing() == before


def test_a_configuration_can_be_given_in_every_customary_way(trained_study):
    for argv in (
        ("x.ini", "--inference_iter", "2"),
        ("-c", "x.ini", "--inference_iter", "2"),
        ("--conf", "x.ini", "--inference_iter=2"),
        ("--inference_iter", "2", "x.ini"),
    ):
        assert trained_study("inference", *argv) == 0


def test_with_debug_a_mistake_keeps_its_traceback(study):
    from niftynet_compat import ConfigError

    with pytest.raises(ConfigError, match="there is no configuration file"):
        study("train", "no.ini", "--debug")


def test_another_backend_of_keras_is_refused(study, complaint, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert study("train", "x.ini") == 2
    assert "need Keras on TensorFlow, but KERAS_BACKEND is torch; unset it" in complaint()


def test_result_files_are_compared_without_tensorflow(study, complaint, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert study("report", "no.csv") == 2
    assert "there is no such file of results" in complaint()


def test_help_is_there_for_every_verb_without_loading_tensorflow(study, capsys):
    for verb in ("train", "inference", "evaluation", "export", "report", "simulate", "demo"):
        with pytest.raises(SystemExit) as ended:
            study(verb, "--help")
        assert ended.value.code == 0
        assert f"usage: pimms-tf {verb}" in capsys.readouterr().out


def test_simulated_subjects_can_be_trained_on(study, capsys):
    assert study("simulate", "made", "--subjects", "1", "--spacing_mm", "6") == 0
    assert sorted(path.name for path in (study.folder / "made" / "data").glob("*.nii.gz")) == [
        f"sim01_{name}.nii.gz" for name in ("FLAIR", "T1", "T2", "lesion")
    ]
    assert "1 of 1: sim01" in capsys.readouterr().out


# Configurations


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"T1": {"path_to_search": "./nowhere"}}, "nowhere is not there"),
        ({"T1": {"filename_contains": "_T9"}}, "no file name contains _T9"),
        ({"lesion": {"filename_contains": "_FLAIR"}, "PIMMS": {"keep_incomplete": "maybe"}}, "keep_incomplete = maybe"),
        ({"NETWORK": {"name": "hemiss"}}, "did you mean hemis?"),
        ({"TRAINING": {"loss_type": "Dicee"}}, "did you mean Dice?"),
        ({"TRAINING": {"learning_rate": 1}}, "did you mean lr?"),
        ({"SEGMENTATION": {"image": "T1,T3"}}, "names a section [T3], which is not there"),
        ({"SEGMENTATION": {"label": None}}, "label is not set in section [SEGMENTATION]"),
        ({"SEGMENTATION": {"num_classes": 1}}, "num_classes = 1 is too small"),
        ({"PIMMS": {"image_modalities": "T1,T2"}}, "image_modalities = T1, T2 has 2 names for 3 sections"),
        (
            {"PIMMS": {"modalities": "T1,T2,FLAIR", "image_modalities": "T1,T2,PD"}},
            "has PD, which is none of modalities = T1, T2, FLAIR",
        ),
        ({"NETWORK": {"name": "pimms_soft"}}, "name its model folder in [PIMMS] classifier"),
        (
            {"NETWORK": {"name": "pimms_soft"}, "PIMMS": {"classifier": "./nowhere"}},
            "so model_dir ",
        ),
        ({"TRAINING": {"validation_every_n": 5, "exclude_fraction_for_validation": 0}}, "needs validation subjects"),
        ({"TRAINING": {"exclude_fraction_for_validation": 0.9}}, "leaves none for training"),
        ({"TRAINING": {"starting_iter": -1}}, "so model_dir "),
        ({"TRAINING": {"starting_iter": 7}}, "model.ckpt-7.index is not there, but iteration 7 is asked for"),
        ({"SYSTEM": {"model_dir": "/proc/nowhere"}}, "model_dir /proc/nowhere cannot be written"),
        ({"SYSTEM": {"model_dir": "./x.ini/model"}}, "cannot be written"),
        ({"T1": {"spatial_window_size": "(12, 12, 1)"}}, "differ, but both are sources of image"),
        (
            {name: {"spatial_window_size": "(90, 90, 1)"} for name in ("T1", "T2", "FLAIR", "lesion")},
            "window (90, 90, 1) is larger than volume (28, 35, 10)",
        ),
        ({"T2": {"pixdim": "(9, 9, 9)"}}, "give both sections the same axcodes and pixdim"),
        ({"NETWORK": {"window_sampling": "weighted"}}, "set sampler in [SEGMENTATION]"),
        ({"TRAINING": {"vars_to_freeze": "pimms"}}, "there is nothing to train"),
    ],
)
def test_a_wrong_configuration_ends_as_one_sentence_before_anything_is_trained(study, complaint, changes, says):
    study.write(**changes)
    before = study.listing()
    assert study("train", "x.ini") == 2
    assert says in complaint()
    left = [path for path in study.listing() if path not in before and "model.ckpt" in path]
    assert left == []


@pytest.mark.parametrize(
    "changes",
    [
        {"T1": {"path_to_search": "./nowhere"}},
        {"NETWORK": {"name": "pimms_soft"}},
        {"NETWORK": {"name": "pimms_soft"}, "PIMMS": {"classifier": "./nowhere"}},
        {"NETWORK": {"window_sampling": "weighted"}},
        {"TRAINING": {"validation_every_n": 5, "exclude_fraction_for_validation": 0}},
        {name: {"spatial_window_size": "(90, 90, 1)"} for name in ("T1", "T2", "FLAIR", "lesion")},
    ],
)
def test_what_can_be_known_beforehand_leaves_no_trace(study, complaint, changes):
    study.write(**changes)
    before = study.listing()
    assert study("train", "x.ini") == 2
    complaint()
    assert study.listing() == before


@pytest.mark.parametrize(
    ("line", "says"),
    [("[TRAINIGN]", "did you mean it by [TRAINIGN]?"), ("lrr = 1", "lrr"), ("no equals sign", "no equals sign")],
)
def test_an_unknown_section_key_or_line_is_named(study, capsys, line, says):
    path = study.folder / "x.ini"
    path.write_text(path.read_text().replace("[TRAINING]", line if "[" in line else f"[TRAINING]\n{line}"))
    assert study("train", "x.ini") == 2
    assert says in capsys.readouterr().err


# Files


@pytest.mark.parametrize(
    ("file", "spoil", "says"),
    [
        ("T2", lambda path: path.write_bytes(b"nothing of an image" * 20), "is no image or is damaged"),
        ("T2", lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (
            "T2",
            lambda path: change(path, lambda data, affine: (data[1:], affine)),
            "lie on different grids",
        ),
        (
            "lesion",
            lambda path: change(path, lambda data, affine: (data, affine @ np.diag([1, 2, 1, 1]))),
            "name the section onto whose grid all are to be resampled, as in [PIMMS] reference = T1",
        ),
    ],
)
def test_a_header_that_does_not_fit_is_found_before_training(study, complaint, file, spoil, says):
    copied = study.copy_scans()
    path = copied / f"sub03_{file}.nii.gz"
    spoil(path)
    study.write(scans=copied, TRAINING={"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0})
    before = study.listing()
    assert study("train", "x.ini") == 2
    text = complaint()
    assert says in text
    assert "subject sub03" in text
    assert str(path) in text
    assert study.listing() == before


def test_a_subject_without_the_reference_is_found_before_training(study, complaint):
    copied = study.copy_scans()
    (copied / "sub03_T1.nii.gz").unlink()
    fractions = {"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0}
    study.write(scans=copied, PIMMS={"reference": "T1"}, TRAINING=fractions)
    before = study.listing()
    assert study("train", "x.ini") == 2
    assert "subject sub03 has no file for section [T1], which [PIMMS] reference names" in complaint()
    assert study.listing() == before


def as_float(data: np.ndarray, value: float) -> np.ndarray:
    spoilt = data.astype(np.float32)
    spoilt[5:8, 5, 5] = value
    return spoilt


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("file", "spoil", "says"),
    [
        ("T1", lambda path: path.write_bytes(path.read_bytes()[:4000]), "is no image or is damaged"),
        (
            "FLAIR",
            lambda path: change(path, lambda data, affine: (as_float(data, np.nan), affine)),
            "has 3 voxels that are NaN or infinite",
        ),
        (
            "lesion",
            lambda path: change(path, lambda data, affine: (as_float(data, 3), affine)),
            "has label values [3] outside 0 to 1; set num_classes",
        ),
        (
            "lesion",
            lambda path: change(path, lambda data, affine: (as_float(data, 0.5), affine)),
            "should hold whole numbers",
        ),
    ],
)
def test_a_damaged_volume_of_any_subject_ends_training_as_one_sentence(study, complaint, file, spoil, says):
    copied = study.copy_scans()
    for path in copied.glob("sub0[45]_*"):
        path.unlink()
    path = copied / f"sub02_{file}.nii.gz"
    spoil(path)
    study.write(
        scans=copied,
        NETWORK={"name": "hemis"},
        TRAINING={"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0, "max_iter": 9},
    )
    assert study("train", "x.ini") == 2
    text = complaint()
    assert says in text
    assert "subject sub02" in text
    assert not list((study.folder / "model" / "models").glob("model.ckpt-*"))


@pytest.mark.usefixtures("eagerly")
def test_a_diverged_loss_names_the_subjects_of_its_batch(study, complaint):
    study.write(NETWORK={"name": "hemis"}, TRAINING={"lr": 1e30, "max_iter": 50})
    assert study("train", "x.ini") == 2
    text = complaint()
    assert "is not a finite number" in text
    listed = (study.folder / "model" / "dataset_split.csv").read_text().splitlines()
    training = [line.partition(",")[0] for line in listed if line.endswith("training")]
    assert f"which holds windows of {', '.join(training)}," in text


# The order of things


def test_training_does_not_begin_anew_over_checkpoints(trained_study, complaint):
    before = trained_study.listing()
    assert trained_study("train", "x.ini") == 2
    assert "holds checkpoints up to iteration 4 and starting_iter = 0 would write over them" in complaint()
    assert trained_study.listing() == before


def test_inference_before_training_says_so(study, complaint):
    before = study.listing()
    assert study("inference", "x.ini") == 2
    assert "train first" in complaint()
    assert study("export", "x.ini", "--output", "served") == 2
    assert "train first" in complaint()
    assert study.listing() == before


def test_evaluation_before_inference_says_so(trained_study, complaint):
    shutil.rmtree(trained_study.folder / "model" / "output", ignore_errors=True)
    before = trained_study.listing()
    for option in ((), ("--subsets",)):
        assert trained_study("evaluation", "x.ini", *option) == 2
        text = complaint()
        assert "run pimms-tf inference" in text
        assert ("--subsets first" in text) == bool(option)
    assert trained_study.listing() == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"PIMMS": {"classifier_features": "4, 16"}}, "has shape"),
        ({"SEGMENTATION": {"num_classes": 3}}, "frontend"),
        ({"NETWORK": {"name": "hemis"}}, "is in it but not in the model"),
        ({"SEGMENTATION": {"image": "T1,T2"}}, "pimms/backend_2"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(trained_study, complaint, changes, says):
    trained_study.write(**changes)
    assert trained_study("inference", "x.ini") == 2
    text = complaint()
    assert "does not fit the model that the configuration describes" in text
    assert says in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"INFERENCE": {"border": "(9, 9, 0)", "spatial_window_size": "(18, 18, 1)"}}, "border (9, 9, 0) leaves"),
        ({"INFERENCE": {"inference_iter": 3}}, "iteration 3 is asked for; it holds 2, 4"),
        ({"INFERENCE": {"dataset_to_infer": "validaton"}}, "validaton"),
        ({"INFERENCE": {"save_seg_dir": "/proc/nowhere"}}, "/proc/nowhere"),
        ({"T1": {"path_to_search": "./nowhere"}}, "nowhere is not there"),
        ({name: {"filename_contains": "_PD"} for name in ("T1", "T2", "FLAIR")}, "no input section finds any file"),
        (
            {"SYSTEM": {"dataset_split_file": "./other.csv"}, "INFERENCE": {"dataset_to_infer": "validation"}},
            "other.csv",
        ),
    ],
)
def test_mistakes_in_inference_end_as_one_sentence(trained_study, complaint, changes, says):
    trained_study.write(**changes)
    assert trained_study("inference", "x.ini") == 2
    assert says in complaint()


@pytest.mark.usefixtures("eagerly")
def test_a_damaged_scan_ends_inference_and_leaves_what_was_done(trained_study, complaint):
    study = trained_study
    copied = study.copy_scans()
    study.write(scans=copied)
    listed = (study.folder / "model" / "dataset_split.csv").read_text().splitlines()
    first, second = [line.partition(",")[0] for line in listed if line.endswith("inference")]
    path = copied / f"{second}_FLAIR.nii.gz"
    path.write_bytes(path.read_bytes()[:4000])
    assert study("inference", "x.ini") == 2
    assert str(path) in complaint()
    output = study.folder / "model" / "output"
    assert sorted(path.name for path in output.iterdir()) == sorted(
        [f"{first}_niftynet_out.nii.gz", "inferred.csv", "modality_scores.csv"]
    )


def test_files_and_subjects_that_are_left_aside_are_counted_with_the_reason(study, capsys):
    copied = study.copy_scans()
    os.link(copied / "sub00_FLAIR.nii.gz", copied / "_FLAIR.nii.gz")
    for number in range(6):
        if number > 1:
            (copied / f"sub0{number}_lesion.nii.gz").unlink()
        else:
            (copied / f"sub0{number}_T2.nii.gz").unlink()
    study.write(scans=copied, TRAINING={"starting_iter": 0, "validation_every_n": 1})
    assert study("train", "x.ini", "--exclude_fraction_for_validation", "0") == 2
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "[FLAIR] 1 file is not used, since nothing is left of its name: _FLAIR.nii.gz",
        "4 subjects are left out, each of which has no file in [lesion]: sub02, sub03, sub04, sub05",
        "2 subjects lack T2: sub00, sub01",
        "2 subjects, of which 1 for training, 0 for validation",
    ]


@pytest.mark.parametrize(
    ("verb", "changes", "says"),
    [
        ("train", {"T1": {"path_to_search": "./nowhere"}}, "nowhere is not there"),
        ("train", {"TRAINING": {"starting_iter": 7}}, "iteration 7"),
        ("inference", {"NETWORK": {"normalisation": True}}, "has no landmarks for T1, T2, FLAIR"),
        ("evaluation", {}, "there is nothing to evaluate"),
    ],
)
def test_mistakes_that_need_no_network_come_before_tensorflow_is_imported(
    study, complaint, monkeypatch, verb, changes, says
):
    monkeypatch.setattr("pimms_tf.commands.run_cli.import_tensorflow", lambda: pytest.fail("TensorFlow is imported"))
    study.write(**changes)
    assert study(verb, "x.ini") == 2
    assert says in complaint()


def test_what_tensorflow_does_not_need_is_hidden_from_it_and_from_nobody_else():
    with _hidden("wave", "os"):
        with pytest.raises(ImportError):
            import wave
        assert sys.modules["os"] is os
    import wave

    assert wave.open
