"""Every shipped configuration: it loads without a remark, and it says what the paper says."""

from pathlib import Path

import pytest

from niftynet_compat import discover, load_config, resolve_network
from pimms_tf.commands import demo

FOLDER = Path(__file__).parents[1] / "configs"
EXPERIMENTS = ("hemis", "modality_classifier", "pimms_hard", "pimms_online", "pimms_soft")
SEGMENTERS = tuple(name for name in EXPERIMENTS if name != "modality_classifier")
CASES = [
    (path.stem, action)
    for path in sorted(FOLDER.glob("*.ini"))
    for action in ("training", "inference", "evaluation", "export")
    if (path.stem, action) != ("modality_classifier", "evaluation")  # which has no label map to score against
]


def config(name: str, action: str | None = None):
    return load_config(FOLDER / f"{name}.ini", action=action)


def test_the_folder_holds_the_demo_and_one_file_per_experiment():
    assert tuple(path.stem for path in sorted(FOLDER.glob("*.ini"))) == ("demo", *EXPERIMENTS)
    assert demo.shipped_configs() == tuple(f"{name}.ini" for name in ("demo", *EXPERIMENTS))


@pytest.mark.parametrize(("name", "action"), CASES)
def test_every_configuration_loads_for_every_action_without_a_remark(name, action):
    loaded = config(name, action)
    assert loaded.remarks == ()
    assert all(section.referenced for section in loaded.inputs.values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_named_like_its_file_and_network(name):
    loaded = config(name)
    assert resolve_network(loaded.network.name) == loaded.network.name == name
    assert loaded.system.model_dir == f"./models/{name}"


@pytest.mark.parametrize("name", ["demo", *EXPERIMENTS])
def test_a_configuration_opens_with_what_it_is_for_and_how_to_run_it(name):
    comment = []
    for line in (FOLDER / f"{name}.ini").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line)
    head = "\n".join(comment)
    verb = "inference" if "inference" in head else "train"
    for word in ("Score:", "Hardware:", "Data:", "Run:", f"pimms-tf {verb} {name}.ini"):
        assert word in head
    assert ("Shows:" if name == "demo" else "Reproduces:") in head
    assert max(map(len, (FOLDER / f"{name}.ini").read_text(encoding="utf-8").splitlines())) <= 120


@pytest.mark.parametrize(
    ("name", "batch_size", "max_iter", "loss"),
    [
        ("hemis", 64, 26_000, "Dice"),
        ("modality_classifier", 64, 100_000, "CrossEntropy"),
        ("pimms_online", 6, 50_000, "Dice"),
        ("pimms_soft", 64, 26_000, "Dice"),
        ("pimms_hard", 64, 26_000, "Dice"),
    ],
)
def test_batch_size_iterations_and_loss_are_those_of_the_table(name, batch_size, max_iter, loss):
    loaded = config(name)
    assert (loaded.network.batch_size, loaded.training.max_iter, loaded.training.loss_type) == (
        batch_size,
        max_iter,
        loss,
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_that_all_experiments_share_are_those_of_the_paper(name):
    loaded = config(name)
    training, network = loaded.training, loaded.network
    assert (training.optimiser, training.lr, network.decay, network.reg_type) == ("adam", 3e-4, 1e-4, "L2")
    assert (training.exclude_fraction_for_validation, training.exclude_fraction_for_inference) == (0.1, 0.1)
    assert (training.validation_every_n, training.validation_max_iter) == (100, 22)
    assert (training.save_every_n, training.max_checkpoints) == (500, 20)
    assert (network.whitening, network.normalise_foreground_only, network.normalisation) == (True, True, False)
    assert (network.foreground_type, network.multimod_foreground_type) == ("threshold_plus", "and")
    assert loaded.inference.spatial_window_size == (100, 100, 1)
    assert loaded.common("image", "spatial_window_size") == (100, 100, 1)
    assert loaded.common("image", "axcodes") == ("L", "P", "S")
    assert loaded.common("image", "pixdim") == (1.0, 1.0, 1.0)
    assert loaded.common("image", "interp_order") == 3
    assert loaded.modality_names == loaded.scan_modalities == ("T1", "T2", "FLAIR")
    assert loaded.pimms.preset == "paper"


@pytest.mark.parametrize("name", SEGMENTERS)
def test_inference_cuts_the_receptive_field_and_padding_makes_up_for_it(name):
    loaded = config(name)
    assert loaded.inference.border == (17, 17, 0)
    assert loaded.network.volume_padding_size == (17, 17, 0)
    assert loaded.inputs["lesion"].interp_order == 0
    assert loaded.task.num_classes == 2


def test_online_weighs_the_modality_loss_as_the_paper_says():
    assert config("pimms_online").pimms.modality_decay == 1e-4


def test_all_experiments_read_the_same_data_and_split(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loaded = [config(name) for name in EXPERIMENTS]
    assert {one.split_file for one in loaded} == {tmp_path / "models" / "dataset_split.csv"}
    for one in loaded[1:]:
        for name, section in one.inputs.items():
            assert section == loaded[0].inputs[name]


@pytest.mark.parametrize("name", ["pimms_soft", "pimms_hard"])
def test_soft_and_hard_find_the_two_networks_they_put_together(monkeypatch, tmp_path, name):
    """Run in the folder that holds them, as their headers say."""
    monkeypatch.chdir(tmp_path)
    for each in ("hemis", "modality_classifier", name):
        (tmp_path / f"{each}.ini").write_text(demo.shipped_config(each), encoding="utf-8")
    loaded = load_config(tmp_path / f"{name}.ini")
    assert loaded.segmenter_dir == load_config(tmp_path / "hemis.ini").model_dir
    assert loaded.classifier_dir == load_config(tmp_path / "modality_classifier.ini").model_dir


def test_the_demo_finds_the_scans_that_it_writes(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "NUM_SUBJECTS", 2)
    monkeypatch.setattr(demo, "SPACING_MM", (6.0, 6.0, 8.0))
    demo.write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    loaded = load_config(tmp_path / "demo.ini", action="training")
    found = discover(loaded.inputs)
    assert [subject.subject_id for subject in found.subjects] == ["sim01", "sim02"]
    assert all(set(subject.images) == {"T1", "T2", "FLAIR", "lesion"} for subject in found.subjects)
    assert found.unmatched == ()
    assert loaded.save_seg_dir == tmp_path / "model" / "output"


def test_the_demo_is_online_with_a_small_classifier():
    loaded = config("demo")
    assert loaded.network.name == "pimms_online"
    assert loaded.pimms.classifier_blocks == 1
    assert loaded.common("image", "spatial_window_size")[2] == 1
