"""The README promises nothing that is not so: commands, verbs, keys, files and code in it are tried."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from niftynet_compat import load_config
from pimms_tf.commands.cli import main
from pimms_tf.data import read_image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_installs_and_tests_with_the_commands_of_the_readme():
    (command,) = [block.strip() for block in blocks("sh") if "pytest" in block]
    assert command == "pip install '.[test]' && pytest -n 2 --dist loadfile"
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install --quiet '.[test]'\npytest -n 2 --dist loadfile\n" in script


def test_every_verb_of_the_readme_is_one_of_the_command_line(capsys):
    verbs = set(re.findall(r"pimms-tf ([a-z-]+)", README))
    assert {"train", "inference", "evaluation", "export", "report", "simulate", "import-checkpoint", "demo"} <= verbs
    for verb in verbs:
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0
        assert f"pimms-tf {verb}" in capsys.readouterr().out


def test_every_verb_of_the_command_line_has_a_row_or_a_section():
    from pimms_tf.commands.cli import _parser

    (verbs,) = (action.choices for action in _parser()._actions if action.dest != "help" and action.choices)
    assert set(verbs) <= set(re.findall(r"pimms-tf ([a-z-]+)", README))


def test_the_demonstration_types_the_commands_of_the_readme():
    from pimms_tf.commands.demo import demo_commands

    (block,) = [block for block in blocks("sh") if "pimms-tf train demo.ini" in block]
    assert [line.split() for line in block.strip().splitlines()] == demo_commands()


def test_the_input_section_of_the_readme_loads_without_remark(tmp_path):
    (section,) = blocks("ini")
    text = f"{section}\n[SYSTEM]\n[NETWORK]\nname = pimms_online\n[SEGMENTATION]\nimage = FLAIR\nnum_classes = 2\n"
    path = tmp_path / "config.ini"
    path.write_text(text, encoding="utf-8")
    config = load_config(path)
    assert config.remarks == ()
    assert config.inputs["FLAIR"].pixdim == (1.0, 1.0, 1.0)


def test_the_python_of_the_readme_runs():
    (code,) = [block for block in blocks("python") if "build_model" in block]
    scans = np.random.default_rng(0).normal(size=(2, 16, 12, 4)).astype(np.float32)
    names = {"scans": scans}
    exec(compile(code, "README.md", "exec"), names)
    assert names["prediction"].segmentation_logits.shape == (2, 16, 12, 2)
    assert names["prediction"].modality_logits.shape == (2, 4, 3)


def test_the_notebook_of_the_readme_segments_nameless_scans(trained_study, eagerly):
    (code,) = [block for block in blocks("python") if "load_segmenter" in block]
    (trained_study.folder / "anna").mkdir()
    for number, name in enumerate(("FLAIR", "T1"), start=1):
        shutil.copy(trained_study.scans / f"sub00_{name}.nii.gz", trained_study.folder / "anna" / f"{number}.nii.gz")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["scores"].shape == (2, 3)
    mask, scan = (read_image(trained_study.folder / "anna" / f"{name}.nii.gz") for name in ("lesions", 1))
    assert mask.grid.matches(scan.grid)
    assert set(np.unique(mask.data)) <= {0, 1}


def test_every_file_that_the_readme_points_to_is_there():
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", prose)
    targets += re.findall(r"`((?:pimms_tf|configs|docs|benchmarks)/[\w/.]+)`", prose)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_help_answers_without_loading_tensorflow():
    code = "import sys; from pimms_tf.commands.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'tensorflow', 'keras', 'matplotlib', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
