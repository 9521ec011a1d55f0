"""Completion scripts in the shells themselves, and sentences for words that were nearly right."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pimms_tf.commands.cli import main
from pimms_tf.commands.completion import SHELLS, completion_script, options_of

ROOT = Path(__file__).parents[2]
PROGRAMS = ("pimms-tf", "net_segment", "net_classify", "net_run")


def shell(name):
    return pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"there is no {name} here"))


@pytest.fixture
def script(tmp_path, capsys, monkeypatch):
    """Writes the script of a shell; the working folder has a configuration, a table and a folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("study.ini", "evaluation.csv"):
        (tmp_path / name).touch()
    (tmp_path / "models").mkdir()

    def script(name):
        assert main(["completion", name]) == 0
        path = tmp_path / f"script.{name}"
        path.write_text(capsys.readouterr().out, encoding="utf-8")
        return path

    return script


def run(name, program, *words):
    done = subprocess.run([name, *words, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def in_bash(path, *words):
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    name = words[0].rpartition("/")[2].replace("-", "_")
    program = f"source {path}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _shtab_{name}; "
    return run("bash", program + r'printf "%s\n" "${COMPREPLY[@]}"', "--norc").split()


def in_fish(path, *words):
    offered = run("fish", f"source {path}; complete -C '{' '.join(words)}'", "--no-config")
    return [line.partition("\t")[0] for line in offered.splitlines()]


VERBS = {
    "train",
    "inference",
    "evaluation",
    "export",
    "verify",
    "serve",
    "import-checkpoint",
    "report",
    "simulate",
    "demo",
    "check",
    "doctor",
    "segment",
    "classify",
    "study",
    "migrate",
    "config",
    "slurm",
    "completion",
}
# A command line up to the place asked for, and what must be offered there.
LINES = [
    (("pimms-tf", "tra"), {"train"}),
    (("pimms-tf", "train", "stu"), {"study.ini"}),
    (("pimms-tf", "migrate", "stu"), {"study.ini"}),
    (("pimms-tf", "train", "study.ini", "--optimi"), {"--optimiser"}),
    (("pimms-tf", "train", "--optimiser", "mo"), {"momentum"}),
    (("pimms-tf", "train", "--whitening", ""), {"True", "False"}),
    (("pimms-tf", "train", "--preset", ""), {"paper", "niftynet2018"}),
    (("pimms-tf", "check", "--action", "inf"), {"inference"}),
    (("pimms-tf", "inference", "--app", ""), {"net_segment", "net_classify", "net_multitask"}),
    (("pimms-tf", "inference", "--resu"), {"--resume"}),
    (("pimms-tf", "import-checkpoint", "--network", "pimms_o"), {"pimms_online"}),
    (("pimms-tf", "config", ""), {"show", "explain"}),
    (("pimms-tf", "config", "explain", "whit"), {"whitening"}),
    (("pimms-tf", "config", "show", "stu"), {"study.ini"}),
    (("pimms-tf", "completion", ""), set(SHELLS)),
    (("net_segment", "inf"), {"inference"}),
    (("net_run", "inference", "--permuted_ind"), {"--permuted_indices"}),
]


def named(value: tuple[str, ...] | set[str]) -> str | None:
    """The name of a case, the same in every process: sets have no order of their own."""
    return " ".join(value if isinstance(value, tuple) else sorted(value)) if len(value) > 1 else None


@pytest.mark.parametrize(("words", "offered"), LINES, ids=named)
@pytest.mark.parametrize("name", [shell("bash"), shell("fish")])
def test_what_may_stand_at_a_place_is_offered_and_nothing_else(script, name, words, offered):
    found = {"bash": in_bash, "fish": in_fish}[name](script(name), *words)
    assert sorted(found) == sorted(offered)


@pytest.mark.parametrize("name", [shell("bash")])
def test_the_script_is_in_force_for_every_program_once_it_is_sourced(script, name):
    path = script(name)
    for program in PROGRAMS:
        function = f"_shtab_{program.replace('-', '_')}"
        assert run(name, f"source {path}; complete -p {program}") == (
            f"complete -o bashdefault -F {function} {program}\n"
        )
        assert in_bash(path, f"/somewhere/{program}", "inference", "--inference_it") == ["--inference_iter"]


@pytest.mark.parametrize("name", [shell("bash")])
def test_bash_lists_all_verbs_and_keeps_quiet_where_it_knows_nothing(script, name):
    path = script(name)
    assert set(in_bash(path, "pimms-tf", "")) == VERBS
    assert in_bash(path, "pimms-tf", "train", "--lr", "") == []
    assert in_bash(path, "pimms-tf", "train", "--model_dir", "") == ["models"]
    assert set(in_bash(path, "pimms-tf", "report", "")) >= {"evaluation.csv", "models"}


@pytest.mark.parametrize("name", [shell("zsh")])
def test_zsh_reads_the_script_as_the_readme_says(script, name):
    path = script(name)
    program = f'autoload -Uz compinit; compinit -u -D; eval "$(cat {path})"; print $_comps[net_run] $_comps[pimms-tf]'
    assert run(name, program, "-f").split() == ["_shtab_net_run", "_shtab_pimms_tf"]


@pytest.mark.parametrize("name", SHELLS)
def test_every_shell_has_a_script_that_names_programs_verbs_keys_and_words(script, name):
    text = script(name).read_text(encoding="utf-8")
    for word in (*PROGRAMS, *VERBS, "optimiser", "nesterov", "niftynet2018", "inference_iter"):
        assert word in text


def test_completing_leaves_the_parser_that_parses_alone():
    from pimms_tf.commands.cli import _parser

    before = [sorted(options_of(verb)) for verb in verbs_of(_parser()).values()]
    completion_script("bash", _parser())
    assert [sorted(options_of(verb)) for verb in verbs_of(_parser()).values()] == before


def verbs_of(parser):
    return next(action.choices for action in parser._actions if action.dest != "help" and action.choices)


def test_scripts_come_without_tensorflow():
    program = (
        "import sys; from pimms_tf.commands.cli import main; main(['completion', 'bash']);"
        "sys.exit(bool({'tensorflow', 'keras', 'nibabel', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr


# ---- nearly right words

INI = """[T1]
path_to_search = ./models
spatial_window_size = (16, 16, 1)
[SYSTEM]
[NETWORK]
name = pimms_online
[TRAINING]
[INFERENCE]
[SEGMENTATION]
image = T1
label = T1
num_classes = 2
"""
NEARLY = [
    ("pimms-tf trian x.ini", "trian is not a verb of pimms-tf; did you mean train?"),
    ("pimms-tf infer x.ini", "did you mean inference?"),
    ("pimms-tf evaluate x.ini", "did you mean evaluation?"),
    ("pimms-tf eval x.ini", "did you mean evaluation?"),
    ("pimms-tf training x.ini", "did you mean train?"),
    ("pimms-tf simulation x", "did you mean simulate?"),
    ("pimms-tf xyzzyplugh x", "choose one of segment, classify, train, "),
    ("pimms-tf --lr 3 train x.ini", "--lr stands before the verb; write pimms-tf VERB ... --lr 3"),
    ("pimms-tf config shwo x.ini", "shwo is not a verb of pimms-tf config; did you mean show?"),
    ("pimms-tf completion bsh", "bsh is not a shell; did you mean bash?"),
    ("pimms-tf train x.ini --lrr 3", "--lrr 3 is not an option; did you mean --lr?"),
    ("pimms-tf train x.ini --learning_rate 3", "did you mean --lr?"),
    ("pimms-tf train x.ini --quite_unlike_anything 3", "is not an option; --help lists them all"),
    ("pimms-tf inference x.ini --shards 1/2", "--shards is not an option of pimms-tf inference; did you mean --shard?"),
    ("pimms-tf slurm x.ini --shard 3", "did you mean --shards?"),
    ("pimms-tf check x.ini --acton inference", "did you mean --action?"),
    ("pimms-tf check x.ini --action infrence", "--action infrence is not one of its words; did you mean inference?"),
    ("pimms-tf inference x.ini --subset", "did you mean --subsets?"),
    ("pimms-tf migrate x.ini --breif", "--breif is not an option of pimms-tf migrate; did you mean --brief?"),
    ("pimms-tf simulate f --subject 3", "did you mean --subjects?"),
    ("pimms-tf import-checkpoint c --netwrk hemis --output o", "--netwrk is not an option of pimms-tf import-checkp"),
    ("pimms-tf import-checkpoint c --network hemmis --output o", "is not the name of a network; did you mean hemis?"),
    ("pimms-tf train x.ini --name pimms_onlin", "did you mean pimms_online?"),
    ("pimms-tf train x.ini --name unet", "unet is not available: it is a general NiftyNet network"),
    ("net_segment inference -c x.ini --name highres3dnet", "highres3dnet is not available"),
    ("pimms-tf train x.ini --modalities T1 --image_modalities T2", "has T2, which is none of modalities = T1"),
    ("pimms-tf train x.ini -a net_segmnt", "did you mean net_segment?"),
    ("pimms-tf train x.ini --optimiser adma", "did you mean adam?"),
    ("pimms-tf train x.ini --image T2", "names a section [T2], which is not there; did you mean T1?"),
    ("pimms-tf train y.ini", "; did you mean x.ini?"),
    ("net_segment train -c x.iin", "; did you mean x.ini?"),
    ("pimms-tf config explain lrr", "did you mean lr?"),
    ("pimms-tf config explain KEYY", "KEYY is not a key of any section"),
    ("pimms-tf inference x.ini --shard 9", "is not of the form i/n"),
    ("net_segment trian -c x.ini", "did you mean train?"),
    ("net_run train -c x.ini -a net_segmnt", "did you mean net_segment?"),
]


@pytest.mark.parametrize(("line", "says"), NEARLY)
def test_a_word_that_is_nearly_right_ends_as_one_sentence_with_the_right_one(tmp_path, monkeypatch, capsys, line, says):
    from pimms_tf.commands import niftynet_cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ini").write_text(INI, encoding="utf-8")

    def loads_tensorflow():
        raise AssertionError("TensorFlow is loaded before the words are looked at")

    monkeypatch.setattr("pimms_tf.commands.run_cli.import_tensorflow", loads_tensorflow)
    monkeypatch.setattr("pimms_tf.commands.niftynet_cli.import_tensorflow", loads_tensorflow)
    program, *words = line.split()
    code = main(words) if program == "pimms-tf" else niftynet_cli.main([program, *words])
    assert code == (2 if program == "pimms-tf" or "trian" in words else 1)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("[TRANING]", "[TRAINING]"),
        ("[SEGMENTATON]", "[SEGMENTATION]"),
        ("num_clases = 2", "num_classes"),
        ("spatial_windw_size = 1", "spatial_window_size"),
    ],
)
def test_sections_and_keys_that_are_nearly_right_are_said_with_the_right_ones(
    tmp_path, monkeypatch, capsys, wrong, right
):
    monkeypatch.chdir(tmp_path)
    good = right if right.startswith("[") else next(line for line in INI.splitlines() if line.startswith(right))
    (tmp_path / "x.ini").write_text(INI.replace(good, wrong), encoding="utf-8")
    assert main(["train", "x.ini"]) == 2
    error = capsys.readouterr().err
    assert wrong.split(" =")[0].strip("[]") in error
    assert right in error


def test_words_are_judged_before_anything_slow_is_imported(tmp_path):
    (tmp_path / "x.ini").write_text(INI, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-X", "importtime", "-m", "pimms_tf", "train", "x.ini", "--lrr", "3"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "did you mean --lr?" in done.stderr
    assert not {"tensorflow", "keras", "nibabel", "scipy"} & {
        line.split("|")[-1].strip() for line in done.stderr.splitlines()
    }
