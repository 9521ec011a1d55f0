"""The layout of a model folder."""

import os
import shutil
from pathlib import Path

import pytest

from niftynet_compat.runs.model_dir import ModelDir
from pimms_tf.errors import ConfigError

RELEASED = Path(__file__).parents[1] / "goldens" / "07_networks" / "hemis_3mod_2d" / "model.ckpt.index"


def with_checkpoints(root, *iterations, latest=None):
    folder = root / "models"
    folder.mkdir(parents=True)
    for iteration in iterations:
        (folder / f"model.ckpt-{iteration}.index").write_bytes(b"")
        (folder / f"model.ckpt-{iteration}.data-00000-of-00001").write_bytes(b"")
    (folder / "model.ckpt-77.data-00000-of-00001").write_bytes(b"")
    if latest is not None:
        lines = [f'model_checkpoint_path: "{latest}"', f'all_model_checkpoint_paths: "{latest}"']
        (folder / "checkpoint").write_text("\n".join(lines) + "\n")
    return ModelDir(root)


def test_files_have_niftynets_names():
    folder = ModelDir("/m")
    assert folder.checkpoint(500) == Path("/m/models/model.ckpt-500")
    assert folder.settings_file("train") == Path("/m/settings_training.txt")
    assert folder.settings_file("inference") == Path("/m/settings_inference.txt")
    assert folder.log_file("eval") == Path("/m/evaluation_niftynet_log")
    with pytest.raises(ConfigError, match="tran is not an action; did you mean train"):
        folder.settings_file("tran")


def test_a_folder_below_home_may_be_written_with_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert ModelDir("~/m").root == Path("/h/m")


def test_complete_checkpoints_are_counted_and_the_latest_is_the_one_named(tmp_path):
    folder = with_checkpoints(tmp_path, 20, 100, 3, latest="model.ckpt-20")
    assert folder.iterations() == [3, 20, 100]
    assert folder.latest_iteration() == 20
    assert ModelDir(tmp_path / "new").iterations() == []


def test_an_absolute_name_of_the_latest_checkpoint_is_understood(tmp_path):
    assert with_checkpoints(tmp_path, 7, latest="/old-place/m-1/models/model.ckpt-7").latest_iteration() == 7


@pytest.mark.parametrize(("asked", "iteration"), [(0, 0), (-1, 20), (-5, 20), (3, 3)])
def test_starting_iter_is_resolved_as_in_niftynet(tmp_path, asked, iteration):
    assert with_checkpoints(tmp_path, 3, 20, latest="model.ckpt-20").resolve(asked) == iteration


@pytest.mark.parametrize(
    ("present", "named", "newest"),
    [((), None, None), ((3, 20), "model.ckpt-3", 3), ((3, 20), None, 20), ((3, 20), "model.ckpt-25", 20)],
)
def test_the_newest_checkpoint_is_the_named_one_or_else_the_highest(tmp_path, present, named, newest):
    names = {"latest": named} if named else {}
    assert with_checkpoints(tmp_path, *present, **names).newest() == newest


def test_zero_is_a_checkpoint_like_others_for_inference(tmp_path):
    folder = with_checkpoints(tmp_path, 0, 3, latest="model.ckpt-3")
    assert folder.resolve(0, zero_is_random=False) == 0
    with pytest.raises(ConfigError, match=r"model\.ckpt-0\.index is not there"):
        with_checkpoints(tmp_path / "b", 3).resolve(0, zero_is_random=False)


def test_missing_checkpoints_are_named_with_those_that_are_there(tmp_path):
    folder = with_checkpoints(tmp_path / "a", 3, 20, latest="model.ckpt-25")
    with pytest.raises(ConfigError, match=r"model\.ckpt-5\.index is not there.*it holds 3, 20"):
        folder.resolve(5)
    with pytest.raises(ConfigError, match=r"model\.ckpt-25\.index is not there"):
        folder.resolve(-1)
    with pytest.raises(ConfigError, match="the latest checkpoint is unknown; ask for one of the iterations 3, 20"):
        with_checkpoints(tmp_path / "b", 3, 20).latest_iteration()
    with pytest.raises(
        ConfigError, match=r"checkpoint is not there, so model_dir .*new has no checkpoint; train first"
    ):
        ModelDir(tmp_path / "new").latest_iteration()
    with pytest.raises(ConfigError, match="no line `model_checkpoint_path`"):
        with_checkpoints(tmp_path / "c", latest="x").latest_iteration()


def test_a_checkpoint_of_niftynets_is_known_by_its_names_and_the_way_to_convert_it_is_said(tmp_path):
    folder = with_checkpoints(tmp_path, 3, latest="model.ckpt-3")
    assert not folder.is_niftynets(3)
    index = tmp_path / "models" / "model.ckpt-3.index"
    shutil.copyfile(RELEASED, index)
    assert folder.is_niftynets(3)
    command = rf"pimms-tf import-checkpoint {tmp_path}/models/model.ckpt-3 --network NAME --output DIR"
    with pytest.raises(ConfigError, match=rf"was written by NiftyNet; {command}"):
        folder.resolve(-1)
    with pytest.raises(ConfigError, match=rf"holds NiftyNet's checkpoints up to iteration 3 .*{command}"):
        folder.check_unused()
    # One of ours has our names in the same format.
    index.write_bytes(b"\0\x05\x01pimms/backend_0" + RELEASED.read_bytes()[-48:])
    assert folder.resolve(-1) == 3
    with pytest.raises(ConfigError, match=r"checkpoints up to iteration 3 .*set \[PIMMS\] resume = True to go on"):
        folder.check_unused()


def test_a_folder_without_checkpoints_may_be_trained_into(tmp_path):
    (tmp_path / "empty" / "models").mkdir(parents=True)
    for name in ("new", "empty"):
        folder = ModelDir(tmp_path / name)
        folder.check_unused()
        assert folder.iterations() == []
        assert folder.prepare("train") is folder


def test_event_records_get_a_new_folder_unless_training_is_resumed(tmp_path):
    folder = ModelDir(tmp_path)
    assert folder.logs(resume=False) == tmp_path / "logs" / "0"
    assert folder.logs(resume=True) == tmp_path / "logs" / "0"
    for name in ("0", "10", "9", "x"):
        (tmp_path / "logs" / name).mkdir(parents=True)
    assert folder.logs(resume=False) == tmp_path / "logs" / "11"
    assert folder.logs(resume=True) == tmp_path / "logs" / "10"


def test_training_makes_the_folder_and_the_other_actions_want_it(tmp_path):
    folder = ModelDir(tmp_path / "a" / "b")
    for action in ("inference", "evaluation", "export"):
        with pytest.raises(ConfigError, match=f"b is not there, but {action} needs one; train first"):
            folder.prepare(action)
    assert folder.prepare("train") is folder
    assert [path.name for path in folder.root.iterdir()] == ["models"]
    folder.prepare("inference")


def test_a_file_or_an_unwritable_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigError, match="f is a file; give a folder"):
        ModelDir(tmp_path / "f").prepare("train")
    with pytest.raises(ConfigError, match="cannot be written"):
        ModelDir(tmp_path / "f" / "m").prepare("train")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written \(Permission denied\); change its permissions"):
        ModelDir(tmp_path / "m").prepare("train")
    assert os.listdir(tmp_path) == ["f", "m"] or sorted(os.listdir(tmp_path)) == ["f", "m"]


def test_two_trainings_do_not_share_a_folder(tmp_path):
    folder = ModelDir(tmp_path)
    with folder.alone():
        with pytest.raises(ConfigError, match="is in use by another training"), folder.alone():
            pass
        assert list(tmp_path.iterdir()) == []
    with folder.alone():
        pass
