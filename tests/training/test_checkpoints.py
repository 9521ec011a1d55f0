"""Checkpoints: what was saved comes back, or nothing changes and one sentence says why."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.files import sweep
from pimms_tf.models import build_model
from pimms_tf.training import OPTIMISERS, Checkpoints, latest_iteration, load_arrays, new_state, write_arrays
from pimms_tf.training.checkpoints import iterations

CHOICES = {"frontend": "highres_1x1", "classifier_features": (4, 8), "classifier_blocks": 1}


def make_state(optimiser="adam", variant="online", **choices):
    return new_state(build_model(variant, 2, 2, **CHOICES | choices), optimiser, 0.01)


def disturb(state, seed):
    """Gives every variable a value of its own, statistics and optimiser slots included."""
    rng = np.random.default_rng(seed)
    for variable in [*state.model.variables, *state.optimizer.variables]:
        if variable.dtype.startswith("float") and variable.path.rpartition("/")[2] != "learning_rate":
            variable.assign(rng.uniform(0.1, 1, variable.shape))
        elif variable.path.endswith("iteration"):
            variable.assign(seed)
    state.iteration.assign(seed)


def values(state):
    return [v.numpy().copy() for v in [*state.model.variables, *state.optimizer.variables, state.iteration]]


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def checkpoints(state, folder, **options):
    return Checkpoints(folder, state.model, state.optimizer, state.iteration, **options)


@pytest.fixture(scope="module")
def state():
    return make_state()


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "models"
    disturb(state, 7)
    checkpoints(state, folder).save()
    return folder, values(state)


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_everything_comes_back(optimiser, tmp_path):
    state, other = make_state(optimiser, "hemis"), make_state(optimiser, "hemis")
    disturb(state, 5)
    checkpoints(state, tmp_path).save()
    disturb(other, 6)
    assert not equal(values(state), values(other))
    assert checkpoints(other, tmp_path).restore() == 5
    assert equal(values(state), values(other))
    assert int(other.iteration.numpy()) == 5


def test_every_variable_is_stored_under_its_path(saved, state):
    stored = dict(tf.train.list_variables(str(saved[0] / "model.ckpt-7")))
    paths = {variable.path for variable in state.model.variables}
    slots = {f"optimizer/adam/{v.path.partition('/')[2]}" for v in state.optimizer.variables}
    slots.remove("optimizer/adam/learning_rate")
    assert set(stored) == paths | slots | {"iteration"}
    assert "optimizer/adam/pimms_backend_1_conv_1_conv_kernel_velocity" in slots


def test_three_files_and_nothing_else_are_left(folder):
    assert sorted(file.name for file in folder.iterdir()) == [
        "checkpoint",
        "model.ckpt-7.data-00000-of-00001",
        "model.ckpt-7.index",
    ]


def test_a_checkpoint_may_be_written_again(folder, state):
    disturb(state, 7)
    again = checkpoints(state, folder)
    again.save()
    disturb(state, 8)
    assert again.restore(7) == 7
    # The new data had to lie beside the old until the index was replaced, so their names differ.
    data = {f"model.ckpt-7.data-0000{part}-of-00002" for part in (0, 1)}
    assert {file.name for file in folder.iterdir()} == data | {"model.ckpt-7.index", "checkpoint"}
    again.save()
    assert len(list(folder.iterdir())) == 3


@pytest.mark.slow
def test_whenever_a_process_is_killed_the_latest_state_can_be_read(tmp_path):
    program = Path(__file__).with_name("kill_points.py")
    environment = os.environ | {"PYTHONPATH": str(program.parents[2]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, program, tmp_path], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    folders = sorted((folder for folder in tmp_path.iterdir() if folder.name.isdecimal()), key=lambda f: int(f.name))
    seen = []
    for folder in folders:
        for number in sorted(iterations(folder)):
            shapes = dict(tf.train.list_variables(str(folder / f"model.ckpt-{number}")))
            arrays = load_arrays(folder / f"model.ckpt-{number}", shapes)
            assert arrays.pop("iteration") == number
            values = {value for array in arrays.values() for value in np.unique(array).tolist()}
            assert values in ({10.0}, {float(number)})  # of one save, not of two
        seen.append(latest_iteration(folder))
        assert seen[-1] in iterations(folder)
        sweep(folder)
        # Only of a writer that had not even put its mark there yet.
        assert not [file for scratch in folder.glob(".*") for file in scratch.iterdir() if file.stat().st_size]
    assert len(folders) > 20
    assert seen == sorted(seen)
    assert set(seen) == {2, 3, 4}


def test_the_newest_are_kept_and_the_text_file_lists_them(tmp_path, state):
    some = checkpoints(state, tmp_path, max_to_keep=3)
    for number in (1, 2, 5, 8, 9):
        state.iteration.assign(number)
        assert some.save() == tmp_path / f"model.ckpt-{number}"
    assert {file.stem for file in tmp_path.glob("*.index")} == {"model.ckpt-5", "model.ckpt-8", "model.ckpt-9"}
    assert (tmp_path / "checkpoint").read_text(encoding="utf-8") == (
        'model_checkpoint_path: "model.ckpt-9"\n'
        'all_model_checkpoint_paths: "model.ckpt-5"\n'
        'all_model_checkpoint_paths: "model.ckpt-8"\n'
        'all_model_checkpoint_paths: "model.ckpt-9"\n'
    )
    assert latest_iteration(tmp_path) == 9
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt-9")


@pytest.mark.parametrize(("keep", "left"), [(1, 2), (None, 4)])
def test_at_least_two_are_kept_and_none_means_all(tmp_path, state, keep, left):
    some = checkpoints(state, tmp_path, max_to_keep=keep)
    for number in range(4):
        state.iteration.assign(number)
        some.save()
    assert len(list(tmp_path.glob("*.index"))) == left


def test_checkpoints_of_an_earlier_run_are_not_deleted(folder, state):
    some = checkpoints(state, folder, max_to_keep=2)
    for number in (20, 30, 40):
        state.iteration.assign(number)
        some.save()
    assert {file.stem for file in folder.glob("*.index")} == {"model.ckpt-7", "model.ckpt-30", "model.ckpt-40"}


def test_the_text_file_of_niftynet_is_understood(tmp_path):
    path = '"/home/someone/models/model.ckpt-1200"'
    (tmp_path / "checkpoint").write_text(f"model_checkpoint_path: {path}\nall_model_checkpoint_paths: {path}\n")
    assert latest_iteration(tmp_path) == 1200


def test_a_validation_loss_is_kept_with_the_weights(tmp_path, state):
    some = checkpoints(state, tmp_path)
    state.iteration.assign(3)
    some.save(validation_loss=0.25)
    state.iteration.assign(4)
    some.save()
    assert (some.validation_loss(3), some.validation_loss(4)) == (0.25, None)
    assert some.restore(3) == 3


def test_a_pattern_restores_only_what_it_matches(folder, saved, state):
    disturb(state, 11)
    before = values(state)
    assert checkpoints(state, folder).restore(pattern="backend_0|frontend") == 7
    after, stored = values(state), saved[1]
    names = [v.path for v in state.model.variables] + ["optimizer"] * len(state.optimizer.variables) + ["iteration"]
    for name, old, new, kept in zip(names, before, after, stored, strict=True):
        matched = "backend_0" in name or "frontend" in name
        np.testing.assert_array_equal(new, kept if matched else old, err_msg=name)


def test_weights_may_be_restored_without_the_optimiser(folder, saved, state):
    disturb(state, 12)
    slots = [v.numpy().copy() for v in state.optimizer.variables]
    for reader in (checkpoints(state, folder), Checkpoints(folder, state.model, None, state.iteration)):
        reader.restore(optimizer=False)
        assert equal(saved[1][: len(state.model.variables)], [v.numpy() for v in state.model.variables])
        assert equal(slots, [v.numpy() for v in state.optimizer.variables])
        assert int(state.iteration.numpy()) == 7


def test_resuming_keeps_the_learning_rate_of_the_new_run(folder):
    resumed = make_state()
    resumed.optimizer.learning_rate.assign(0.125)
    checkpoints(resumed, folder).restore()
    assert float(resumed.optimizer.learning_rate.numpy()) == 0.125


def refused(other, folder, match, **options):
    before = values(other)
    with pytest.raises(InputError, match=match):
        checkpoints(other, folder).restore(**options)
    assert equal(before, values(other))


def test_a_model_of_other_shapes_is_refused_with_both(folder):
    refused(
        make_state(classifier_features=(4, 16)),
        folder,
        r"pimms/classifier/\S+ has shape \(1, 1, 4, 8\), the model \(1, 1, 4, 16\).*num_classes",
    )


def test_weights_that_the_checkpoint_lacks_are_listed_and_counted(folder):
    refused(make_state(classifier_blocks=2), folder, r"resolution_1_block_1\S+ is not in it; .*and \d+ more; give the")


def test_weights_that_the_model_lacks_are_listed(folder):
    refused(make_state(variant="hemis"), folder, r"pimms/classifier/\S+ is in it but not in the model")


def test_another_optimisers_state_is_refused_unless_it_is_left_out(folder):
    other = make_state("momentum")
    refused(other, folder, "optimizer/sgd/.* is not in it")
    assert checkpoints(other, folder).restore(optimizer=False) == 7


def test_a_pattern_that_matches_nothing_is_refused(folder, state):
    refused(state, folder, "vars_to_restore = HighRes3DNet matches no variable", pattern="HighRes3DNet")


def test_a_missing_checkpoint_names_those_that_are_there(folder, state):
    (folder / "model.ckpt-final.index").touch()
    refused(state, folder, r"no checkpoint model.ckpt-9 in .* \(it holds iterations 7\)", iteration=9)
    refused(state, folder.parent, r"no checkpoint model.ckpt-9 in .* \(it holds none\)", iteration=9)


@pytest.mark.parametrize("text", [None, "", "model_checkpoint_path: unknown\n"])
def test_a_folder_without_a_named_checkpoint_says_train_first(tmp_path, text):
    if text is not None:
        (tmp_path / "checkpoint").write_text(text)
    with pytest.raises(InputError, match="names no checkpoint: train first"):
        latest_iteration(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_checkpoint_of_a_diverged_training_is_refused(folder, state, bad):
    arrays = {name: variable.numpy() for name, variable in checkpoints(state, folder).variables().items()}
    name = state.model.trainable_variables[0].path
    write_arrays(folder / "model.ckpt-8", arrays | {"iteration": np.int64(8), name: np.full_like(arrays[name], bad)})
    refused(state, folder, r"model.ckpt-8 comes from a training that diverged: \d+ of its \d+ arrays", iteration=8)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    for place in range(100, len(content), 64):
        content[place] ^= 0xFF
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def remove(file):
    file.unlink()


@pytest.mark.parametrize(
    ("part", "harm"),
    [("index", truncate), ("index", flip), ("index", empty)]
    + [("data-00000-of-00001", harm) for harm in (truncate, flip, empty, remove)],
)
def test_a_damaged_checkpoint_is_refused(folder, state, part, harm):
    harm(folder / f"model.ckpt-7.{part}")
    disturb(state, 13)
    refused(state, folder, "model.ckpt-7 is damaged .*: use an earlier one")


def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(folder, saved, state):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    disturb(state, 7)
    for variable in state.model.variables:
        variable.assign(variable + 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # a disk that is full after 5000 bytes
    try:
        with pytest.raises(InputError, match=r"cannot write checkpoint 7 into .*: free space"):
            checkpoints(state, folder).save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
    checkpoints(state, folder).restore()
    assert equal(saved[1], values(state))


def test_a_full_disk_is_one_sentence_and_costs_no_checkpoint(small_disk, state):
    folder = small_disk("3m") / "models"
    some = checkpoints(state, folder)
    disturb(state, 1)
    some.save()
    kept, complaint = values(state), None
    for number in range(2, 40):
        state.iteration.assign(number)
        try:
            some.save()
        except InputError as error:
            complaint = str(error)
            break
    assert complaint == (
        f"cannot write checkpoint {number} into {folder} (No space left on device): free space or choose another "
        "model_dir"
    )
    assert latest_iteration(folder) == number - 1
    assert not [file.name for file in folder.iterdir() if file.name.startswith(".")]
    for there in range(1, number):
        assert some.restore(there) == there
        assert equal(values(state)[:-1], kept[:-1])


def test_a_folder_that_cannot_be_made_is_named(tmp_path, state):
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot write checkpoint \d+ into .*models .*another model_dir"):
        checkpoints(state, tmp_path / "models").save()


def test_arrays_may_be_read_under_other_names(tmp_path):
    write_arrays(tmp_path / "model.ckpt-0", {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int64(4)})
    arrays = load_arrays(tmp_path / "model.ckpt-0", {"kernel": (2, 3), "b": ()}, {"kernel": "a/w"})
    np.testing.assert_array_equal(arrays["kernel"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["b"] == 4
    with pytest.raises(InputError, match=r"a/w has shape \(2, 3\), the model \(3, 2\)"):
        load_arrays(tmp_path / "model.ckpt-0", {"kernel": (3, 2)}, {"kernel": "a/w"})
