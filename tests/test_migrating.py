"""The migration guide, typed line by line for a NiftyNet project; and whether all that it names exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from niftynet_compat import load_config, migrate_file, write_label_mapping
from niftynet_compat.schema.sections import KNOWN_KEYS, SPECS
from pimms_tf.commands import niftynet_cli
from pimms_tf.commands.cli import _parser, main
from pimms_tf.commands.completion import options_of

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
RELEASED = Path(__file__).parent / "goldens" / "07_networks" / "hemis_3mod_2d" / "model.ckpt"
APP = "niftynet.contrib.hemis.hemis_app.BRATSApp"
LINES = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.strip().splitlines()]
NAMES = {"T1": "BFCorr_T1", "T2": "BFCorr_T2", "FLAIR": "BFCorr_FLAIR", "lesion": "BinLesion"}
INSTALLED = "pip install ."


def source(name, contains, order):
    return f"""[{name}]
path_to_search = ./scans/
filename_contains = {contains}
filename_not_contains =ADNI2017
spatial_window_size = (20, 20, 1)
interp_order = {order}
axcodes=(A, R, S)
"""


CONFIG = (
    "############################ input configuration sections\n"
    + "".join(source(name, f"BFCorr_{word}", 3) for name, word in (("Flair", "FLAIR"), ("T1", "T1"), ("T2", "T2")))
    + source("BinLesion", "BinLesion", 0)
    + """
[SYSTEM]
cuda_devices = ""
num_threads = 2
num_gpus = 1
model_dir = ./old_model
queue_length = 128

[NETWORK]
name = niftynet.contrib.hemis.hemis.HeMIS
activation_function = relu
batch_size = 2
decay = 1e-5
reg_type = L2
;window_sampling = resize
whitening = True
normalise_foreground_only=True
foreground_type = threshold_plus
queue_length = 10

[TRAINING]
sample_per_volume = 2
optimiser = adam
lr = 3e-4
loss_type = Dice
starting_iter = 0
save_every_n = 500
max_iter = 100000

[INFERENCE]
border = (5, 0, 5)
save_seg_dir = ./output/HeMIS
spatial_window_size = (0, 0, 1)
output_prob = True

[EVALUATION]

[SEGMENTATION]
image = Flair,T1,T2
label = BinLesion
output_prob = False
num_classes = 2
"""
)
TRIGGER = f"""#!/bin/bash
CUDA_VISIBLE_DEVICES=0 python3.6 net_run.py inference -c config.ini --app {APP} --dataset_split_file dataset_split.csv \
--inference_iter 26000 --volume_padding_size 0,0,1 --idxs_to_drop 0 --save_seg_dir ./o --permuted_indices 1,2,0
"""


@pytest.fixture
def project(tmp_path, scans, study, monkeypatch):
    """A project in the manner of the released files, with a model that NiftyNet left at iteration 26000."""
    (study.folder / "x.ini").unlink()
    (tmp_path / "scans").mkdir()
    for number in range(4):
        for ours, theirs in NAMES.items():
            shutil.copy(scans / f"sub{number:02}_{ours}.nii.gz", tmp_path / "scans" / f"sub{number}_{theirs}.nii.gz")
    models = tmp_path / "old_model" / "models"
    models.mkdir(parents=True)
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(f"{RELEASED}.{part}", models / f"model.ckpt-26000.{part}")
    (models / "checkpoint").write_text('model_checkpoint_path: "/home/somebody/m/models/model.ckpt-26000"\n')
    split = "sub0_,Training\nsub1_,Training\nsub2_,Validation\nsub3_,Inference\n"
    (tmp_path / "old_model" / "dataset_split.csv").write_text(split)
    write_label_mapping(tmp_path / "old_model" / "histogram_ref_file.txt", "label", "BinLesion", (0.0, 1.0), (0, 1))
    (tmp_path / "config.ini").write_text(CONFIG)
    (tmp_path / "trigger_inference.sh").write_text(TRIGGER)
    # Programs for scripts to find, as an installation puts them there.
    (tmp_path / "bin").mkdir()
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pimms_tf.commands.niftynet_cli import main\n"
    (tmp_path / "bin" / "net_run").write_text(f"#!{sys.executable}\n{program}sys.exit(main())\n")
    (tmp_path / "bin" / "net_run").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def typed(line):
    """The exit code of one line of the guide."""
    program, *words = shlex.split(line)
    if program == "pimms-tf":
        return main(words)
    if program.startswith("net_"):
        return niftynet_cli.main([program, *words])
    return subprocess.run(["bash", "-c", line], check=False, timeout=120).returncode


@pytest.mark.usefixtures("eagerly")
def test_the_guide_takes_a_niftynet_project_from_its_ini_file_to_tables(project, capfd):
    assert LINES[0] == INSTALLED
    said = {}
    for line in LINES[1:]:
        code = typed(line)
        said[line] = "".join(capfd.readouterr())
        # The model folder of the project holds NiftyNet's checkpoints; the guide says so.
        assert code == (2 if line.startswith("pimms-tf migrate") else 0), f"{line}\n{said[line]}"

    def of(beginning):
        return next(text for line, text in said.items() if line.startswith(beginning))

    assert "preset = niftynet2018 in [PIMMS] builds it as the released program did" in of("pimms-tf migrate config.ini")
    assert "pimms-tf import-checkpoint turns into a model_dir of ours" in of("pimms-tf migrate config.ini")
    assert "train       cannot run: model_dir holds NiftyNet's checkpoints" in of("pimms-tf migrate config.ini")
    changed = [(row.section, row.key) for row in migrate_file("config_migrated.ini").keys if row.changes_results]
    assert changed == [("NETWORK", "window_sampling")]
    assert "41 variables used, 0 unused" in of("pimms-tf import-checkpoint")
    assert "old_model/dataset_split.csv" in of("pimms-tf import-checkpoint")
    assert "old_model/histogram_ref_file.txt" in of("pimms-tf import-checkpoint")
    assert "starts from: iteration 26000" in of("pimms-tf check")
    assert "training iter 26002" in of("pimms-tf train")
    assert "Bold" not in of("pimms-tf report")
    config = load_config(project / "config_migrated.ini")
    assert (config.network.name, config.pimms.preset, config.remarks) == ("hemis", "niftynet2018", ())
    model = project / "model"
    for name in (
        "models/model.ckpt-26000.index",
        "models/model.ckpt-26002.index",
        "models/model.ckpt-26003.index",
        "dataset_split.csv",
        "settings_training.txt",
        "settings_training.ini",
        "settings_inference.txt",
        "training_niftynet_log",
        "inference_niftynet_log",
        "T1.csv",
        "imported.ini",
        "logs/0/training",
        "output/HeMIS/sub3__niftynet_out.nii.gz",
        "output/HeMIS/inferred.csv",
        "output/HeMIS/modality_scores.csv",
        "output/again/window_seg_sub3___niftynet_out.nii.gz",
        "o/window_seg_sub3___niftynet_out.nii.gz",
        "evaluation/evaluation.csv",
        "evaluation/eval_subject_id_label.csv",
    ):
        assert (model / name).exists(), name
    scan = nib.load(project / "scans" / "sub3_BFCorr_T1.nii.gz")
    result = nib.load(model / "output" / "HeMIS" / "sub3__niftynet_out.nii.gz")
    assert result.shape[:3] == scan.shape
    # What NiftyNet left is as it was.
    left = ["dataset_split.csv", "histogram_ref_file.txt", "models"]
    assert sorted(path.name for path in (project / "old_model").iterdir()) == left
    assert (project / "config.ini").read_text() == CONFIG


def test_the_model_that_niftynet_left_is_not_touched_and_the_way_to_convert_it_is_said(project, capfd):
    for words in (
        ["train", "config.ini"],
        ["train", "config.ini", "--starting_iter", "-1"],
        ["inference", "config.ini"],
    ):
        assert main(words) == 2
        assert "pimms-tf import-checkpoint" in capfd.readouterr().err
    assert len(list((project / "old_model" / "models").iterdir())) == 3


# ---- everything that the guide names


def test_the_installation_is_that_of_the_readme():
    assert INSTALLED in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_verb_and_option_of_the_guide_is_there():
    verbs = next(action.choices for action in _parser()._actions if action.dest != "help" and action.choices)
    named = set(re.findall(r"pimms-tf ([a-z-]+)", GUIDE))
    assert {"migrate", "check", "config", "import-checkpoint", "train", "inference", "evaluation", "report"} <= named
    assert named <= set(verbs)
    known = {flag for verb in verbs.values() for flag in options_of(verb)} | {f"--{key}" for key in KNOWN_KEYS}
    options = set(re.findall(r"(?<![\w-])(--[a-z_]+)", GUIDE))
    assert options <= known | {"--help", "--debug"}


def test_every_key_in_code_style_is_a_key_with_that_value():
    pairs = re.findall(r"`(?:\[\w+\] )?(\w+) = ([\w, ]+)`", GUIDE)
    assert len(pairs) >= 8
    for key, text in pairs:
        specs = [section[key] for section in SPECS.values() if key in section]
        assert specs, key
        words = [word.strip() for word in text.split(",")]
        assert all(not spec.choices or set(words) <= set(spec.choices) for spec in specs), (key, text)
    for section, key in re.findall(r"`\[(\w+)\] (\w+)`", GUIDE):
        assert key in SPECS[section]


def test_every_page_and_module_that_the_guide_points_to_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / target).is_file(), target
    for target in re.findall(r"`((?:tests|configs)/[\w./]*)`", GUIDE):
        assert (ROOT / target).exists(), target
    for module in re.findall(r"`(pimms_tf\.[\w.]+)`", GUIDE):
        assert (ROOT / module.replace(".", "/")).exists(), module


def test_the_table_of_troubles_has_all_of_them_in_order():
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", GUIDE, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 28))


def test_brackets_that_niftynet_never_took_are_refused_in_a_sentence(project, capsys):
    (project / "config.ini").write_text(CONFIG.replace("(5, 0, 5)", "[5,5,5]"))
    assert main(["train", "config.ini"]) == 2
    assert "[INFERENCE] border = [5,5,5] is not a list separated by commas" in capsys.readouterr().err
