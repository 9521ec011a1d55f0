"""The demonstration folder, its commands and its picture."""

import csv
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.commands import demo
from pimms_tf.errors import InputError


@pytest.fixture
def two_subjects(monkeypatch):
    """A demonstration of two coarse subjects, quick to write."""
    monkeypatch.setattr(demo, "NUM_SUBJECTS", 2)
    monkeypatch.setattr(demo, "SPACING_MM", (4.0, 4.0, 6.0))


def test_a_demo_folder_holds_the_shipped_configuration_and_four_files_per_subject(tmp_path, two_subjects):
    folder = tmp_path / "new" / "pimms-demo"
    demo.write_demo(folder)
    assert (folder / "demo.ini").read_text(encoding="utf-8") == demo.shipped_config("demo")
    names = [f"sim0{n}_{kind}.nii.gz" for n in (1, 2) for kind in ("FLAIR", "T1", "T2", "lesion")]
    assert sorted(path.name for path in (folder / "scans").iterdir()) == sorted(names)
    assert sorted(path.name for path in folder.iterdir()) == ["demo.ini", "scans"]


def test_equal_seeds_write_equal_scans_and_subjects_differ(tmp_path, two_subjects):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        demo.write_demo(tmp_path / name, seed)
    scans = {
        (name, n): np.asarray(nib.load(tmp_path / name / "scans" / f"sim0{n}_T1.nii.gz").dataobj)
        for name in "abc"
        for n in (1, 2)
    }
    np.testing.assert_array_equal(scans["a", 1], scans["b", 1])
    assert np.any(scans["a", 1] != scans["a", 2])
    assert np.any(scans["a", 1] != scans["c", 1])


def test_an_earlier_demo_is_replaced_with_what_it_trained(tmp_path, two_subjects):
    demo.write_demo(tmp_path)
    for name in ("model", "export"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "something").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    demo.write_demo(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.ini", "notes.txt", "scans"]


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path, two_subjects):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not empty and not an untouched demonstration; give another folder"):
        demo.write_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        demo.write_demo(tmp_path / "thesis.tex")


def test_a_demo_with_an_edited_configuration_is_left_alone(tmp_path, two_subjects):
    demo.write_demo(tmp_path)
    (tmp_path / "demo.ini").write_text("[NETWORK]\nname = hemis\n")
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="untouched"):
        demo.write_demo(tmp_path)
    assert (tmp_path / "model").is_dir()


def test_commands_are_those_of_the_command_line_in_order():
    commands = demo.demo_commands()
    assert {command[0] for command in commands} == {"pimms-tf"}
    assert list(dict.fromkeys(command[1] for command in commands)) == ["train", "inference", "evaluation", "export"]
    assert all(command[2] == "demo.ini" for command in commands)
    subsets = [command[1] for command in commands if "--subsets" in command]
    assert subsets == ["inference", "evaluation"]


# Picture


def infer(folder: Path, change) -> None:
    """Writes what inference would: the mask that `change` makes of the true one, and `inferred.csv`."""
    output = folder / "model" / "output"
    output.mkdir(parents=True)
    rows = []
    for path in sorted((folder / "scans").glob("*_lesion.nii.gz")):
        image = nib.load(path)
        subject_id = path.name.removesuffix("_lesion.nii.gz")
        predicted = output / f"{subject_id}_niftynet_out.nii.gz"
        mask = change(np.asarray(image.dataobj)).astype(np.int32)
        nib.save(nib.Nifti1Image(mask, image.affine), predicted)
        rows.append((subject_id, predicted))
    with (output / "inferred.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def size_of(png: Path) -> tuple[int, int]:
    content = png.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("change", [lambda mask: mask, lambda mask: np.roll(mask, 2, axis=0), np.zeros_like])
def test_the_picture_shows_every_subject_whatever_was_predicted(tmp_path, two_subjects, change):
    demo.write_demo(tmp_path)
    infer(tmp_path, change)
    demo.demo_picture(tmp_path, tmp_path / "demo.png")
    width, height = size_of(tmp_path / "demo.png")
    assert 900 < width < 1300
    assert 700 < height < 1300


def test_the_picture_changes_with_the_prediction_and_grows_with_subjects(tmp_path, two_subjects):
    demo.write_demo(tmp_path)
    infer(tmp_path, np.zeros_like)
    demo.demo_picture(tmp_path, tmp_path / "nothing.png")
    demo.demo_picture(tmp_path, tmp_path / "one.png", max_subjects=1)
    assert size_of(tmp_path / "one.png")[1] < size_of(tmp_path / "nothing.png")[1]
    for path in (tmp_path / "model" / "output").iterdir():
        path.unlink()
    (tmp_path / "model" / "output").rmdir()
    infer(tmp_path, lambda mask: mask)
    demo.demo_picture(tmp_path, tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "nothing.png").read_bytes()


def test_a_picture_before_inference_names_the_command_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"run pimms-tf inference demo\.ini"):
        demo.demo_picture(tmp_path, tmp_path / "demo.png")
    (tmp_path / "model" / "output").mkdir(parents=True)
    (tmp_path / "model" / "output" / "inferred.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        demo.demo_picture(tmp_path, tmp_path / "demo.png")


# Shipped configurations


def test_shipped_configurations_are_found_with_and_without_ending():
    assert demo.shipped_config("hemis") == demo.shipped_config("hemis.ini")
    assert "demo.ini" in demo.shipped_configs()


def test_an_unknown_configuration_lists_the_known_ones():
    with pytest.raises(InputError, match=r"no shipped configuration pimms; choose one of demo\.ini, hemis\.ini"):
        demo.shipped_config("pimms")
