"""Released checkpoints become models that answer, and go on training, as the original does."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from niftynet_compat import ConfigError, load_config
from niftynet_compat.runs.checkpoint import import_tf1
from niftynet_compat.runs.checkpoint_names import our_path, tf1_name
from pimms_tf.actions.import_checkpoint import import_checkpoint
from pimms_tf.errors import InputError
from pimms_tf.models import build_classifier, build_model
from pimms_tf.models.layers import BatchNorm
from pimms_tf.study.network import network
from pimms_tf.study.task import task_of
from pimms_tf.training import Checkpoints, load_arrays, new_state, write_arrays

GOLDENS = Path(__file__).parents[1] / "goldens"
NETWORKS = GOLDENS / "07_networks"
# Case: the network, its variables that are used, other ones, and the largest difference of each output. The recordings
# are float32 of another TensorFlow; these are ten times what was found.
CASES = {
    "hemis_3mod_2d": ("hemis", 41, 32, (4e-5,)),
    "hemis_midl_soft_2d": ("pimms_online", 511, 40, (2e-5, 1e-6)),
    "resnet_plugin_2d_small_bn0": ("modality_classifier", 145, 0, (1e-6,)),
    "resnet_plugin_2d_small_bn1": ("modality_classifier", 177, 4, (1e-6,)),
    "resnet2d_10blocks_small": ("modality_classifier", 460, 364, (1e-6,)),
}
BUILT = {
    "hemis": ("hemis_offline", lambda: build_model("hemis", 3, 2, "niftynet2018")),
    "modality_classifier": ("classifier_offline_n9", lambda: build_classifier(3, "niftynet2018")),
    "pimms_online": ("online_n10", lambda: build_model("online", 4, 2, "niftynet2018")),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Prefix of a case's checkpoint; the largest one is kept compressed, as the arrays it holds."""

    def checkpoint(case):
        prefix = NETWORKS / case / "model.ckpt"
        if not Path(f"{prefix}.index").exists():
            prefix = tmp_path_factory.mktemp(case) / "model.ckpt"
            with np.load(NETWORKS / case / "weights.npz") as file:
                write_arrays(prefix, dict(file))
        return prefix

    return checkpoint


@pytest.fixture(scope="module")
def hemis_arrays():
    with np.load(NETWORKS / "hemis_3mod_2d" / "weights.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def imported(checkpoint, tmp_path_factory):
    """Folder and report of each case, imported once."""
    done = {}

    def imported(case):
        if case not in done:
            folder = tmp_path_factory.mktemp(f"imported_{case}")
            recorded = NETWORKS / case / "io.npz"
            done[case] = folder, import_checkpoint(checkpoint(case), CASES[case][0], folder, recorded=recorded)
        return done[case]

    return imported


@pytest.mark.parametrize("network", BUILT)
def test_the_variables_of_the_preset_are_those_of_the_released_graph_one_to_one(network):
    graph, build = BUILT[network]
    with open(GOLDENS / "variable_paths" / "tf1_variables.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["graph"] == graph]
    released = {row["variable"]: (tuple(map(int, row["shape"].split("x"))), row["trainable"] == "1") for row in rows}
    variables = {v.path: v for v in build().variables if not v.path.endswith("/unseen")}
    names = {path: tf1_name(path, network) for path in variables}
    assert sorted(names.values()) == sorted(released)
    assert {our_path(name, network) for name in released} == {path.removeprefix("pimms/") for path in variables}
    for path, name in names.items():
        shape, trainable = released[name]
        assert tuple(variables[path].shape)[-len(shape) :] == shape
        assert np.prod(variables[path].shape) == np.prod(shape)
        assert variables[path].trainable == trainable


@pytest.mark.parametrize("case", CASES)
def test_an_imported_network_answers_as_recorded(imported, case):
    network, num_used, num_auxiliary, tolerances = CASES[case]
    _, report = imported(case)
    assert report.network == network
    assert (report.num_used, sum(count for _, count in report.auxiliary)) == (num_used, num_auxiliary)
    assert report.num_unused == 0
    assert report.largest_difference == 0
    assert len(report.forward) == len(tolerances)
    for (name, largest), tolerance in zip(report.forward, tolerances, strict=True):
        assert largest < tolerance, name


def test_the_report_says_what_became_of_every_variable(imported):
    _, report = imported("hemis_3mod_2d")
    text = report.text()
    assert text.startswith("hemis, 3 modalities, 2 classes → ")
    assert "41 variables used, 0 unused; auxiliary: 32 of kind zero-debias helper; the optimiser starts fresh" in text
    assert "largest difference between read and written: 0\n" in text
    assert "largest difference from the recorded output_infer: " in text


@pytest.mark.parametrize("case", CASES)
def test_the_fragment_of_settings_describes_the_network_that_was_imported(imported, case, tmp_path):
    folder, report = imported(case)
    num_modalities = report.num_modalities - (report.network == "pimms_online")
    sections = [f"scan_{number}" for number in range(num_modalities)]
    fragment = (folder / "imported.ini").read_text(encoding="utf-8")
    task = "SEGMENTATION" if report.num_classes else "CLASSIFICATION"
    ini = fragment.replace(f"[{task}]", f"[{task}]\nimage = {','.join(sections)}")
    ini += f"[SYSTEM]\nmodel_dir = {folder}\n[INFERENCE]\n"
    ini += "".join(f"[{name}]\npath_to_search = {tmp_path}\n" for name in sections)
    (tmp_path / "whole.ini").write_text(ini, encoding="utf-8")
    task = task_of(load_config(tmp_path / "whole.ini", action="inference"))
    model = network(task)
    restored = Checkpoints(folder / "models", model, None, tf.Variable(0, dtype=tf.int64)).restore()
    assert restored == 1
    assert task.num_classes == (report.num_classes or 1)


def hemis_state(freeze=""):
    return new_state(build_model("hemis", 3, 2, "niftynet2018"), "adam", 1e-4, freeze)


def test_training_goes_on_from_an_imported_checkpoint_with_a_fresh_optimiser(imported):
    folder, _ = imported("hemis_3mod_2d")
    state = hemis_state()
    assert Checkpoints(folder / "models", state.model, state.optimizer, state.iteration).restore() == 1
    assert int(state.iteration.numpy()) == 1
    assert int(state.optimizer.iterations) == 0


@pytest.mark.parametrize("case", ["hemis_3mod_2d", "resnet_plugin_2d_small_bn0", "resnet_plugin_2d_small_bn1"])
def test_a_training_pass_moves_the_statistics_as_the_original_does(checkpoint, case):
    # The first case carries zero-debias helpers that have counted no update, so the statistics become the batch's; the
    # classifier's are tf.contrib's plain averages, of which one part in ten is new.
    network, *_ = CASES[case]
    io = dict(np.load(NETWORKS / case / "io.npz"))
    if network == "hemis":
        model = build_model("hemis", 3, 2, "niftynet2018")
    else:
        with_bn = case.endswith("1")
        choices = {"classifier_head_bn": with_bn, "classifier_extra_bn": with_bn, "classifier_blocks": 3}
        model = build_classifier(3, "niftynet2018", classifier_features=(4, 8, 16, 32), **choices)
    arrays = import_tf1(checkpoint(case), {v.path: tuple(v.shape) for v in model.variables})
    for variable in model.variables:
        variable.assign(arrays[variable.path])
    model(io["input"], np.ones((len(io["input"]), io["input"].shape[-1]), bool), training=True)
    variables = {v.path.removeprefix("pimms/"): v for v in model.variables}
    after = {name.removeprefix("after_1_update/"): array for name, array in io.items() if name.startswith("after_1")}
    assert len(after) > 5
    for name, expected in after.items():
        name = name.replace("BatchNorm/", "").replace("/conv_bn/", "/conv/").replace("conv_bn_1/", "conv_1/")
        path = our_path(name, network)
        assert path is not None, name
        np.testing.assert_allclose(variables[path].numpy(), expected, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("updates", [0, 1, 5, 60])
def test_a_debiased_average_goes_on_as_the_one_that_keeps_biased_values(updates):
    rng = np.random.default_rng(updates)
    means = rng.normal(size=updates + 3).astype(np.float32)
    biased = 0.0
    for mean in means[:updates]:
        biased = 0.9 * biased + 0.1 * mean
    layer = BatchNorm()
    layer.build((None, 1))
    if updates:
        layer.moving_mean.assign([biased / (1 - 0.9**updates)])
    layer.unseen.assign(0.9**updates)
    for step, mean in enumerate(means[updates:], start=updates + 1):
        layer(np.full((2, 1), mean), training=True)
        biased = 0.9 * biased + 0.1 * mean
        np.testing.assert_allclose(layer.moving_mean.numpy(), [biased / (1 - 0.9**step)], rtol=1e-5)


def test_adam_goes_on_with_the_stored_moments(hemis_arrays, tmp_path):
    rng = np.random.default_rng(0)
    trained = [name for name in hemis_arrays if not re.search("moving_|/biased|/local_step", name)]
    moments = {f"{name}/Adam": rng.normal(size=hemis_arrays[name].shape) for name in trained}
    moments |= {f"{name}/Adam_1": rng.uniform(0.5, 1, hemis_arrays[name].shape) for name in trained}
    powers = {"ApplyGradients/beta1_power": 0.9**13, "ApplyGradients/beta2_power": 0.999**13}  # after 12 updates
    extra = {name: np.asarray(value, np.float32) for name, value in (moments | powers).items()}
    write_arrays(tmp_path / "model.ckpt-12", hemis_arrays | extra)
    report = import_checkpoint(tmp_path / "model.ckpt-12", "hemis", tmp_path / "imported")
    assert report.num_slots == 2 * len(trained) == 50
    assert dict(report.auxiliary) == {"zero-debias helper": 32, "Adam slot": 50, "power of Adam's decay": 2}
    assert "the optimiser goes on with 50 of its stored moments" in report.text()
    assert report.largest_difference == 0

    state = hemis_state()
    assert Checkpoints(tmp_path / "imported" / "models", state.model, state.optimizer, state.iteration).restore() == 12
    path = "pimms/frontend/conv_2/conv/kernel"
    (variable,) = [v for v in state.model.trainable_variables if v.path == path]
    gradient = rng.normal(size=variable.shape).astype(np.float32)
    gradients = [gradient if v is variable else np.zeros(v.shape, np.float32) for v in state.model.trainable_variables]
    state.optimizer.apply([tf.constant(g) for g in gradients], state.model.trainable_variables)

    name = tf1_name(path, "hemis")  # the update of TensorFlow 1
    m = 0.9 * moments[f"{name}/Adam"] + 0.1 * gradient
    v = 0.999 * moments[f"{name}/Adam_1"] + 0.001 * gradient**2
    lr = 1e-4 * np.sqrt(1 - 0.999**13) / (1 - 0.9**13)
    np.testing.assert_allclose(
        variable.numpy(), hemis_arrays[name] - lr * m / (np.sqrt(v) + 1e-8), rtol=1e-5, atol=1e-7
    )


def test_moments_may_be_left_behind(hemis_arrays, tmp_path):
    name = "HeMIS/HighRes3DNet/conv_2_bn_softmax/conv_/w"
    write_arrays(tmp_path / "model.ckpt-3", hemis_arrays | {f"{name}/Adam": hemis_arrays[name]})
    report = import_checkpoint(tmp_path / "model.ckpt-3", "hemis", tmp_path / "imported", optimizer=False)
    assert report.num_slots == 0
    assert ("Adam slot", 1) in report.auxiliary


def test_parts_of_an_imported_model_can_be_restored_and_frozen(imported, hemis_arrays):
    folder, _ = imported("hemis_3mod_2d")
    state = hemis_state(freeze="backend_")
    before = {v.path: v.numpy() for v in state.model.variables}
    checkpoints = Checkpoints(folder / "models", state.model, state.optimizer, state.iteration)
    checkpoints.restore(1, pattern="backend_[01]/")
    for variable in state.model.variables:
        if re.search("backend_[01]/", variable.path):
            name = tf1_name(variable.path, "hemis")
            if name is not None:
                np.testing.assert_array_equal(variable.numpy(), hemis_arrays[name])
        else:
            np.testing.assert_array_equal(variable.numpy(), before[variable.path])
    assert int(state.iteration.numpy()) == 0
    assert not any("backend_" in v.path for v in state.optimizer.variables)


def test_the_segmenter_and_the_classifier_of_soft_can_come_from_two_imports(imported):
    folder, _ = imported("hemis_3mod_2d")
    model = build_model("soft", 3, 2, "niftynet2018", classifier_blocks=1)
    wanted = {v.path: tuple(v.shape) for v in model.variables if "/classifier/" not in v.path}
    assert set(load_arrays(folder / "models" / "model.ckpt-1", wanted)) == set(wanted)


def test_the_number_of_the_checkpoint_is_kept(hemis_arrays, tmp_path):
    write_arrays(tmp_path / "model.ckpt-0", hemis_arrays)
    write_arrays(tmp_path / "model.ckpt-26000", hemis_arrays)
    # Iteration 0 would mean random weights to starting_iter.
    first = import_checkpoint(tmp_path / "model.ckpt-0", "hemis", tmp_path / "first")
    assert first.checkpoint == tmp_path / "first" / "models" / "model.ckpt-1"
    name = "niftynet.contrib.hemis.hemis.HeMIS"
    second = import_checkpoint(tmp_path / "model.ckpt-26000", name, tmp_path / "second")
    assert second.checkpoint.name == "model.ckpt-26000"
    state = (tmp_path / "second" / "models" / "checkpoint").read_text(encoding="utf-8")
    assert state.startswith('model_checkpoint_path: "model.ckpt-26000"')


def refused(error, prefix, network, output, **options):
    with pytest.raises(error) as caught:
        import_checkpoint(prefix, network, output, **options)
    assert not output.exists()
    return str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(checkpoint, tmp_path):
    text = refused(ConfigError, checkpoint("hemis_3mod_2d"), "pimms_online", tmp_path / "out")
    assert "is not of pimms_online but of hemis" in text
    text = refused(ConfigError, checkpoint("resnet_plugin_2d_small_bn0"), "hemis", tmp_path / "out")
    assert "is not of hemis but of modality_classifier" in text
    toynet = GOLDENS / "09_endtoend" / "model_models" / "model.ckpt-20"
    assert "is of none of the released networks" in refused(ConfigError, toynet, "hemis", tmp_path / "out")


@pytest.mark.parametrize("network", ["pimms_soft", "pimms_hard"])
def test_networks_without_a_checkpoint_of_their_own_are_refused_with_the_way(checkpoint, tmp_path, network):
    text = refused(ConfigError, checkpoint("hemis_3mod_2d"), network, tmp_path / "out")
    assert "import its segmenter as hemis" in text


def test_missing_extra_and_odd_variables_are_refused(hemis_arrays, tmp_path):
    kernel = "HeMIS/HighRes3DNet/conv_2_bn_softmax/conv_/w"
    backend = "HeMIS/HeMISBackendBlock_1/backend_conv_1_bn_relu/conv_/w"

    def text(change):
        arrays = dict(hemis_arrays)
        change(arrays)
        write_arrays(tmp_path / "model.ckpt-1", arrays)
        return refused(ConfigError, tmp_path / "model.ckpt-1", "hemis", tmp_path / "out")

    def without_backend(arrays):
        for name in [name for name in arrays if "HeMISBackendBlock_1/" in name]:
            del arrays[name]

    assert f"not in it are: pimms/frontend/conv_2/conv/kernel (1, 1, 80, 2), there {kernel}" in text(
        lambda arrays: arrays.pop(kernel)
    )
    assert f"not in it are: pimms/backend_1/conv_1/conv/kernel (5, 5, 1, 48), there {backend}" in text(without_backend)
    assert "only in it are: HeMIS/extra/w (2,)" in text(
        lambda arrays: arrays.update({"HeMIS/extra/w": np.zeros(2, np.float32)})
    )
    assert f"{backend} has shape (5, 5, 2, 48), pimms/backend_1/conv_1/conv/kernel of the model (5, 5, 1, 48)" in text(
        lambda arrays: arrays.update({backend: np.zeros((5, 5, 2, 48), np.float32)})
    )


def test_what_is_no_checkpoint_or_a_damaged_one_is_refused(hemis_arrays, tmp_path):
    (tmp_path / "notes.txt").write_text("not a checkpoint", encoding="utf-8")
    assert "cannot be read" in refused(ConfigError, tmp_path / "notes.txt", "hemis", tmp_path / "out")
    assert "there is no" in refused(ConfigError, tmp_path / "model.ckpt-1", "hemis", tmp_path / "out")
    write_arrays(tmp_path / "model.ckpt-1", hemis_arrays)
    data = tmp_path / "model.ckpt-1.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    assert "cannot be read" in refused(ConfigError, tmp_path / "model.ckpt-1", "hemis", tmp_path / "out")


def test_a_recording_that_does_not_belong_to_the_network_is_refused(checkpoint, tmp_path):
    def text(recorded):
        return refused(InputError, checkpoint("hemis_3mod_2d"), "hemis", tmp_path / "out", recorded=recorded)

    np.savez(tmp_path / "shape.npz", input=np.zeros((1, 8, 8, 3), np.float32), output_infer=np.zeros((1, 8, 9, 2)))
    assert "output_infer has shape (1, 8, 9, 2), but the model gives (1, 8, 8, 2)" in text(tmp_path / "shape.npz")
    np.savez(tmp_path / "scans.npz", input=np.zeros((1, 8, 8, 4), np.float32), output_infer=np.zeros((1, 8, 8, 2)))
    assert "input has shape (1, 8, 8, 4)" in text(tmp_path / "scans.npz")
    np.savez(tmp_path / "keys.npz", x=np.zeros(3))
    assert "holds no input and output_infer" in text(tmp_path / "keys.npz")
    assert "cannot be read as .npz" in text(tmp_path / "none.npz")


def test_a_folder_with_checkpoints_is_left_as_it_is(imported, checkpoint):
    folder, _ = imported("resnet_plugin_2d_small_bn0")
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    with pytest.raises(InputError, match="holds checkpoints already"):
        import_checkpoint(checkpoint("resnet_plugin_2d_small_bn0"), "modality_classifier", folder)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
