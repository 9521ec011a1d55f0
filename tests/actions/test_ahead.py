"""The first subject is read while TensorFlow is imported, unless its files change meanwhile."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from niftynet_compat import SubjectFiles
from pimms_tf.actions.ahead import reading_ahead
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.errors import InputError


class Counting(SubjectLoader):
    loaded: list[str] = []

    def load(self, images, subject_id=""):
        self.loaded.append(subject_id)
        return super().load(images, subject_id)


@pytest.fixture
def study(tmp_path):
    """Two subjects of one scan, and no cache."""
    Counting.loaded.clear()
    used = []
    for number, name in enumerate(("s0", "s1"), start=1):
        write(tmp_path / f"{name}.nii.gz", number)
        used.append(SubjectFiles(name, {"T1": tmp_path / f"{name}.nii.gz"}))
    task = SimpleNamespace(scans=("T1",), modality_image=None)
    return SimpleNamespace(
        used=tuple(used), task=task, loader=Counting(whitening=False), config=SimpleNamespace(cache_is_off=True)
    )


def write(path, value):
    nib.save(nib.Nifti1Image(np.full((3, 4, 2), value, np.int16), np.eye(4)), path)


def value_of(loader, files):
    return loader.load(files.images, files.subject_id).scans[0, 0, 0, 0]


def test_the_first_subject_is_read_ahead_and_once(study):
    with reading_ahead(study) as loader:
        assert [value_of(loader, files) for files in study.used] == [1, 2]
        assert Counting.loaded == ["s0", "s1"]
        assert value_of(loader, study.used[0]) == 1
    assert Counting.loaded == ["s0", "s1", "s0"]


def test_a_file_that_changes_meanwhile_is_read_again(study):
    with reading_ahead(study) as loader:
        pass  # the block waits for the reader
    write(study.used[0].images["T1"], 7)
    assert value_of(loader, study.used[0]) == 7


def test_a_mistake_is_raised_where_the_subject_is_asked_for(study):
    study.used[0].images["T1"].write_bytes(b"no image")
    with reading_ahead(study) as loader:
        with pytest.raises(InputError, match="s0.nii.gz: is no image or is damaged"):
            value_of(loader, study.used[0])
        assert value_of(loader, study.used[1]) == 2
    study.used[0].images["T1"].unlink()
    with reading_ahead(study) as loader, pytest.raises(InputError, match="s0.nii.gz: does not exist"):
        value_of(loader, study.used[0])
