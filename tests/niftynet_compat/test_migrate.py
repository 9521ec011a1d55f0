"""What becomes of a file: every message, the cleaned file, and robustness whatever the file holds."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from niftynet_compat import (
    ConfigError,
    Outcome,
    Verdict,
    as_dict,
    cleaned_path,
    ini,
    is_cleaned,
    load_config,
    migrate_file,
    migration_report,
    resolve_network,
    write_cleaned,
)
from niftynet_compat.migration.cleaning import effective
from niftynet_compat.schema import sections
from niftynet_compat.settings.writing import absolute_paths

PLAIN = """# What I always use.
[T1]
path_to_search = ./d
filename_contains = T1
spatial_window_size = (16, 16, 1)
[L]
path_to_search = ./d
filename_contains = lesion
spatial_window_size = (16, 16, 1)
[SYSTEM]
model_dir = m
[NETWORK]
name = pimms_online
[TRAINING]
[INFERENCE]
[EVALUATION]
[SEGMENTATION]
image = T1
label = L
num_classes = 2
"""


@pytest.fixture(autouse=True)
def nobodys_home(monkeypatch, tmp_path):
    monkeypatch.setenv("niftynet_config_home", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)


def with_lines(**lines):
    text = PLAIN
    for section, line in lines.items():
        text = text.replace(f"[{section}]\n", f"[{section}]\n{line}\n")
    return text


def written(folder, text, name="a.ini"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def report_on(folder, text):
    return migrate_file(written(folder, text))


def status(report, section, key):
    (row,) = [row for row in report.keys if (row.section, row.key) == (section, key)]
    return row


def as_released(text):
    """The same file, asking for all that the released 2-D program did."""
    text = text.replace("[NETWORK]\n", "[NETWORK]\nwhitening = True\nwindow_sampling = resize\n")
    return text + "[PIMMS]\npreset = niftynet2018\n"


def outcomes(report):
    return {action.verb: action.outcome for action in report.actions}


def reasons(report):
    return {action.verb: " / ".join(action.reasons) for action in report.actions}


def test_a_file_that_asks_for_the_released_program_is_clean(tmp_path):
    report = report_on(tmp_path, as_released(PLAIN))
    assert report.exit_code == 0
    assert report.application == "net_segment"
    assert report.network == "pimms_online"
    assert not report.mistakes
    assert outcomes(report) == dict.fromkeys(("train", "inference", "evaluation"), Outcome.CLEAN)


ORIGINALS = [
    ("hemis", "niftynet.contrib.hemis.hemis.HeMIS"),
    ("pimms_online", "niftynet.contrib.hemis_midl.hemis.HeMIS"),
    ("pimms_online", "singletask_pimms_3d"),
    ("modality_classifier", "niftynet.contrib.midl.resnet_plugin.ResNet"),
    ("modality_classifier", "resnet"),
]


@pytest.mark.parametrize(("ours", "theirs"), ORIGINALS)
@pytest.mark.parametrize("window", ["(16, 16, 1)", "(16, 16, 16)"])
@pytest.mark.parametrize("more", ["", "whitening = True", "window_sampling = resize", "normalisation = True"])
@pytest.mark.parametrize("pimms", ["", "[PIMMS]\npreset = niftynet2018\n", "[PIMMS]\ninference_mode = windows\n"])
def test_the_outcome_does_not_depend_on_whose_name_of_a_network_is_written(tmp_path, ours, theirs, window, more, pimms):
    text = with_lines(NETWORK=more, INFERENCE="border = 2").replace("(16, 16, 1)", window) + pimms
    if ours == "modality_classifier":
        text = text.replace("[SEGMENTATION]", "[CLASSIFICATION]")
    if "preset" in pimms and theirs == "singletask_pimms_3d" and window == "(16, 16, 1)":
        pytest.skip("a program for volumes, given slices: what it built was never published, the slices' network was")
    original = report_on(tmp_path, text.replace("pimms_online", theirs))
    named = report_on(tmp_path, text.replace("pimms_online", ours))
    assert outcomes(named) == outcomes(original)
    changing = [{(row.section, row.key) for row in each.keys if row.changes_results} for each in (named, original)]
    assert changing[0] == changing[1]


def test_a_network_of_volumes_is_not_called_niftynets_own(tmp_path):
    row = status(report_on(tmp_path, PLAIN.replace("(16, 16, 1)", "(16, 16, 16)")), "NETWORK", "name")
    assert row.changes_results
    assert "its 3-D back-ends were never published" in row.sentence
    assert "as in NiftyNet" not in row.sentence


def test_keys_that_only_the_fork_had_are_not_called_niftynets(tmp_path):
    text = with_lines(TRAINING="do_whole_volume_validation = True\nlr = 0.1")
    rows = {row.key: row.sentence for row in report_on(tmp_path, text).keys}
    assert rows["do_whole_volume_validation"].startswith("as in the fork: validate on whole volumes")
    assert rows["lr"].startswith("as in NiftyNet: ")
    assert not any("NiftyNet: fork" in sentence or "fork: fork" in sentence for sentence in rows.values())


def test_a_rule_for_the_scans_is_not_said_of_other_sections(tmp_path):
    report = report_on(tmp_path, with_lines(SEGMENTATION="sampler = L"))
    assert "all sections of image must agree" in status(report, "T1", "spatial_window_size").sentence
    assert "must agree" not in status(report, "L", "spatial_window_size").sentence


def test_statuses_come_in_the_order_of_the_file_with_line_text_and_sentence(tmp_path):
    rows = migration_report(load_config(written(tmp_path, PLAIN)))
    assert [(row.line, row.section, row.key, row.text) for row in rows[:3]] == [
        (3, "T1", "path_to_search", "./d"),
        (4, "T1", "filename_contains", "T1"),
        (5, "T1", "spatial_window_size", "(16, 16, 1)"),
    ]
    assert all(row.sentence for row in rows)


def test_the_report_on_a_configuration_has_its_overrides_too(tmp_path):
    config = load_config(written(tmp_path, PLAIN), {"lr": "0.5", "window_sampling": "patch"})
    rows = {row.key: row for row in migration_report(config) if not row.line}
    assert (rows["lr"].section, rows["lr"].text) == ("TRAINING", "0.5")
    assert rows["window_sampling"].changes_results


@pytest.mark.parametrize(
    ("lines", "place", "verdict", "changes", "part"),
    [
        ({"TRAINING": "lr = 0.1"}, ("TRAINING", "lr"), Verdict.HONOURED, False, "as in NiftyNet: learning rate"),
        ({"SYSTEM": "queue_length = 4"}, ("SYSTEM", "queue_length"), Verdict.NO_EFFECT, False, "where it is 5"),
        ({"TRAINING": "noise_size = 4"}, ("TRAINING", "noise_size"), Verdict.NO_EFFECT, False, "[GAN]"),
        ({"NETWORK": "keep_prob = 0.5"}, ("NETWORK", "keep_prob"), Verdict.UNSUPPORTED, True, "no dropout"),
        ({"NETWORK": "keep_prob = 1.0"}, ("NETWORK", "keep_prob"), Verdict.HONOURED, False, "what happens here"),
        ({"NETWORK": "window_sampling = patch"}, ("NETWORK", "window_sampling"), Verdict.UNSUPPORTED, True, "uniform"),
        ({"TRAINING": "loss_type = dice"}, ("TRAINING", "loss_type"), Verdict.DIFFERS, False, "read as Dice"),
        ({"TRAINING": "lr ="}, ("TRAINING", "lr"), Verdict.DIFFERS, False, "counts as unset"),
        ({"PIMMS": ""}, ("SEGMENTATION", "num_classes"), Verdict.DIFFERS, False, "label_normalisation"),
        ({"EVALUATION": "evaluations = dice"}, ("EVALUATION", "evaluations"), Verdict.DIFFERS, False, "own grid"),
        (
            {"EVALUATION": "evaluations = dice,average_distance"},
            ("EVALUATION", "evaluations"),
            Verdict.DIFFERS,
            True,
            "in mm",
        ),
        (
            {"TRAINING": "vars_to_restore = conv"},
            ("TRAINING", "vars_to_freeze"),
            Verdict.DIFFERS,
            True,
            "NiftyNet froze what vars_to_restore",
        ),
        ({"SEGMENTATION": "sampler = L"}, ("SEGMENTATION", "sampler"), Verdict.DIFFERS, False, "leaves out subjects"),
        ({"T1": "csv_path_file = l.csv"}, ("T1", "csv_path_file"), Verdict.DIFFERS, False, "is an error"),
        ({"TRAINING": "starting_iter = -1"}, ("TRAINING", "starting_iter"), Verdict.DIFFERS, False, "in model_dir"),
    ],
)
def test_the_verdict_on_a_key(tmp_path, lines, place, verdict, changes, part):
    row = status(report_on(tmp_path, with_lines(**lines)), *place)
    assert (row.verdict, row.changes_results) == (verdict, changes)
    assert part in row.sentence


def test_a_fork_file_without_whitening_is_told_once_that_its_program_whitened(tmp_path):
    text = PLAIN.replace("pimms_online", "niftynet.contrib.hemis.hemis.HeMIS\nwhitening = False")
    row = status(report_on(tmp_path, text), "NETWORK", "whitening")
    assert row.changes_results
    assert row.sentence.count("whitened them") == 1
    report = report_on(
        tmp_path,
        text.replace("whitening = False", "").replace("[TRAINING]", "[PIMMS]\npreset = niftynet2018\n[TRAINING]"),
    )
    assert status(report, "NETWORK", "whitening").line == 0
    assert not status(report, "NETWORK", "name").changes_results


def test_several_labels_are_told_to_change_results(tmp_path):
    text = with_lines().replace("label = L\n", "label = L, T1\nlabel_normalisation = True\n")
    report = report_on(tmp_path, text)
    assert status(report, "SEGMENTATION", "label").changes_results
    assert report.exit_code == 1
    assert any("label_normalisation with 2 sections" in line for line in report.original)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (PLAIN.replace("[SYSTEM]\nmodel_dir = m\n", ""), "[SYSTEM] is missing"),
        (with_lines(TRAINING="modality_label = L"), "modality_label of [TRAINING]"),
        (with_lines() + "[PIMMS]\nseed = 1\n", "seed of [PIMMS]"),
        (PLAIN.replace("name = pimms_online\n", ""), "name of [NETWORK] is not set"),
        (PLAIN, "pimms_online cannot be imported"),
        (with_lines(EVALUATION="evaluations = dice, jaccard"), "blanks beside a comma"),
        (with_lines(TRAINING="starting_iter = -1"), "starting_iter = -1 needs a checkpoint"),
        (with_lines(TRAINING="loss_type = dice"), "another spelling of capitals"),
        (with_lines(TRAINING="lr ="), "is empty"),
        (with_lines(T1="axcodes = None"), "is None"),
        (PLAIN.replace("name = pimms_online", 'name = "pimms_online"'), "has quotes"),
        (with_lines(NETWORK="window_sampling = weighted"), "needs sampler"),
        (with_lines(NETWORK="window_sampling = patch"), "has no sampler in it"),
        (with_lines(TRAINING="validation_every_n = 5"), "needs validation subjects"),
        (PLAIN.replace("[SEGMENTATION]", "[CLASSIFICATION]"), "knows only window_sampling = resize"),
        (with_lines() + "[REGRESSION]\nloss_border = 1\n", "counts as an input section"),
        (
            PLAIN.replace("num_classes", "num_classes_seg")
            .replace("[SEGM", "[MULTI")
            .replace("MULTIENTATION", "MULTITASK"),
            "no task of it",
        ),
        ("\ufeff" + PLAIN, "byte-order mark"),
    ],
)
def test_why_niftynet_would_stop_is_told(tmp_path, text, part):
    assert part in " / ".join(report_on(tmp_path, text).original)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        (with_lines(TRAINING="lerning_rate = 1"), 15, "did you mean lr?"),
        (with_lines(TRAINING="lr = fast"), 15, "is not a number"),
        (with_lines(TRAINING="lr = 1 ; note"), 15, "a comment behind the value"),
        (with_lines(TRAINING="lr = 1\nlr = 2"), 16, "is given in line 15 already"),
        (with_lines(TRAINING="nonsense"), 15, "is not `key = value`"),
        (with_lines(TRAINING="lr = %(x)s"), 15, "refers to %(x)s"),
        (PLAIN.replace("pimms_online", "unet"), 13, "is not built here"),
        (PLAIN.replace("pimms_online", "pims_online"), 13, "did you mean pimms_online?"),
        (PLAIN.replace("image = T1", "image = T2"), 18, "names a section [T2], which is not there"),
        (with_lines(TRAINING="loss_type = DicePlusXEntTopK"), 15, "training stops"),
    ],
)
def test_what_stops_a_file_is_told_with_its_line_and_no_key_is_forgotten(tmp_path, text, line, part):
    report = report_on(tmp_path, text)
    assert report.exit_code == 2
    (row,) = [row for row in report.keys if row.stops]
    assert row.line == line
    assert part in row.sentence
    assert row.verdict is Verdict.UNSUPPORTED
    lines = text.splitlines()
    keys = [n for n, text_ in enumerate(lines, 1) if text_ and text_[0] not in "#[" and "=" in text_]
    assert {row.line for row in report.keys if row.key} >= set(keys) - {line}


def test_a_file_without_task_or_with_two_says_so(tmp_path):
    report = report_on(tmp_path, PLAIN.partition("[SEGMENTATION]")[0])
    assert report.exit_code == 2
    assert "requires the section" in report.mistakes[0].text
    two = with_lines() + "[CLASSIFICATION]\nimage = T1\n"
    assert report_on(tmp_path, two).exit_code == 2
    assert not migrate_file(written(tmp_path, two), "net_segment").mistakes
    with pytest.raises(ConfigError, match="not the name of an application"):
        migrate_file(written(tmp_path, two), "net_segmnt_x")


def test_dotted_applications_are_resolved(tmp_path):
    name = "niftynet.contrib.pimms.3D_HeMIS_application.SegmentationApplication"
    assert migrate_file(written(tmp_path, PLAIN), name).application == "net_segment"


def test_verbs_that_cannot_run_are_told(tmp_path):
    report = report_on(tmp_path, as_released(PLAIN.replace("[INFERENCE]\n", "")))
    assert reasons(report)["inference"].startswith("requires the section [INFERENCE]")
    assert [action.verb for action in report.actions if action.is_meant] == ["train"]
    assert report.exit_code == 0
    nameless = report_on(tmp_path, PLAIN.replace("name = pimms_online\n", ""))
    assert nameless.exit_code == 2
    sizes = PLAIN.replace("(16, 16, 1)", "(8, 8, 1)", 1).replace("image = T1", "image = T1, L")
    assert "differ" in reasons(report_on(tmp_path, sizes))["train"]


@pytest.mark.parametrize(
    ("text", "stopped", "code"),
    [
        (with_lines(TRAINING="loss_type = DicePlusXEntTopK"), {"train"}, 2),
        (with_lines(TRAINING="loss_type = DicePlusXEntTopK").replace("[TRAINING]", "[INFERENCE ]"), set(), 2),
        (with_lines(EVALUATION="evaluations = roc"), {"evaluation"}, 2),
        (PLAIN.replace("[SEGMENTATION]", "[CLASSIFICATION]").replace("pimms_online", "resnet"), {"evaluation"}, 1),
        (with_lines(TRAINING="starting_iter = -1"), {"train"}, 2),
        (with_lines(TRAINING="starting_iter = -1").replace("= m\n", "= /raid/tom/m\n"), set(), 1),
        (with_lines(TRAINING="validation_every_n = 5"), {"train"}, 2),
        (PLAIN.replace("pimms_online", "unet"), {"train", "inference", "evaluation"}, 2),
        (PLAIN.replace("[TRAINING]\n[INFERENCE]\n[EVALUATION]\n", ""), {"train", "inference", "evaluation"}, 2),
        (PLAIN.replace("[TRAINING]\n", ""), {"train"}, 1),
    ],
)
def test_the_exit_code_is_the_worst_of_the_actions_that_the_file_is_for(tmp_path, text, stopped, code):
    report = report_on(tmp_path, text)
    if report.mistakes:
        stopped = {"train", "inference", "evaluation"}
    assert {verb for verb, outcome in outcomes(report).items() if outcome is Outcome.STOPS} == stopped
    assert report.exit_code == code
    assert all(action.reasons for action in report.actions if action.outcome is Outcome.STOPS)
    meant = [action.outcome for action in report.actions if action.is_meant]
    assert report.outcome == max(meant or outcomes(report).values())


@pytest.mark.parametrize("wanted", ["inference_iter = 8", ""])
def test_a_model_folder_without_the_checkpoint_that_is_asked_for_stops_inference(tmp_path, wanted):
    (tmp_path / "m" / "models").mkdir(parents=True)
    (tmp_path / "m" / "models" / "model.ckpt-7.index").write_bytes(b"")
    report = report_on(tmp_path, with_lines(INFERENCE=wanted))
    assert (outcomes(report)["inference"] is Outcome.STOPS) is bool(wanted)
    assert "starting_iter = 0 would write over the checkpoints up to 7" in reasons(report)["train"]


def test_data_that_are_not_there_are_no_mistake_of_the_file(tmp_path):
    report = report_on(tmp_path, PLAIN)
    assert report.join.num_subjects is None
    assert "run this where the data are" in report.join.lines[0]


def test_the_join_is_told_with_counts_leftovers_and_reasons(tmp_path):
    data = tmp_path / "d"
    data.mkdir()
    for name in ("a_T1", "b_T1", "c_T1", "a_lesion", "b_lesion", "c__lesion", "T1"):
        (data / f"{name}.nii.gz").write_bytes(b"x")
    report = report_on(tmp_path, PLAIN)
    text = " / ".join(report.join.lines)
    assert "[T1] 3 files, [L] 3 files" in text
    assert "2 subjects have a file in every one of [T1], [L]" in text
    assert "has no file in [L]: c_" in text
    assert "T1.nii.gz has no subject: nothing is left of its name" in text
    assert "would match but for underscores" in text
    assert report.join.num_subjects == 2


@pytest.mark.parametrize("key", ["sampler", "modality_label"])
def test_whoever_lacks_a_file_that_training_reads_is_left_out_of_the_join(tmp_path, key):
    (tmp_path / "d").mkdir()
    for name in ("a_T1", "b_T1", "a_lesion", "b_lesion", "a_map"):
        (tmp_path / "d" / f"{name}.nii").write_bytes(b"x")
    text = with_lines(SEGMENTATION=f"{key} = M") + "[M]\npath_to_search = ./d\nfilename_contains = map\n"
    report = report_on(tmp_path, text)
    assert "has no file in [M]: b_" in " / ".join(report.join.lines)
    assert report.join.num_subjects == 1


def test_a_list_of_values_that_is_not_there_is_noticed_and_one_beside_the_file_is_found(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    for name in ("a_T1", "a_lesion"):
        (tmp_path / "d" / f"{name}.nii").write_bytes(b"x")
    text = with_lines(SEGMENTATION="modality_label = M") + "[M]\ncsv_data_file = ./values.csv\n"
    join = report_on(tmp_path, text).join
    assert "values.csv is not there ([M])" in join.lines[0]
    (tmp_path / "values.csv").write_text("a_,T1,\n")
    report = report_on(tmp_path, text)
    assert "has an empty column" in report.join.obstacle
    assert report.exit_code == 2
    (tmp_path / "values.csv").write_text("a_,T1\n")
    assert report_on(tmp_path, text).join.num_subjects == 1
    path = written(tmp_path, text.replace("./d", str(tmp_path / "d")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert migrate_file(path).join.num_subjects == 1
    again = load_config(write_cleaned(path, tmp_path / "elsewhere" / "a.ini"))
    assert again.values_file("M") == tmp_path / "values.csv"


def test_a_classifiers_subjects_need_their_label(tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a_T1", "b_T1", "a_lesion"):
        (tmp_path / "d" / f"{name}.nii").write_bytes(b"x")
    text = PLAIN.replace("[SEGMENTATION]", "[CLASSIFICATION]").replace("pimms_online", "resnet")
    assert report_on(tmp_path, text).join.num_subjects == 1


@pytest.mark.parametrize(("window", "differs"), [("(8, 8, 1)", True), ("(16, 16, 1)", False), ("", False)])
def test_a_window_of_the_labels_that_is_not_the_images_changes_results(tmp_path, window, differs):
    text = PLAIN.replace("lesion\nspatial_window_size = (16, 16, 1)", f"lesion\nspatial_window_size = {window}")
    row = status(report_on(tmp_path, text), "L", "spatial_window_size")
    assert row.changes_results is differs
    assert ("NiftyNet cut windows of 8, 8, 1 from their middle" in row.sentence) is differs


BASELINE = "niftynet.contrib.pimms.3D_HeMIS_application.SegmentationApplication"
SINGLE_TASK = "niftynet.contrib.pimms.3D_HeMIS_single_segmentation_application.SegmentationApplication"
SLICES = "niftynet.contrib.hemis.hemis_app.BRATSApp"


@pytest.mark.parametrize(
    ("application", "network", "fixed"),
    [
        (BASELINE, "singletask_pimms_3d", {"name": "hemis"}),
        (BASELINE, "niftynet.network.highres3dnet.HighRes3DNet", {"name": "hemis"}),
        (BASELINE, "hemis", {}),
        (SINGLE_TASK, "singletask_pimms_3d", {}),
        (SLICES, "niftynet.contrib.hemis.hemis.HeMIS", {"whitening": True, "window_sampling": "resize"}),
        (SLICES, "hemis\nwhitening = True\nwindow_sampling = resize", {}),
        ("net_segment", "singletask_pimms_3d", {}),
        (None, "singletask_pimms_3d", {}),
    ],
)
def test_what_a_program_did_whatever_was_set_is_done_where_it_is_named(tmp_path, application, network, fixed):
    path = written(tmp_path, PLAIN.replace("pimms_online", network))
    config = load_config(path, application=application)
    plain = load_config(path)
    for key in ("name", "whitening", "window_sampling"):
        assert getattr(config.network, key) == fixed.get(key, getattr(plain.network, key))
        assert (config.origin("NETWORK", key) == "-a") is (key in fixed)
        said = [remark for remark in config.remarks if remark.key == key and "did so whatever was set" in remark.text]
        assert len(said) == int(key in fixed)
    again = load_config(write_cleaned(path, tmp_path / "out" / "a.ini", application))
    assert (again.network.whitening, again.network.window_sampling) == (
        config.network.whitening,
        config.network.window_sampling,
    )
    assert resolve_network(again.network.name) == resolve_network(config.network.name)
    assert "# What I always use." in (tmp_path / "out" / "a.ini").read_text()


def test_an_option_of_the_command_line_does_not_change_what_the_program_did(tmp_path):
    path = written(tmp_path, PLAIN)
    config = load_config(path, {"name": "pimms_online", "whitening": "False"}, application=BASELINE)
    assert config.network.name == "hemis"
    assert not load_config(path, {"whitening": "False"}, application=BASELINE).network.whitening
    assert load_config(path, {"whitening": "False"}, application=SLICES).network.whitening


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"permuted_indices": "1,0"}, ()),
        ({"permuted_indices": "1,0", "idxs_to_drop": "0"}, (1, 0)),
    ],
)
def test_an_order_that_the_program_took_only_with_scans_to_drop_is_taken_only_then(tmp_path, options, order):
    path = written(tmp_path, PLAIN.replace("image = T1", "image = T1, L"))
    assert load_config(path, options, application=BASELINE).task.permuted_indices == order
    assert load_config(path, options).task.permuted_indices == (1, 0)


def test_a_network_that_is_not_named_is_missed_though_the_program_did_not_look_at_it(tmp_path):
    path = written(tmp_path, PLAIN.replace("name = pimms_online\n", ""))
    with pytest.raises(ConfigError, match="name is not set"):
        load_config(path, application=BASELINE, action="inference")


WINDOWS_AT_INFERENCE = "inference takes whole slices, which have no seams; inference_mode = windows in [PIMMS]"


@pytest.mark.parametrize(
    ("network", "more", "is_said"),
    [
        ("niftynet.contrib.hemis_midl.hemis.HeMIS", {}, True),
        ("niftynet.contrib.hemis_midl.hemis.HeMIS", {"PIMMS": "preset = niftynet2018"}, False),
        ("niftynet.contrib.hemis_midl.hemis.HeMIS", {"PIMMS": "inference_mode = windows"}, False),
        ("niftynet.contrib.hemis_midl.hemis.HeMIS", {"PIMMS": "classifier_scope = window"}, False),
        ("niftynet.contrib.hemis.hemis.HeMIS", {"PIMMS": "classifier_scope = window"}, True),
        ("niftynet.contrib.hemis.hemis.HeMIS", {"PIMMS": "mask_scope = batch"}, False),
        ("niftynet.contrib.hemis.hemis.HeMIS", {"NETWORK": "window_sampling = resize"}, False),
        ("niftynet.contrib.hemis.hemis.HeMIS", {"PIMMS": "spatial_rank = 3"}, False),
        ("resnet", {}, False),
        ("pimms_online", {}, True),
    ],
)
def test_windows_at_inference_are_said_not_to_be_cut_where_they_are_not(tmp_path, network, more, is_said):
    text = PLAIN.replace("[SEGMENTATION]", "[PIMMS]\n[SEGMENTATION]").replace("pimms_online", network)
    for section, line in ({"INFERENCE": "border = 5\nspatial_window_size = (16, 16, 1)"} | more).items():
        text = text.replace(f"[{section}]\n", f"[{section}]\n{line}\n")
    report = report_on(tmp_path, text)
    for key in ("border", "spatial_window_size"):
        row = status(report, "INFERENCE", key)
        assert (row.changes_results and row.sentence.startswith(WINDOWS_AT_INFERENCE)) is is_said


@pytest.mark.parametrize(
    ("setting", "is_said"),
    [("", True), ("preset = niftynet2018", False), ("resampling = niftynet", False), ("resampling = mended", True)],
)
def test_voxel_sizes_are_said_to_be_reached_otherwise_where_they_are(tmp_path, setting, is_said):
    text = with_lines(T1="pixdim = (1.0, 1.0, 1.0)").replace("[SEGMENTATION]", f"[PIMMS]\n{setting}\n[SEGMENTATION]")
    row = status(report_on(tmp_path, text), "T1", "pixdim")
    assert (row.changes_results and "resampling = niftynet in [PIMMS]" in row.sentence) is is_said


@pytest.mark.parametrize(
    ("setting", "is_said"), [("", True), ("preset = niftynet2018", False), ("augmentation = chained", False)]
)
def test_changes_of_geometry_are_said_to_be_interpolated_otherwise_where_they_are(tmp_path, setting, is_said):
    text = with_lines(TRAINING="rotation_angle = (-10, 10)").replace(
        "[SEGMENTATION]", f"[PIMMS]\n{setting}\n[SEGMENTATION]"
    )
    row = status(report_on(tmp_path, text), "TRAINING", "rotation_angle")
    assert (row.changes_results and "augmentation = chained in [PIMMS]" in row.sentence) is is_said


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        ("uniform", "a classifier looks at slices of each scan as they are; window_sampling = resize zooms them"),
        ("resize", "slices are zoomed to the window and the scores of the central ones averaged; NiftyNet zoomed the"),
    ],
)
def test_what_a_classifier_makes_of_windows_and_borders_at_inference_is_said(tmp_path, sampling, sentence):
    text = PLAIN.replace("pimms_online", f"resnet\nwindow_sampling = {sampling}").replace(
        "SEGMENTATION", "CLASSIFICATION"
    )
    text = text.replace("[INFERENCE]\n", "[INFERENCE]\nborder = 5\nspatial_window_size = (16, 16, 1)\n")
    report = report_on(tmp_path, text)
    window, border = (status(report, "INFERENCE", key) for key in ("spatial_window_size", "border"))
    assert window.sentence.startswith(sentence)
    assert window.changes_results
    assert border.sentence == "nothing is cut off what a classifier looks at, as in NiftyNet"
    assert not border.changes_results


def test_where_uniform_windows_lie_is_said_though_the_key_is_left_out(tmp_path):
    sentence = "centres of uniform windows lie in slices that show brain unless sampling_area = all in [PIMMS]"
    old = PLAIN.replace("pimms_online", "singletask_pimms_3d").replace("(16, 16, 1)", "(16, 16, 16)")
    assert status(report_on(tmp_path, old), "NETWORK", "window_sampling").sentence == sentence
    everywhere = report_on(tmp_path, old + "[PIMMS]\nsampling_area = all\n")
    assert sentence not in {row.sentence for row in everywhere.keys}


def test_probabilities_of_a_classifier_are_honoured_and_kept_in_the_cleaned_file(tmp_path):
    text = PLAIN.replace("[SEGMENTATION]", "[CLASSIFICATION]\noutput_prob = True").replace("pimms_online", "resnet")
    path = written(tmp_path, text)
    assert (
        "the tables that net_classify writes follow it"
        in status(migrate_file(path), "CLASSIFICATION", "output_prob").sentence
    )
    assert load_config(write_cleaned(path, tmp_path / "out" / "a.ini")).task.output_prob


def test_a_known_key_of_no_network_here_is_not_sent_to_the_section_where_it_stands(tmp_path):
    row = status(
        report_on(tmp_path, with_lines(NETWORK="weight_initializer_args = {}")), "NETWORK", "weight_initializer_args"
    )
    assert row.sentence == "has no effect here: no network here has it"


def test_a_file_of_a_thousand_misspelt_sections_is_looked_at_in_seconds(tmp_path):
    text = PLAIN + "".join(f"[S{number}]\npath_to_search = x\nlerning = 2\n" for number in range(1000))
    began = time.perf_counter()
    assert len(report_on(tmp_path, text).mistakes) == 1000
    assert time.perf_counter() - began < 5


def test_data_of_which_no_subject_can_be_made_stop_the_file(tmp_path):
    (tmp_path / "d").mkdir()
    report = report_on(tmp_path, PLAIN)
    assert report.exit_code == 2
    assert "no file name contains T1" in report.join.lines[0]


def test_a_split_that_shares_nothing_with_the_data_stops_the_file(tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a_T1", "a_lesion"):
        (tmp_path / "d" / f"{name}.nii").write_bytes(b"x")
    (tmp_path / "s.csv").write_text("001,training\n")
    report = report_on(tmp_path, with_lines(SYSTEM=f"dataset_split_file = {tmp_path / 's.csv'}"))
    assert report.exit_code == 2
    assert "none are in common" in " ".join(report.join.lines)


def test_a_model_folder_with_checkpoints_is_not_written_over(tmp_path):
    models = tmp_path / "m" / "models"
    models.mkdir(parents=True)
    (models / "model.ckpt-7.index").write_bytes(b"")
    report = report_on(tmp_path, with_lines(TRAINING="starting_iter = 0"))
    assert "NiftyNet wrote over them" in status(report, "TRAINING", "starting_iter").sentence


def test_defaults_that_other_sections_inherit_stand_once(tmp_path):
    report = report_on(tmp_path, "[DEFAULT]\ninterp_order = 3\nlr = 0.5\n" + PLAIN)
    assert status(report, "DEFAULT", "interp_order").line == 2
    assert status(report, "DEFAULT", "lr").line == 3


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[", b"x" * 5000, b"\x00\x01[SYSTEM]\nmodel_dir=\x00\n"])
def test_files_that_are_no_ini_files_are_told_so(tmp_path, content):
    path = tmp_path / "a.ini"
    path.write_bytes(content)
    report = migrate_file(path)
    assert report.exit_code == 2
    assert report.mistakes
    json.dumps(as_dict(report))


def test_a_missing_file_and_a_folder_are_told_so(tmp_path):
    assert "no configuration file" in migrate_file(tmp_path / "x.ini").mistakes[0].text
    assert migrate_file(tmp_path).exit_code == 2


def test_paths_too_long_for_the_system_are_told_so(tmp_path):
    join = report_on(tmp_path, with_lines(T1=f"csv_file = {'a' * 5000}")).join
    assert "not there ([T1], [L])" in join.lines[0]
    migrate_file(written(tmp_path, PLAIN.replace("./d", "/" + "b" * 5000)))
    text = with_lines(TRAINING="validation_every_n = 5\nstarting_iter = -1").replace("= m\n", "= " + "c" * 5000 + "\n")
    assert not report_on(tmp_path, text).mistakes
    with pytest.raises(ConfigError, match="cannot be written"):
        write_cleaned(tmp_path / "a.ini", tmp_path / ("d" * 5000) / "a.ini")


# ---- the cleaned file


MESSY = """# A comment to keep.
[T1]
path_to_search = "./d"
filename_contains = T1
  , brain
spatial_window_size = (16, 16, 1)
axcodes = None
; another comment
[L]
csv_path_file = l.csv
path_to_search = ./nowhere
spatial_window_size = (16, 16, 1)
[regression]
[SYSTEM]
queue_length = 40
[NETWORK]
name = niftynet.contrib.hemis_midl.hemis.HeMIS
whitening = yes
keep_prob = 0.5
window_sampling = patch
[TRAINING]
lr =
loss_type = dice
patience = 7
[INFERENCE]
output_prob = True
[SEGMENTATION]
image = T1
label = L, T1
num_classes = 2
"""


def test_the_cleaned_file_keeps_comments_and_says_what_was_dropped_or_changed(tmp_path):
    path = written(tmp_path, MESSY.replace("[regression]\n", ""))
    (tmp_path / "l.csv").write_text("")
    target = write_cleaned(path, cleaned_path(path))
    text = target.read_text()
    assert target == tmp_path / "a_migrated.ini"
    assert path.read_text() == MESSY.replace("[regression]\n", "")
    assert text.startswith("# Written by pimms-tf migrate from a.ini.\n# As written: ")
    for part in (
        "# A comment to keep.",
        "; another comment",
        "# dropped: queue_length = 40 (has no effect here: it belongs to [NETWORK], where it is 5)",
        "name = pimms_online",
        "loss_type = Dice\n",
        "csv_file = l.csv",
        "label = L\n",
    ):
        assert part in text
    config = load_config(target)
    assert config.remarks == ()
    assert config.network.whitening is True
    assert config.network.window_sampling == "uniform"


def test_a_cleaned_file_elsewhere_finds_the_same_lists_and_model(tmp_path):
    (tmp_path / "l.csv").write_text("")
    path = written(tmp_path, PLAIN.replace("model_dir = m\n", "").replace("filename_contains = T1", "csv_file = l.csv"))
    config, again = load_config(path), load_config(write_cleaned(path, tmp_path / "new" / "a.ini"))
    assert again.model_dir == config.model_dir
    assert again.inputs["T1"].csv_file == config.inputs["T1"].csv_file
    assert again.remarks == ()


def test_files_with_defaults_and_references_are_written_anew(tmp_path):
    text = "[DEFAULT]\nroot = ./d\ninterp_order = 3\nkeep_prob = 0.1\n" + PLAIN.replace("./d", "%(interp_order)s/d")
    path = written(tmp_path, text.replace("root = ./d\n", ""))
    target = write_cleaned(path, tmp_path / "b.ini")
    assert "comments are not here" in target.read_text()
    config = load_config(target)
    assert config.inputs["T1"].interp_order == 3
    assert config.inputs["T1"].path_to_search == str(tmp_path / "3" / "d")
    assert config.remarks == ()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (PLAIN.replace("pimms_online", "unet"), "cannot be rewritten: unet is not built here"),
        (with_lines(TRAINING="lr = fast"), "a file with mistakes is not rewritten"),
    ],
)
def test_a_file_that_cannot_run_is_not_rewritten(tmp_path, text, part):
    with pytest.raises(ConfigError, match=part):
        write_cleaned(written(tmp_path, text), tmp_path / "new" / "a.ini")
    assert not (tmp_path / "new").exists()


def test_nothing_but_its_own_work_is_replaced(tmp_path):
    path = written(tmp_path, PLAIN)
    other = written(tmp_path, "mine", "b.ini")
    with pytest.raises(ConfigError, match="was not written by migrate"):
        write_cleaned(path, other)
    assert other.read_text() == "mine"
    with pytest.raises(ConfigError, match="is the original"):
        write_cleaned(path, path)
    target = write_cleaned(path, tmp_path / "c.ini")
    assert is_cleaned(target)
    assert not is_cleaned(path)
    assert write_cleaned(path, target) == target
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.ini", "b.ini", "c.ini"]


def test_a_cleaned_file_that_was_edited_is_not_written_over(tmp_path):
    path, target = written(tmp_path, PLAIN), tmp_path / "c.ini"
    write_cleaned(path, target)
    edited = target.read_text() + "preset = niftynet2018\n"
    target.write_text(edited)
    with pytest.raises(ConfigError, match="c.ini: was edited since migrate wrote it, and is not written over; move it"):
        write_cleaned(path, target)
    assert target.read_text() == edited
    assert is_cleaned(target)
    target.write_text(f"{edited}\n")  # a blank line more is an edit, too
    with pytest.raises(ConfigError, match="was edited"):
        write_cleaned(path, target)


def test_the_header_lists_every_difference_that_remains_and_those_that_the_text_hides(tmp_path):
    text = with_lines(NETWORK="keep_prob = 0.5", SEGMENTATION="sampler = L").replace("label = L\n", "label = L, T1\n")
    path = written(tmp_path, text.replace("pimms_online", "niftynet.contrib.hemis.hemis.HeMIS"))
    target = write_cleaned(path, tmp_path / "c.ini")
    head = target.read_text().partition("\n\n")[0]
    changing = [row for row in migrate_file(path).keys if row.changes_results]
    assert {row.key for row in changing} == {"name", "keep_prob", "label", "whitening", "window_sampling"}
    for row in changing:
        assert f"[{row.section}] {row.key}: " in head or f'"{row.section}", "{row.key}", ' in head
    again = migrate_file(target)
    assert outcomes(again) == outcomes(migrate_file(path))
    assert {row.key for row in again.keys if row.changes_results} == {row.key for row in changing}
    twice = write_cleaned(target, tmp_path / "d.ini")
    assert outcomes(migrate_file(twice)) == outcomes(again)
    assert twice.read_text().count("# differs: [NETWORK] name") == 1
    assert twice.read_text().count('"keep_prob"') == 1


def test_a_header_that_was_edited_into_something_else_is_no_fault(tmp_path):
    target = write_cleaned(written(tmp_path, with_lines(NETWORK="keep_prob = 0.5")), tmp_path / "c.ini")
    for old, new in (('["NETWORK"', '["NETWORK'), ("# As written: ", "# "), ('"keep_prob", ', "")):
        target.write_text(target.read_text().replace(old, new))
        assert not migrate_file(target).mistakes


def test_the_place_of_a_cleaned_file(tmp_path):
    path = tmp_path / "a.ini"
    assert cleaned_path(path) == tmp_path / "a_migrated.ini"
    assert cleaned_path(path, tmp_path / "x") == tmp_path / "x" / "a.ini"
    assert cleaned_path(path, tmp_path) == tmp_path / "a_migrated.ini"


# ---- any file


ODD = st.sampled_from(
    [
        "",
        "None",
        "True",
        "0",
        "-1",
        "1e-4",
        "(1,2,3)",
        "T1",
        "T1, L",
        "'T1'",
        '"x"',
        "a b",
        "x ; y",
        "50%",
        "%(lr)s",
        "[1]",
    ]
    + [
        "dice",
        "Dice_NS",
        "patch",
        "weighted",
        "l2",
        "(5, 0, 5)",
        "/raid/tom/x",
        "relu",
        "\u00e9",
        "nan",
        "inf",
        "99999999999",
    ]
    + sorted({word for specs in sections.SPECS.values() for spec in specs.values() for word in spec.choices})
)
KEYS = st.sampled_from([*sorted(sections.KNOWN_KEYS), "batch-size", "lerning_rate", "LR"])
SECTIONS = st.sampled_from(
    [*sections.SYSTEM_SECTIONS, *sections.TASK_SECTIONS, "T1", "L", "DEFAULT", "REGRESSION", "segmentation", "T1!", " "]
)
LINES = st.one_of(
    st.builds("[{}]".format, SECTIONS),
    st.builds("{} = {}".format, KEYS, ODD),
    st.builds("  {}: {}".format, KEYS, ODD),
    st.sampled_from(["# note", "; [T2]", "", "junk", "= 3", "   indented"]),
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(LINES, max_size=25), st.booleans())
def test_whatever_a_file_holds_there_is_a_report_and_no_traceback(tmp_path_factory, lines, appended):
    folder = tmp_path_factory.mktemp("f")
    text = "\n".join(lines)
    path = written(folder, PLAIN + text if appended else text)
    report = migrate_file(path)
    assert report.exit_code in (0, 1, 2)
    assert all(row.sentence for row in report.keys)
    json.dumps(as_dict(report))
    try:
        config = load_config(path)
    except ConfigError:
        assert report.mistakes
        assert report.exit_code == 2
        return
    assert not report.mistakes
    assert migration_report(config) == list(report.keys)
    clean_or_said_why(path, folder / "new" / "a.ini", config)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_bytes_a_file_holds_there_is_a_report(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("f") / "a.ini"
    path.write_bytes(content)
    assert migrate_file(path).exit_code == 2


def good_line(section):
    """Any key of a section with a value that it takes."""

    def text(spec):
        if spec.choices:
            return st.sampled_from(
                [change(word) for word in spec.choices for change in (str, str.upper, '"{}"'.format)]
            )
        low, high = (-3 if spec.low is None else int(spec.low)), (3 if spec.high is None else int(spec.high))
        special = {"axcodes": "R,A,S", "pixdim": "1,2,3", "cutoff": "0.1,0.5", "random_flipping_axes": "0, 1"}
        if spec.name in special:
            return st.sampled_from(
                [special[spec.name], "", '"R,A,S"' if spec.name == "axcodes" else special[spec.name]]
            )
        return {
            ini.to_int: st.integers(low, high).map(str),
            ini.to_float: st.sampled_from([str(low), f"{high}.0", ""]),
            ini.to_bool: st.sampled_from(["yes", "F", "1", '"True"', ""]),
            ini.to_strs: st.sampled_from(["A", "B", "A, B", '"A"', ""]),
            ini.to_floats: st.sampled_from(["1.5, 2", "{1,2}", ""]),
            ini.to_ints: st.sampled_from(["16, 64", "(1,2)", ""]),
        }.get(
            spec.parse,
            st.sampled_from(["7", "3, 4", ""])
            if spec.parse is not ini.to_str
            else st.sampled_from(["x", '"y z"', "", "None", "./p"]),
        )

    specs = [spec for spec in sections.SPECS[section].values() if spec.name not in ("name", "image", "num_classes")]
    return st.sampled_from(specs).flatmap(lambda spec: text(spec).map(lambda value: (spec.name, value)))


@st.composite
def good_files(draw):
    """Files that mostly load, with misplaced keys, quotes, empty values and comments."""
    blocks = []
    for section in ("A", "B", "SYSTEM", "NETWORK", "TRAINING", "INFERENCE", "EVALUATION", "SEGMENTATION", "PIMMS"):
        kind = sections.INPUT if section in "AB" else section
        lines = dict(draw(st.lists(good_line(kind), max_size=3)))
        stray = draw(st.sampled_from(["SYSTEM", "NETWORK", "TRAINING", "INFERENCE"]))
        name, value = draw(good_line(stray))
        if name not in sections.SPECS[kind] and draw(st.booleans()):
            lines[name] = value
        if section == "NETWORK":
            lines["name"] = draw(st.sampled_from(["hemis", '"hemis"', "niftynet.contrib.hemis.hemis.HeMIS", "resnet"]))
        if section == "SEGMENTATION":
            lines |= {"image": draw(st.sampled_from(["A", "A,B"])), "num_classes": "2"}
        comment = draw(st.sampled_from(["", "# mine\n", ";x = 1\n"]))
        blocks.append(f"[{section}]\n" + comment + "".join(f"{key} = {text}\n" for key, text in lines.items()))
    if draw(st.booleans()):
        blocks.append("[REGRESSION]\nloss_border = 1\n")
    return "".join(blocks)


@settings(max_examples=80, suppress_health_check=list(HealthCheck), deadline=None)
@given(good_files())
def test_a_cleaned_file_means_the_same_and_loads_without_remark(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("g")
    path = written(folder, text)
    try:
        config = load_config(path)
    except ConfigError:
        return
    for target in (folder / "b.ini", folder / "new" / "a.ini"):
        clean_or_said_why(path, target, config, must=not any(key.stops for key in migrate_file(path).keys))


def clean_or_said_why(path, target, config, must=False):
    try:
        again = load_config(write_cleaned(path, target))
    except ConfigError:
        assert not target.exists()
        if must:
            raise
        return
    assert again.remarks == ()
    assert outcomes(migrate_file(target)) == outcomes(migrate_file(path))
    before, after = absolute_paths(effective(config)), absolute_paths(again)
    values = []
    for config_ in (before, after):
        parts = {name: dataclasses.replace(section, referenced=True) for name, section in config_.inputs.items()}
        parts |= {part: getattr(config_, part) for part in PARTS}
        values.append(
            {name: [str(plain(value)) for value in dataclasses.astuple(part)] for name, part in parts.items()}
        )
    assert values[0] == values[1]
    assert Path(path).is_file()


PARTS = ("system", "network", "training", "inference", "evaluation", "task", "pimms")


def plain(value):
    # 15 and 15.0 are one value; nan is equal to itself here.
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def test_sections_that_no_key_reads_do_not_decide_whether_subjects_are_looked_for(tmp_path):
    sections = "[A]\n[B]\ncsv_file = nowhere\n[NETWORK]\nname = hemis\n[SEGMENTATION]\nimage = A\nnum_classes = 2\n"
    one, two = (written(tmp_path, f"{sections}label = {label}\n", f"{label}.ini") for label in ("A", "A, B"))
    assert migrate_file(one).join.obstacle
    assert migrate_file(two).join.obstacle == migrate_file(one).join.obstacle
