"""The conformance vectors of the specification of NiftyNet's INI files, one test each, by their number."""

from operator import attrgetter
from pathlib import Path

import pytest

from niftynet_compat import ConfigError, load_config

BASE = """[T1]
path_to_search = ./d
spatial_window_size = (16, 16, 1)
[T2]
path_to_search = ./d
[T1c]
path_to_search = ./d
[label]
path_to_search = ./d
[SYSTEM]
[NETWORK]
name = hemis
[TRAINING]
[SEGMENTATION]
image = T1
label = label
num_classes = 2
[INFERENCE]
[EVALUATION]
"""

VALUES = [
    ("1", "TRAINING", "LR = 0.5", "training.lr", 0.5),
    ("4", "SYSTEM", "queue_length = 40", "network.queue_length", 5),
    ("6", "TRAINING", ";[input]\n# lr = 1", "training.lr", 0.01),
    ("8", "SYSTEM", 'cuda_devices = ""', "system.cuda_devices", ""),
    ("10", "INFERENCE", "spatial_window_size = 64", "inference.spatial_window_size", (64, 1, 1)),
    ("11", "INFERENCE", "border = (5, 0)", "inference.border", (5, 0, 0)),
    ("12", "NETWORK", "volume_padding_size = 21", "network.volume_padding_size", (21, 21, 21)),
    ("13", "SEGMENTATION", "output_prob = yes", "task.output_prob", True),
    ("15a", "INFERENCE", "spatial_window_size =", "inference.spatial_window_size", ()),
    ("15b", "TRAINING", "lr =", "training.lr", 0.01),
    ("15c", "NETWORK", "histogram_ref_file =", "histogram_file", None),
    ("16", "NETWORK", "reg_type = l2", "network.reg_type", "L2"),
    ("17", "TRAINING", "loss_type = dice", "training.loss_type", "Dice"),
    ("27", "SYSTEM", "model_dir = /m", "save_seg_dir", Path("/m/output")),
    ("29", "NETWORK", "decay = 1e-4", "network.decay", 1e-4),
    ("30", "NETWORK", "cutoff = (0.01, 0.99)", "network.cutoff", (0.01, 0.99)),
    ("31", "SYSTEM", "model_dir = /a/50%%", "system.model_dir", "/a/50%"),
    ("32", "EVALUATION", "evaluations = dice, jaccard", "evaluation.evaluations", "dice,jaccard"),
]
INPUTS = [
    ("9", "T1", "axcodes=(A, R, S)", "axcodes", ("A", "R", "S")),
    ("15", "T1", "filename_not_contains =", "filename_not_contains", ()),
]
REFUSALS = [
    ("2", "NETWORK", "batch-size = 4", "did you mean batch_size?"),
    ("3", "TRAINING", "lerning_rate = 1", "did you mean lr?"),
    ("5", "NETWORK", "batch_size = 4 ; x", "has a comment behind the value"),
    ("7", "TRAINING", "lr = 0.1\n  max_iter = 3", "is not a number"),
    ("13", "SEGMENTATION", "output_prob = on", "is neither True nor False"),
    ("25", "T1", "[T1!]", "is the same section as [T1]"),
    ("31", "SYSTEM", "model_dir = /a/50%", "write %% for a percent sign"),
]
OPTIONS = [
    ("20", ["--rotation_angle=-10,10"], "training.rotation_angle", (-10.0, 10.0)),
    ("21", ["--starting_iter", "-1"], "training.starting_iter", -1),
    ("23", ["--image", "label"], "task.image", ("label",)),
]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("niftynet_config_home", str(tmp_path / "none"))


def load(folder, text, overrides=None, action=None):
    (folder / "a.ini").write_text(text)
    return load_config(folder / "a.ini", overrides, action=action)


def numbered(rows):
    return pytest.mark.parametrize("row", rows, ids=[f"{row[0]}-{row[2]}" for row in rows])


def added(section, line):
    return BASE.replace(f"[{section}]\n", f"[{section}]\n{line}\n")


@numbered(VALUES)
def test_a_line_gives_a_value(row, tmp_path):
    _, section, line, name, value = row
    assert attrgetter(name)(load(tmp_path, added(section, line))) == value


@numbered(INPUTS)
def test_a_line_of_an_input_section_gives_a_value(row, tmp_path):
    _, section, line, name, value = row
    assert getattr(load(tmp_path, added(section, line)).inputs[section], name) == value


@numbered(REFUSALS)
def test_a_line_is_refused(row, tmp_path):
    _, section, line, part = row
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, added(section, line))
    assert part in str(refusal.value)


@pytest.mark.parametrize("row", OPTIONS, ids=[f"{row[0]}-{row[1][0]}" for row in OPTIONS])
def test_an_option_gives_a_value(row, tmp_path):
    _, words, name, value = row
    assert attrgetter(name)(load(tmp_path, BASE, words)) == value


def test_14_names_of_sections_with_uneven_blanks(tmp_path):
    assert load(tmp_path, BASE.replace("= T1\n", "= T1,T1c ,T2\n")).task.image == ("T1", "T1c", "T2")


def test_18_a_network_without_name(tmp_path):
    with pytest.raises(ConfigError, match=r"name is not set in section \[NETWORK\]"):
        load(tmp_path, BASE.replace("name = hemis\n", ""), action="train")


def test_19_a_list_that_begins_with_a_minus_needs_an_equals_sign(tmp_path):
    with pytest.raises(ConfigError, match="rotation_angle"):
        load(tmp_path, BASE, ["--rotation_angle", "-10,10"])


def test_22_an_option_of_another_task(tmp_path):
    with pytest.raises(ConfigError, match=r"\[GAN\]"):
        load(tmp_path, BASE, ["--noise_size", "3"])


def test_24_sections_take_their_options_one_after_the_other(tmp_path):
    config = load(tmp_path, BASE, ["--save_seg_dir", "--permuted_indices", "1,2,0", "./o"])
    assert config.task.permuted_indices == (1, 2, 0)
    assert config.inference.save_seg_dir == "./o"


def test_26_a_section_name_is_cleaned_before_it_counts(tmp_path):
    assert load(tmp_path, BASE.replace("[TRAINING]\n", "[TRAINING!]\nlr=0.5\n")).training.lr == 0.5


def test_28_a_list_beside_the_file_is_found_and_replaces_the_search(tmp_path):
    (tmp_path / "l.csv").write_text("")
    config = load(tmp_path, added("T1", "csv_file = l.csv"))
    assert config.inputs["T1"].csv_file == str(tmp_path / "l.csv")
    assert any(remark.key == "path_to_search" and "ignored" in remark.text for remark in config.remarks)
