"""`net_segment`, `net_classify` and `net_run`: their words, exit codes, lines and files, and a project that goes on."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from niftynet_compat import ConfigError, load_config
from niftynet_compat.schema.sections import SPECS, SYSTEM_SECTIONS
from niftynet_compat.settings.command_line import parse_command
from pimms_tf.commands.niftynet_cli import main
from pimms_tf.errors import UsageError

ROOT = Path(__file__).parents[2]
GOLDENS = Path(__file__).parents[1] / "goldens"
PREFIX = re.compile(r"\033\[1m(?P<level>[A-Z]+):niftynet:\033\[0m (?P<message>.*)")
FILE_PREFIX = re.compile(r"(?P<level>[A-Z]+):niftynet:[\d-]+ [\d:,]+: (?P<message>.*)")
ITERATION = re.compile(r"^\s*(training|validation|inference) iter (\d+), (.*) \(([\d.]+)s\)$")
LANDMARKS = "0.0 5.0 8.0 9.5 11.0 15.0 37.0 40.0 42.0 43.0 44.0 47.0 100.0"


@pytest.fixture
def run(study, capsys):
    """Runs one command in the study's folder; returns exit code, lines of output, lines of the error stream."""

    def run(*words):
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


def messages(lines, prefix=PREFIX):
    """The messages of log lines, without those that continue one."""
    return [match["message"] for line in lines if (match := prefix.fullmatch(line))]


# ---- words and exit codes


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("net_segment", 2, "no action is given"),
        ("net_segment trian -c x.ini", 2, "did you mean train?"),
        ("net_segment --lr 0.5 train -c x.ini", 2, "write the action before --lr 0.5"),
        ("net_segment train", 1, "no configuration file is given; write net_segment train -c CONFIG.ini"),
        ("net_segment train -c no.ini", 1, "there is no configuration file"),
        ("net_segment train -c x.ini --noise_size 3", 1, "--noise_size 3 belongs to [GAN]"),
        ("net_segment train -c x.ini --no_such_option 3", 1, "--no_such_option 3 is not an option"),
        ("net_segment train -c x.ini --batch-size 3", 1, "did you mean --batch_size?"),
        ("net_segment train -c x.ini --path_to_search x", 1, "belongs to input sections"),
        ("net_segment train -c x.ini --lr fast", 2, "--lr fast is not a number"),
        ("net_segment train -c x.ini --lr", 2, "--lr has no value behind it"),
        ("net_segment train -c x.ini --window_sampling everywhere", 2, "is not one of its words"),
        ("net_segment train -c x.ini --rotation_angle -10,10", 2, "write --rotation_angle=-10,10"),
        ("net_segment train -c x.ini stray", 2, "'stray' on the command line is neither an option"),
        ("net_segment train -c x.ini --lr fast --noise_size 3", 1, "--noise_size 3"),
        ("net_classify train -c x.ini", 1, "requires the section [CLASSIFICATION]"),
        ("net_run train -c x.ini", 1, "does not know which application is meant"),
        ("net_run train -c x.ini -a net_gan", 1, "-a net_gan is not available"),
        ("net_regress train -c x.ini", 1, "net_regress is not built here"),
    ],
)
def test_a_mistake_in_the_words_ends_as_one_sentence_with_niftynets_code_and_nothing_written(
    study, run, words, code, says
):
    before = study.listing()
    found, out, err = run(*words.split())
    assert (found, out) == (code, [])
    assert all(line.startswith("error: ") for line in err[:1])
    assert says in "\n".join(err)
    assert study.listing() == before


def test_a_missing_name_of_a_network_is_said_with_its_section(study, run):
    study.write(NETWORK={"name": None})
    code, _, err = run("net_segment", "train", "-c", "x.ini")
    assert code in (1, 2)
    assert "name is not set in section [NETWORK]" in err[0]


def test_with_debug_a_mistake_keeps_its_traceback(study):
    with pytest.raises(ConfigError, match="there is no configuration file"):
        main(["net_segment", "train", "-c", "no.ini", "--debug"])


def test_the_version_is_said(run):
    code, out, _ = run("net_segment", "-v")
    assert code == 0
    assert re.fullmatch(r"pimms-tf version \d+\.\d+\.\d+.*", out[0])


def test_help_lists_every_key_that_a_command_line_may_give(run):
    code, out, _ = run("net_segment", "train", "-h")
    assert code == 0
    text = "\n".join(out)
    for name in (*SYSTEM_SECTIONS, "SEGMENTATION"):
        block = text.partition(f"\n[{name}]\n")[2].partition("\n\n")[0]
        keys = [spec.name for spec in SPECS[name].values() if spec.command_line]
        assert re.findall(r"^  --(\w+) ", block, re.MULTILINE) == keys
    assert "[MULTITASK]" not in text
    assert "[MULTITASK]" in "\n".join(run("net_run", "-h")[1])


def test_the_commands_are_installed_and_start_without_tensorflow():
    text = (ROOT / "setup.cfg").read_text()
    assert all(
        f"{name} = pimms_tf.commands.niftynet_cli:main" in text for name in ("net_segment", "net_classify", "net_run")
    )
    program = (
        "import sys\nfrom pimms_tf.commands.niftynet_cli import main\nassert main(['net_segment', '-v']) == 0\n"
        "assert not {'tensorflow', 'keras', 'numpy.random'} & set(sys.modules) - {'numpy.random'}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_reader_who_has_had_enough_of_the_help_sees_no_traceback():
    program = "from pimms_tf.commands.niftynet_cli import main\nraise SystemExit(main(['net_segment', '-h']))"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as it:
        it.stdout.close()
        complaint = it.stderr.read()
    assert (it.returncode, complaint) == (141, b"")


# ---- conformance: what a command line makes of a file


def loaded(*words):
    call = parse_command(words)
    return load_config(call.config, call.options, call.application, call.action)


def test_values_that_begin_with_a_minus(study):
    assert loaded("net_segment", "train", "-c", "x.ini", "--rotation_angle=-10,10").training.rotation_angle == (-10, 10)
    assert loaded("net_segment", "train", "-c", "x.ini", "--starting_iter", "-1").training.starting_iter == -1
    with pytest.raises(UsageError):
        loaded("net_segment", "train", "-c", "x.ini", "--rotation_angle", "-10,10")


def test_a_key_of_the_task_can_be_given(study):
    assert loaded("net_segment", "train", "-c", "x.ini", "--image", "lesion").task.image == ("lesion",)


@pytest.mark.parametrize("first", ["SEGMENTATION", "INFERENCE"])
def test_a_value_may_stand_behind_options_of_sections_that_come_first_in_the_file(study, first):
    text = study.write(INFERENCE=None, SEGMENTATION=None).read_text()
    task = "\n[SEGMENTATION]\nimage = T1,T2,FLAIR\nlabel = lesion\nnum_classes = 2\n"
    inference = "\n[INFERENCE]\nspatial_window_size = (0, 0, 1)\n"
    (study.folder / "x.ini").write_text(text + (task + inference if first == "SEGMENTATION" else inference + task))
    words = ("inference", "-c", "x.ini", "--save_seg_dir", "--permuted_indices", "1,2,0", "./output/x")
    if first == "INFERENCE":
        with pytest.raises(UsageError, match="--save_seg_dir has no value behind it"):
            loaded("net_segment", *words)
        return
    config = loaded("net_segment", *words)
    assert (config.task.permuted_indices, config.inference.save_seg_dir) == ((1, 2, 0), "./output/x")
    assert config.save_seg_dir == study.folder / "model" / "output" / "x"


RUNS = json.loads((GOLDENS / "01_config" / "index.json").read_text())
# Refused here, where NiftyNet goes on and fails, or not, when the value is used.
STRICTER = {"unknown_choice__net_segment__train__up.json": 2}


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case["result"])
def test_every_recorded_command_line_ends_as_the_original_parser_ended_it(case, monkeypatch, tmp_path):
    monkeypatch.setenv("niftynet_config_home", str(tmp_path))
    monkeypatch.chdir(GOLDENS / "01_config")
    recorded = json.loads((GOLDENS / "01_config" / case["result"]).read_text())
    expected = recorded.get("exit_code", 1 if "error" in recorded else 0)
    words = [case["program"], case["action"], "-c", case["ini"], *case["extra_arguments"]]
    try:
        loaded(*words)
        code = 0
    except ConfigError as error:
        code = 2 if isinstance(error, UsageError) else 1
    assert code == STRICTER.get(case["result"], expected)


# ---- a whole run


def small(study, **changes):
    """A HeMIS network that takes little time, and landmarks, so that all kinds of lines occur."""
    sections = {
        "NETWORK": {"name": "hemis", "normalisation": True, "queue_length": 5, "cutoff": "0.01, 0.99"},
        "TRAINING": {"validation_every_n": 2, "save_every_n": 1},
        "EVALUATION": {},
    }
    for name, keys in changes.items():
        sections[name] = {**sections.get(name, {}), **keys}
    study.write(**sections)


KINDS = {
    "initial": r"set initial_iter to \d+ based on checkpoints",
    "start": "starting segmentation application",
    "not found": r'`csv_file = ` not found, writing to "\S+\.csv" instead\.',
    "overwriting": r'Overwriting existing: "\S+\.csv"\.',
    "search": r"\[\w+\] search file folders, writing csv file \S+\.csv",
    "split": r"Loading from existing partitioning file \S+, ignoring partitioning ratios\.",
    "reader": r"Image reader: loading \d+ subjects from sections \('.*'(, '.*')*,?\) as input \[\w+\]",
    "landmarks": r"training normalisation histogram references for image:.*, using \d+ subjects",
    "landmarks ready": r"normalisation histogram reference models ready for image:\(.*\)",
    "queue": r"sampler queue_length should be larger than batch_size, defaulting to batch_size \* 5\.0 \(\d+\)\.",
    "network": r"using \w+",
    "dataset": r"Initialising Dataset from \d+ subjects\.\.\.",
    "random": r"Parameters from random initialisations \.\.\.",
    "restoring": r"Restoring parameters from \S+/models/model\.ckpt-\d+",
    "image sizes": r"grid sampling image sizes: \{'image': \(\d+, \d+, \d+, 1, \d+\)\}",
    "window sizes": r"grid sampling window sizes: \{'image': \(\d+, \d+, \d+, 1, \d+\)\}",
    "training": r"training iter \d+, total_loss=[\d.e-]+, loss=[\d.e-]+ \([\d.]+s\)",
    "validation": r"    validation iter \d+, total_loss=[\d.e-]+, loss=[\d.e-]+ \([\d.]+s\)",
    "inference": r"inference iter \d+,  \([\d.]+s\)",
    "result": r"Saved \S+/window_seg_\w+__niftynet_out\.nii\.gz",
    "done": r"stopping -- event handler: OutputInterpreter\.",
    "cleaning": r"[cC]leaning up\.\.\.",
    "threads": "stopping sampling threads",
    "end": r"SegmentationApplication stopped \(time in second \d+\.\d\d\)\.",
}


def order_of(lines, prefix):
    """The kinds of messages in the order in which each occurs first."""
    found = {}
    for message in messages(lines, prefix):
        for kind, pattern in KINDS.items():
            if re.fullmatch(pattern, message):
                found.setdefault(kind, None)
    return list(found)


def recorded_runs(action):
    """The lines of each recorded run of an action."""
    lines = (GOLDENS / "09_endtoend" / f"model__{action}_niftynet_log").read_text().splitlines()
    ends = [number for number, line in enumerate(lines, start=1) if "Application stopped" in line]
    return [lines[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def same_order(ours, recorded, missing=()):
    """Compares where each kind of message stands among the others; those of saving may come anywhere."""
    assert [kind for kind in recorded if kind not in missing] == [kind for kind in ours if kind in recorded]


@pytest.mark.usefixtures("eagerly")
def test_a_run_says_and_leaves_what_niftynets_does_in_the_recorded_order(study, run):
    small(study)
    model = study.folder / "model"
    code, out, err = run("net_segment", "train", "-c", "x.ini")
    assert (code, err) == (0, [])
    assert out[0].startswith("pimms-tf version ")
    settings = (model / "settings_training.txt").read_text().splitlines()
    assert out[1 : len(settings)] == settings[1:]
    first, again = (order_of(lines, FILE_PREFIX) for lines in recorded_runs("training"))
    same_order(order_of(out, PREFIX), first)
    log = (model / "training_niftynet_log").read_text().splitlines()
    assert messages(log, FILE_PREFIX) == messages(out[len(settings) :])
    steps = [match for message in messages(out) if (match := ITERATION.match(message))]
    assert [(match[1], match[2]) for match in steps] == [("training", "1"), ("training", "2"), ("validation", "2")]
    assert f"iter 2 saved: {model}/models/model.ckpt" in messages(out)
    assert (
        "\n".join(out).count("\n\nNumber of subjects 6, input section names: ['subject_id', 'T1', 'T2', 'FLAIR',") == 1
    )
    assert "-- validation 2 cases (33.33%)," in out
    with (model / "T1.csv").open(newline="") as file:
        assert list(csv.reader(file))[5] == ["sub05", str(study.scans / "sub05_T1.nii.gz")]

    code, out, _ = run("net_segment", "train", "-c", "x.ini", "--starting_iter", "-1", "--max_iter", "4")
    assert code == 0
    assert messages(out)[0] == "set initial_iter to 2 based on checkpoints"
    same_order(order_of(out, PREFIX), again)
    both = (model / "training_niftynet_log").read_text().splitlines()
    assert both[: len(log)] == log
    assert len(both) > len(log)

    code, out, _ = run("net_segment", "inference", "-c", "x.ini")
    assert code == 0
    recorded = order_of(recorded_runs("inference")[0], FILE_PREFIX)
    # No queue of windows here, and no threads to stop; the network is read before anything is written, in case it is
    # not the one that the file describes.
    missing = ("queue", "threads", "network", "restoring")
    same_order([kind for kind in order_of(out, PREFIX) if kind not in missing], recorded, missing)
    assert {"network", "restoring"} <= set(order_of(out, PREFIX))
    numbers = [int(match[2]) for message in messages(out) if (match := ITERATION.match(message))]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 2  # each subject takes one batch or more
    with (model / "output" / "inferred.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [path for _, path in rows] == [
        f"{model}/output/window_seg_{subject_id}__niftynet_out.nii.gz" for subject_id, _ in rows
    ]
    assert all(Path(path).is_file() for _, path in rows)

    code, out, _ = run("net_segment", "evaluation", "-c", "x.ini")
    assert code == 0
    same_order(
        order_of(out, PREFIX), order_of(recorded_runs("evaluation")[0], FILE_PREFIX), missing=("landmarks ready",)
    )
    recorded = {path.name for path in (GOLDENS / "09_endtoend" / "ev_explicit").iterdir()}
    assert recorded <= {path.name for path in (model / "evaluation").iterdir()}
    # Whatever NiftyNet left in its model folder, but for its own formats, is here, too.
    left = (GOLDENS / "09_endtoend" / "listing.txt").read_text()
    for name in re.findall(
        r"^model/(\w+_niftynet_log|settings_\w+\.txt|T1\.csv|T2\.csv|models/checkpoint)\t", left, re.M
    ):
        assert (model / name).is_file(), name


@pytest.mark.usefixtures("eagerly")
def test_a_project_that_niftynet_left_unfinished_goes_on(study, run):
    from pimms_tf.actions.import_checkpoint import import_checkpoint

    small(
        study,
        NETWORK={"name": "niftynet.contrib.hemis.hemis.HeMIS"},
        TRAINING={"starting_iter": 0, "max_iter": 26001, "exclude_fraction_for_validation": 0.9},
        PIMMS={
            "preset": "niftynet2018",
            **dict.fromkeys(("classifier_blocks", "classifier_features", "frontend", "classifier_slices")),
        },
    )
    model = study.folder / "model"
    import_checkpoint(GOLDENS / "07_networks" / "hemis_3mod_2d" / "model.ckpt", "hemis", model, iteration=26000)
    split = "sub00,inference\nsub01,Training\nsub02,validation\nsub03,training\nsub04,inference\nsub05,inference\n"
    landmarks = "".join(f"{name} {LANDMARKS}\n" for name in ("T1", "T2", "FLAIR"))
    log = (GOLDENS / "09_endtoend" / "model__training_niftynet_log").read_text()
    for name, text in (
        ("dataset_split.csv", split),
        ("histogram_ref_file.txt", landmarks),
        ("training_niftynet_log", log),
        ("settings_training.txt", "Input params at 2018-07-04 09:08:07.\n[CUSTOM]\n"),
        ("T1.csv", "sub00,/gone/sub00_T1.nii.gz\n"),
        ("__init__.py", "# NiftyNet\n"),
    ):
        (model / name).write_text(text)

    code, out, err = run("net_segment", "train", "-c", "x.ini", "--starting_iter", "-1")
    assert (code, err) == (0, [])
    said = messages(out)
    assert "set initial_iter to 26000 based on checkpoints" in said
    assert f"Restoring parameters from {model}/models/model.ckpt-26000" in said
    assert f"Loading from existing partitioning file {model}/dataset_split.csv, ignoring partitioning ratios." in said
    assert f'Overwriting existing: "{model}/T1.csv".' in said
    assert [match[2] for text in said if (match := ITERATION.match(text))] == ["26001"]
    assert (model / "models" / "model.ckpt-26001.index").is_file()
    assert (model / "dataset_split.csv").read_text() == split
    assert (model / "histogram_ref_file.txt").read_text() == landmarks
    assert (model / "training_niftynet_log").read_text().startswith(log)
    assert "/gone/" not in (model / "T1.csv").read_text()
    assert "-- starting_iter: -1" in (model / "settings_training.txt").read_text()

    code, out, err = run("net_segment", "inference", "-c", "x.ini", "--save_seg_dir", "./out")
    assert (code, err) == (0, [])
    assert sorted(path.name for path in (model / "out").glob("*.nii.gz")) == [
        f"window_seg_sub{number:02}__niftynet_out.nii.gz" for number in (0, 4, 5)
    ]
    code, out, err = run("net_segment", "evaluation", "-c", "x.ini", "--save_seg_dir", "./out")
    assert (code, err) == (0, [])
    assert (model / "evaluation" / "eval_subject_id_label.csv").read_text().count("\n") == 4


def test_a_missing_checkpoint_ends_with_1(study, run):
    small(study)
    code, out, err = run("net_segment", "train", "-c", "x.ini", "--starting_iter", "5")
    assert code == 1
    assert err == [
        f"error: {study.folder}/model/models/model.ckpt-5.index is not there, but iteration 5 is asked for; "
        "it holds no checkpoint"
    ]
    assert messages(out)[-2:] == ["stopped early, incomplete iterations.", messages(out)[-1]]
    assert not (study.folder / "model").exists()


@pytest.mark.usefixtures("eagerly")
def test_a_classifier_says_its_data_loss_and_leaves_a_table_per_subject(study, run):
    study.write(
        NETWORK={"name": "modality_classifier", "window_sampling": "uniform"},
        TRAINING={"loss_type": "CrossEntropy", "max_iter": 1},
        SEGMENTATION=None,
        CLASSIFICATION={"image": "T1,T2,FLAIR", "num_classes": 3},
        lesion=None,
        PIMMS={"frontend": None},
    )
    code, out, err = run("net_classify", "train", "-c", "x.ini")
    assert (code, err) == (0, [])
    steps = [match[3] for message in messages(out) if (match := ITERATION.match(message))]
    assert len(steps) == 1
    assert re.fullmatch(r"total_loss=[\d.e-]+, data_loss=[\d.e-]+", steps[0])
    assert "starting classification application" in messages(out)
    code, out, err = run("net_classify", "inference", "-c", "x.ini", "--output_prob", "True")
    assert (code, err) == (0, [])
    assert messages(out)[-1].startswith("ClassificationApplication stopped (time in second ")
    tables = sorted((study.folder / "model" / "output").glob("csv_*__niftynet_out.csv"))
    assert len(tables) == 2
    lines = tables[0].read_text().splitlines()
    assert lines[0] == ",csv_0,csv_1,csv_2"
    assert [line.partition(",")[0] for line in lines[1:]] == ["0", "1", "2"]
    assert f"Saved {tables[0]}" in messages(out)


@pytest.mark.usefixtures("eagerly")
def test_a_run_that_is_cancelled_says_so_and_can_go_on(study, run, monkeypatch):
    from pimms_tf.commands import niftynet_cli

    def stop_at_once(config):
        return lambda done: os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(niftynet_cli.journal, "reporter", stop_at_once)
    small(study)
    code, out, _ = run("net_segment", "train", "-c", "x.ini", "--max_iter", "3")
    assert code == 130
    assert messages(out)[-4] == "User cancelled application"
    assert (
        (study.folder / "model" / "models" / "checkpoint")
        .read_text()
        .startswith('model_checkpoint_path: "model.ckpt-1"')
    )


def test_the_list_of_an_earlier_run_is_taken_where_it_is_named(study, run):
    study.write(T1={"path_to_search": None, "filename_contains": None})
    (study.folder / "model").mkdir()
    old = study.folder / "model" / "T1.csv"
    old.write_text("".join(f"sub0{number},{study.scans}/sub0{number}_T1.nii.gz\n" for number in range(6)))
    code, _, err = run("net_segment", "train", "-c", "x.ini")
    assert code == 1
    assert f"the list that an earlier run left is taken if you write csv_file = {old}" in err[0]


# ---- pimms-tf


def test_pimms_tf_keeps_its_console_and_leaves_the_same_log(trained_study, capsys):
    log = (trained_study.folder / "model" / "training_niftynet_log").read_text().splitlines()
    steps = [match for message in messages(log, FILE_PREFIX) if (match := ITERATION.match(message))]
    assert [match[1] for match in steps] == ["training", "training", "validation", "training", "training", "validation"]
    assert all(re.fullmatch(r"total_loss=[\d.e-]+, loss=[\d.e-]+", match[3]) for match in steps)
    assert trained_study("inference", "x.ini") == 0
    out = capsys.readouterr().out
    assert "niftynet" not in out.replace("_niftynet_out", "").replace("niftynet_log", "")
    assert (trained_study.folder / "model" / "output" / "sub00_niftynet_out.nii.gz").is_file()
    assert (trained_study.folder / "model" / "inference_niftynet_log").is_file()


def test_pimms_tf_names_results_as_asked(trained_study):
    assert trained_study("inference", "x.ini", "--output_names", "niftynet06", "--save_seg_dir", "six") == 0
    assert (trained_study.folder / "model" / "six" / "window_seg_sub00__niftynet_out.nii.gz").is_file()
