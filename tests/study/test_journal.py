"""The lists of files that a run leaves beside its split file."""

from niftynet_compat import load_config
from pimms_tf.study import journal


def test_lists_never_take_the_place_of_files_that_are_in_use(study, caplog):
    (study.folder / "lists").mkdir()
    study.write(SYSTEM={"dataset_split_file": "../lists/FLAIR.csv"}, T2={"csv_file": "./lists/T1.csv"})
    (study.folder / "lists" / "T1.csv").write_text(f"sub00,{study.scans}/sub00_T2.nii.gz\n")
    config = load_config("x.ini", {}, None, "train")
    files = {"sub00": study.scans / "sub00_T1.nii.gz"}
    journal.write_lists(config, dict.fromkeys(("T1", "T2", "FLAIR", "lesion"), files))
    assert sorted(path.name for path in (study.folder / "lists").iterdir()) == ["T1.csv", "lesion.csv"]
    assert "_T2.nii.gz" in (study.folder / "lists" / "T1.csv").read_text()
    assert [record.getMessage().split(" ")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "[T1]",
        "[FLAIR]",
    ]


def test_lists_that_cannot_be_written_are_worth_a_warning(study, caplog):
    study.write(SYSTEM={"dataset_split_file": "/proc/nowhere/split.csv"})
    journal.write_lists(load_config("x.ini"), {"T1": {"sub00": study.scans / "sub00_T1.nii.gz"}})
    assert "the list of files found is not written: /proc/nowhere/T1.csv" in caplog.text


def test_a_given_list_is_said_to_be_used(study, caplog):
    (study.folder / "T1.csv").write_text(f"sub00,{study.scans}/sub00_T1.nii.gz\n")
    study.write(T1={"csv_file": "T1.csv"})
    caplog.set_level("INFO")
    journal.write_lists(load_config("x.ini"), {"T1": {}})
    assert caplog.messages == [f"[T1] using existing csv file {study.folder}/T1.csv, skipped filenames search"]
