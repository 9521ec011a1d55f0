"""The plan of a comparison: INI files that the parser takes, stages in an order in which each finds what it needs."""

import re
from pathlib import Path

import numpy as np
import pytest

from niftynet_compat import load_config, read_split
from pimms_tf.commands.demo import shipped_config, shipped_configs
from pimms_tf.comparison import SCALES, plan_of
from pimms_tf.comparison.ini_files import edited
from pimms_tf.comparison.scales import HOLDOUT_SUBSETS
from pimms_tf.comparison.summary import published
from pimms_tf.data import Image, write_image
from pimms_tf.errors import InputError
from pimms_tf.evaluation import modality_subsets


@pytest.fixture(scope="module")
def shipped() -> dict[str, str]:
    return {name: shipped_config(name) for name in shipped_configs()}


def patient(folder: Path, names=("T1", "FLAIR", "lesion")) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        write_image(Image(np.ones((2, 2, 2, 1), np.float32), np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def written(plan, folder: Path) -> Path:
    for name, text in plan.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_key_is_changed_in_its_section_alone_and_one_that_is_not_there_is_added():
    text = "[a]\nx = 1\ny = 2\n\n[b]\nx = 1\n"
    assert edited(text, {("b", "x"): "7", ("a", "z"): r"\1"}) == "[a]\nz = \\1\nx = 1\ny = 2\n\n[b]\nx = 7\n"
    with pytest.raises(ValueError, match=r"no section \[c\]"):
        edited(text, {("c", "x"): "7"})


@pytest.mark.parametrize("scale", SCALES)
def test_every_ini_file_of_a_plan_can_be_read_for_each_command_that_uses_it(tmp_path, shipped, scale):
    plan = plan_of(scale, 3, [patient(tmp_path / "p1")], shipped)
    folder = written(plan, tmp_path / "study")
    used = set()
    for stage in plan.stages:
        if stage.words[0] == "simulate":
            continue
        action = {"train": "training"}.get(stage.words[0], stage.words[0])
        config = load_config(folder / stage.words[1], [], None, action)
        assert config.pimms.seed == (5 if "seed2" in stage.name else 4 if "seed1" in stage.name else 3)
        assert not [str(remark) for remark in config.remarks]
        used.add(stage.words[1])
    assert used == {name for name in plan.files if name.endswith(".ini")}


def test_all_networks_of_a_plan_see_voxels_and_a_classifier_of_one_kind(tmp_path, shipped):
    plan = plan_of("small", 0, [], shipped)
    folder = written(plan, tmp_path)
    configs = [load_config(folder / name) for name in plan.files if name.endswith(".ini")]
    assert {config.inputs["T1"].pixdim for config in configs} == {(3.0, 3.0, 6.0)}
    assert {config.pimms.classifier_blocks for config in configs if config.network.name != "hemis"} == {1}


def test_stages_come_after_what_they_need(shipped):
    stages = [stage.name for stage in plan_of("small", 0, [], shipped).stages]
    assert len(set(stages)) == len(stages)
    for name in stages:
        if name.startswith("inference_mixed"):
            assert stages.index("simulate_mixed") < stages.index(name)
            assert max(map(stages.index, ("train_hemis", "train_modality_classifier"))) < stages.index(name)
        if name.startswith("train") and name != "train_modality_classifier":
            assert stages.index(name) < stages.index(name.replace("train", "inference_mixed"))
        if name.startswith("evaluation"):
            assert stages.index(name.replace("evaluation", "inference")) < stages.index(name)
    assert stages.index("simulate_train") < stages.index("simulate_mixed")  # whose hospitals it names
    # The paper's table comes first.
    assert stages.index("evaluation_silver_online") < stages.index("train_online_unlabelled")
    assert stages.index("evaluation_mixed_hemis_3d") < stages.index("train_hemis_seed1")
    assert stages[-1] == "evaluation_silver_online_seed2"


def test_subjects_of_a_holdout_are_all_for_inference(tmp_path, shipped):
    folder = written(plan_of("small", 0, [], shipped), tmp_path)
    split = read_split(folder / "splits" / "silver.csv")
    assert len(split) == 30
    assert {str(phase) for phase in split.values()} == {"inference"}
    assert len(read_split(folder / "splits" / "mixed_hemis_3d.csv")) == 10


def test_a_holdout_without_t2_gives_no_network_any(tmp_path, shipped):
    plan = plan_of("tiny", 0, [patient(tmp_path / "p1"), patient(tmp_path / "p2")], shipped)
    folder = written(plan, tmp_path / "study")
    for name in ("silver_soft", "silver_hemis", "gold_soft"):
        config = load_config(folder / f"{name}.ini", [], None, "inference")
        assert config.sources("image") == ("T1", "FLAIR")
        assert config.pimms.modalities == ("T1", "T2", "FLAIR")  # the network's own stay
        assert "T2" not in config.inputs
    assert load_config(folder / "mixed_soft.ini").sources("image") == ("T1", "T2", "FLAIR")
    assert plan.files["gold/FLAIR.csv"].splitlines()[1] == f"p2,{tmp_path / 'p2' / 'FLAIR.nii.gz'}"
    assert "gold/T2.csv" not in plan.files


def test_what_the_paper_left_to_others_is_told_in_the_ini_files_alone(tmp_path, shipped):
    plan = plan_of("small", 0, [], shipped)
    folder = written(plan, tmp_path)
    assert load_config(folder / "online.ini").pimms.modality_weight == 1
    assert load_config(folder / "online_unlabelled.ini").pimms.modality_weight == 0
    assert load_config(folder / "hemis.ini").pimms.spatial_rank == 2
    assert load_config(folder / "hemis_3d.ini").pimms.spatial_rank == 3
    repeats = ("hemis_seed1", "online_seed1", "hemis_seed2", "online_seed2")
    assert plan.networks["mixed"] == ("hemis", "soft", "hard", "online", "online_unlabelled", "hemis_3d", *repeats)
    assert plan.networks["silver"] == ("hemis", "soft", "hard", "online", *repeats)


def test_a_repeat_differs_in_its_seed_and_its_folders_alone(tmp_path, shipped):
    plan = plan_of("small", 3, [], shipped)
    for name, other in (("online", "online_seed2"), ("mixed_online", "mixed_online_seed2")):
        text = plan.files[f"{name}.ini"].replace("seed = 3", "seed = 5")
        assert plan.files[f"{other}.ini"] == re.sub(r"(?m)/online$", "/online_seed2", text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": "large"}, "--scale large is not one of tiny, small, paper"),
        ({"seed": -1}, "--seed -1 is negative"),
        ({"gold": [Path("nowhere")]}, "T1.nii.gz is not there"),
    ],
)
def test_mistakes_are_one_sentence(shipped, change, says):
    with pytest.raises(InputError, match=says):
        plan_of(**({"scale": "tiny", "seed": 0, "gold": []} | change), shipped=shipped)


def test_two_patients_of_one_name_are_refused(tmp_path, shipped):
    with pytest.raises(InputError, match="two folders are called p1"):
        plan_of("tiny", 0, [patient(tmp_path / "a" / "p1"), patient(tmp_path / "b" / "p1")], shipped)


def test_the_published_table_has_the_rows_of_every_holdout():
    found = published()
    assert set(found) == {
        (holdout, subset, metric)
        for holdout, rows in HOLDOUT_SUBSETS.items()
        for subset in rows
        for metric in ("dice", "asd_mm")
    }
    assert found["mixed", ("T1", "T2", "FLAIR"), "dice"] == {"hemis": 0.47, "soft": 0.51, "hard": 0.48, "online": 0.54}
    assert set(HOLDOUT_SUBSETS["mixed"]) == set(modality_subsets(("T1", "T2", "FLAIR")))
