"""`pimms-tf segment` and `classify`: files in, files out, and one sentence for whatever cannot be used."""

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.clinic.cohort import find_patients
from pimms_tf.commands import patient_cli
from pimms_tf.commands.cli import main
from pimms_tf.errors import InputError


@pytest.fixture
def patient(scans, tmp_path):
    """A folder with the three scans of one simulated patient, nameless."""
    folder = tmp_path / "patient"
    folder.mkdir()
    for number, name in enumerate(("T2", "FLAIR", "T1")):
        shutil.copy(scans / f"sub04_{name}.nii.gz", folder / f"{number}.nii.gz")
    return folder


@pytest.fixture
def tiny(segmenter, monkeypatch):
    """The command line with a segmenter that is made in no time."""
    monkeypatch.setattr(patient_cli, "_segmenter", lambda folder, precision, segments=True: segmenter)


def table(path):
    heads, *rows = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_a_folder_of_scans_gives_a_folder_of_results(patient, tiny, capsys):
    out = patient / "out"
    command = ["segment", str(patient), "--output", str(out), "--no-register"]
    assert main([*command, "--grid-of", "2.nii.gz"]) == 0
    expected = {"mask.nii.gz", "probability.nii.gz", "scans.tsv", "lesions.tsv", "result.json", "report.html"}
    others = {"mask_on_2.nii.gz", "mosaic.png", "colours.lut", "colours.txt"}
    assert expected | others == {path.name for path in out.iterdir()}
    record, mask = json.loads((out / "result.json").read_text()), nib.load(out / "mask.nii.gz")
    rows = table(out / "scans.tsv")
    assert {row["scan"] for row in rows} == {"0.nii.gz", "1.nii.gz", "2.nii.gz"}
    assert [row["scan"] for row in rows if row["reference"] == "yes"] == [record["reference"]]
    assert mask.get_sform(coded=True)[1] == mask.get_qform(coded=True)[1] == 1
    marked = np.asanyarray(mask.dataobj) > 0
    assert record["volume_ml"] == pytest.approx(marked.sum() * 6**3 / 1000, rel=1e-5)
    assert f"{record['volume_ml']:.2f} ml" in capsys.readouterr().out
    # What lies among the scans now is a result and no scan.
    before = (out / "mask.nii.gz").read_bytes()
    assert main(command) == 0
    assert (out / "mask.nii.gz").read_bytes() == before


def test_other_formats_are_written_on_request(patient, tiny, tmp_path, capsys):
    command = ["segment", str(patient), "--output", str(tmp_path / "out"), "--no-register", "--patient", "01"]
    assert main([*command, "--bids", str(tmp_path / "bids"), "--dicom-seg"]) == 2
    captured = capsys.readouterr()
    assert "on whose grid the mask lies, is none" in captured.err  # said when all else is written
    assert (tmp_path / "out" / "result.json").is_file()
    assert not (tmp_path / "out" / "mask.dcm").exists()
    written = (tmp_path / "bids" / "sub-01" / "anat" / "sub-01_space-orig_label-L_desc-pimms_mask.nii.gz").read_bytes()
    assert written == (tmp_path / "out" / "mask.nii.gz").read_bytes()
    assert main([*command, "--bias-correction"]) == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("fsleyes ")
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["bias_correction"]
    assert all("its bias field was divided out" in scan["notes"] for scan in record["scans"])
    assert "estimated by N4 within the brain and divided out" in (tmp_path / "out" / "report.html").read_text()


# Mistakes


def saved(path, data, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag((6.0, 6, 6, 1)) if affine is None else affine), path)
    return path


def noise(*shape):
    return np.random.default_rng(0).uniform(0, 100, shape).astype(np.float32)


def _truncated(folder):
    path = saved(folder / "a.nii", noise(12, 12, 12))
    path.write_bytes(path.read_bytes()[:2000])


def _flipped_bit(folder):
    path = saved(folder / "a.nii.gz", noise(12, 12, 12))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(bytes(data))


def _colours(folder):
    saved(folder / "a.nii", noise(12, 12, 12, 3).astype(np.uint8).view([(name, "u1") for name in "RGB"])[..., 0])


def _flat_affine(folder):
    path = saved(folder / "a.nii", noise(12, 12, 12))
    data = bytearray(path.read_bytes())
    data[312:328] = bytes(16)  # srow_z
    data[252:254] = bytes(2)  # no qform
    path.write_bytes(bytes(data))


def _cohort(folder):
    for number in range(51):
        saved(folder / f"{number}.nii", noise(8, 8, 8) + number)


def _dicom_without_image(folder):
    (folder / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))


BAD = {
    "an empty folder": (lambda folder: None, "patient holds no file"),
    "a folder of notes": (lambda folder: (folder / "a.txt").touch(), "no scan is there; give NIfTI"),
    "an empty file": (lambda folder: (folder / "a.nii").touch(), "a.nii is empty"),
    "a text": (lambda folder: (folder / "a.doc").write_text("scan"), "a.doc is no image of a kind that is known here"),
    "a text called NIfTI": (lambda folder: (folder / "a.nii").write_text("scan"), "a.nii is no image or is damaged"),
    "gzip without end": (lambda folder: (folder / "a.nii.gz").write_bytes(gzip.compress(noise(999))[:60]), "damaged"),
    "half a file": (_truncated, "a.nii is no image or is damaged"),
    "a flipped bit": (_flipped_bit, "a.nii.gz is no image or is damaged"),
    "a picture": (lambda folder: (folder / "a.png").write_bytes(b"x"), "a.png is a picture, not a scan"),
    "a mask": (lambda folder: saved(folder / "a.nii", (noise(12, 12, 12) > 50) * 1.0), "has 2 different values"),
    "a flat image": (lambda folder: saved(folder / "a.nii", np.ones((12, 12, 12))), "the same value in every voxel"),
    "NaN": (lambda folder: saved(folder / "a.nii", np.full((12, 12, 12), np.nan)), "NaN or infinite"),
    "four slices": (lambda folder: saved(folder / "a.nii", noise(12, 12, 4)), "has 4 slices; at least 5 are needed"),
    "a slice": (lambda folder: saved(folder / "a.nii", noise(12, 12)), "has 1 slice; at least 5 are needed"),
    "a series in time": (lambda folder: saved(folder / "a.nii", noise(12, 12, 12, 3)), "holds 3 volumes"),
    "thirty volumes": (lambda folder: saved(folder / "a.nii", noise(8, 8, 8, 30)), "holds 30 volumes"),
    "colours": (_colours, "holds 3 volumes, a series in time or colours"),
    "no affine": (_flat_affine, "of its header cannot be inverted; repair its sform"),
    "five axes": (lambda folder: saved(folder / "a.nii", noise(8, 8, 8, 2, 2)), "more than one axis beyond x, y and z"),
    "a mouse": (lambda folder: saved(folder / "a.nii", noise(9, 9, 9), np.eye(4)), "measures 9 x 9 x 9 mm"),
    "metres": (lambda folder: saved(folder / "a.nii", noise(9, 9, 9), 200 * np.eye(4)), "which is no head"),
    "a link to nothing": (lambda folder: (folder / "a.nii").symlink_to("gone.nii"), "a.nii is a link to nothing"),
    "a pipe": (lambda folder: os.mkfifo(folder / "a.nii"), "a.nii is no regular file"),
    "a link to a folder": (lambda folder: (folder / "a").symlink_to(folder.parent), "a is a link to a folder, which"),
    "a cohort": (_cohort, "more than 50 scans were found for one patient"),
    "half a pair": (lambda folder: (folder / "a.hdr").write_bytes(bytes(348)), "a.hdr"),
    "DICOM without an image": (_dicom_without_image, "a.dcm"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_segmented_ends_as_one_sentence(kind, tiny, tmp_path, capsys):
    make, says = BAD[kind]
    folder = tmp_path / "patient"
    folder.mkdir()
    make(folder)
    assert main(["segment", str(folder), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("segment", "--output", "out"), "give the scans of one patient, or many patients by --patients"),
        (("segment", "gone.nii", "--output", "out"), "gone.nii is not there"),
        (("segment", "patient"), "the following arguments are required: --output"),
        (("segment", "patient", "--output", "patient/0.nii.gz"), "--output patient/0.nii.gz is a file"),
        (("segment", "patient", "--output", "patient/0.nii.gz/out"), "since patient/0.nii.gz is a file"),
        (("segment", "patient", "--output", "loop"), "--output loop is a link to nothing"),
        (("segment", "patient", "--output", ""), "argument --output: the path is empty"),
        (("segment", "", "--output", "out"), "argument SCAN: the path is empty"),
        (("segment", "patient", "--output", "patient"), "--output patient holds the scans; give a folder of its own"),
        (("segment", "patient/0.nii.gz", "--output", "patient/."), "holds the scans; give a folder of its own"),
        (("segment", "patient", "--output", "out", "--space", "1cm"), "--space 1cm is no edge of voxels"),
        (("segment", "patient", "--output", "out", "--shard", "1/2"), "--shard is for many patients"),
        (("segment", "patient", "--output", "out", "--reference", "9.nii"), "reference 9.nii is none of the scans"),
        (("segment", "patient", "--output", "out", "--reference", "loop"), "reference loop is none of the scans"),
        (("segment", "patient", "--output", "out", "--grid-of", "9.nii"), "9.nii is no scan of this patient"),
        (("segment", "patient", "--output", "out", "--bids", "b"), "--bids b needs a label for the subject"),
        (("segment", "patient", "--output", "out", "--bids", "b", "--patient", "a b"), "cannot be a subject of BIDS"),
        (("segment", "patient", "--output", "out", "--spce", "1mm"), "did you mean --space?"),
        (("segment", "--patients", "gone", "--output", "out"), "--patients gone is not there"),
        (("segment", "--patients", "patient", "--output", "out"), "no folder is in it"),
        (("segment", "--patients", "patient/0.nii.gz", "--output", "out"), "patient/0.nii.gz is no text in UTF-8"),
        (("segment", "--patients", ".", "--output", "out"), "lies among the patients"),
        (("classify", "gone.nii"), "gone.nii is not there"),
        (("classify", "patient", "--bids-plan", "é"), "labels of BIDS hold letters and digits only"),
        (("classify", "patient", "--bids-plan", "a b"), "labels of BIDS hold letters and digits only"),
    ],
)
def test_a_wrong_word_ends_as_one_sentence(argv, says, patient, tiny, monkeypatch, capsys):
    monkeypatch.chdir(patient.parent)
    os.symlink("loop", "loop")
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (patient.parent / "out").exists()


def close(path, monkeypatch):
    """Makes a file or folder one that this user may not read, whoever that is: root may read everything."""

    def closed(asked):
        def ask(file, *words, **more):
            if str(file) == str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(file))
            return asked(file, *words, **more)

        return ask

    monkeypatch.setattr(Path, "open", closed(Path.open))
    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, closed(getattr(os, name)))


@pytest.mark.parametrize("name", ["in/a.nii", ".", "in"])
def test_what_this_user_may_not_read_ends_as_one_sentence(name, tiny, tmp_path, monkeypatch, capsys):
    saved(tmp_path / "patient" / "in" / "a.nii", noise(12, 12, 12))
    closed = tmp_path / "patient" / name
    close(closed, monkeypatch)
    assert main(["segment", str(tmp_path / "patient"), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert f"{closed.name} " in line
    assert "Permission denied" in line
    assert not (tmp_path / "out").exists()


def test_a_scan_that_this_user_may_not_read_costs_no_other_and_is_said(patient, tiny, tmp_path, monkeypatch, capsys):
    close(patient / "2.nii.gz", monkeypatch)
    assert main(["segment", str(patient), "--output", str(tmp_path / "out"), "--no-register"]) == 0
    assert "2.nii.gz could not be read: it may not be read by this user" in capsys.readouterr().out


def test_a_damaged_file_costs_no_other_and_is_said(patient, tiny, tmp_path, capsys):
    (patient / "3.nii").write_text("scan")
    out = tmp_path / "out"
    assert main(["segment", str(patient), "--output", str(out), "--no-register"]) == 0
    record = json.loads((out / "result.json").read_text())
    assert sum(scan["used"] for scan in record["scans"]) == 3
    assert record["flags"][0].startswith("3.nii could not be read: it is no image or is damaged")
    assert record["flags"][0] in capsys.readouterr().out


def test_a_name_that_no_terminal_can_show_stays_on_its_line_and_costs_nothing(patient, tiny, tmp_path, capsys):
    odd = patient / os.fsdecode(b"\xff\n\x1b[31m.nii.gz")
    (patient / "0.nii.gz").rename(odd)
    out, name = tmp_path / "out", r"\udcff\n\x1b[31m.nii.gz"
    assert main(["segment", str(patient), "--output", str(out), "--no-register", "--grid-of", name]) == 0
    assert f"{name}: " in capsys.readouterr().out
    assert len(table(out / "scans.tsv")) == 3
    record = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert [scan["files"] for scan in record["scans"] if scan["name"] == name] == [[str(odd)]]
    assert main(["classify", str(patient)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_masks_on_the_grids_of_scans_whose_names_differ_by_a_sign_are_two_files(patient, tiny, tmp_path):
    (patient / "x").mkdir()
    (patient / "0.nii.gz").rename(patient / "x" / "1.nii.gz")  # known by its folder from now on
    (patient / "2.nii.gz").rename(patient / "x-1.nii.gz")
    wanted = ["--grid-of", "x/1.nii.gz", "--grid-of", "x-1.nii.gz", "--grid-of", str(patient / "x-1.nii.gz")]
    assert main(["segment", str(patient), "--output", str(tmp_path / "out"), "--no-register", *wanted]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("mask_on_*")) == [
        "mask_on_x-1-2.nii.gz",
        "mask_on_x-1.nii.gz",
    ]


def test_either_file_of_a_pair_names_the_scan(tiny, tmp_path, capsys):
    nib.save(nib.Nifti1Pair(noise(12, 12, 12), np.diag((6.0, 6, 6, 1))), tmp_path / "a.hdr")
    for given in (["a.img"], ["a.hdr"], ["a.img", "a.hdr"]):
        assert main(["classify", *(str(tmp_path / name) for name in given)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2


# Classifying


def test_a_pile_of_scans_is_classified_and_names_are_proposed(patient, tiny, capsys):
    (patient / "mask.nii").touch()
    (patient / "empty").mkdir()
    words = [str(patient), str(patient / "empty"), "--format", "json", "--bids-plan", "07"]
    assert main(["classify", *words]) == 0
    *rows, empty, aside = json.loads(capsys.readouterr().out)
    assert empty["remark"] == "holds no file, or none that this user may see"
    assert [row["scan"] for row in rows] == ["0.nii.gz", "1.nii.gz", "2.nii.gz"]
    for row in rows:
        scores = [row[f"score_{name}"] for name in ("T1", "T2", "FLAIR")]
        assert sum(scores) == pytest.approx(1, abs=2e-4)
        assert row[f"score_{row['modality']}"] == max(scores)
        assert row["bids"].startswith("sub-07/anat/sub-07_")
    assert aside["scan"] == "mask.nii"
    assert aside["modality"] is None
    assert main(["classify", str(patient), "--format", "tsv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert not any(path.name.startswith("sub-") for path in patient.iterdir())


# Cohorts


def test_one_bad_patient_does_not_stop_the_others(patient, tiny, tmp_path, capsys):
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    for name in ("anna", "carl"):
        shutil.copytree(patient, cohort / name)
    (cohort / "bert").mkdir()
    (cohort / "bert" / "a.nii").touch()
    command = ["segment", "--patients", str(cohort), "--output", str(out), "--no-register"]
    assert main([*command, "--shard", "1/2"]) == 0  # anna and carl
    assert not (out / "bert").exists()
    made = (out / "anna" / "mask.nii.gz").stat().st_mtime_ns
    capsys.readouterr()
    assert main([*command, "--resume"]) == 1
    said = capsys.readouterr()
    assert "1 of 3 patients could not be segmented" in said.err
    assert "anna: done before" in said.out
    assert (out / "anna" / "mask.nii.gz").stat().st_mtime_ns == made
    assert "a.nii is empty" in (out / "bert" / "mistake.txt").read_text()
    rows = table(out / "patients.tsv")
    assert {row["patient"] for row in rows} == {"anna", "bert", "carl"}
    assert rows[0]["patient"] == "bert"
    assert (out / "index.html").is_file()

    (out / "anna" / "mistake.txt").write_text("a later run failed\n")
    assert main([*command, "--resume"]) == 1
    assert "anna: done before" not in capsys.readouterr().out
    assert (out / "anna" / "mask.nii.gz").stat().st_mtime_ns > made
    assert not (out / "anna" / "mistake.txt").exists()


def test_patients_are_found_in_tables_folders_and_bids_trees(tmp_path):
    for name in ("sub-02/ses-a/anat", "sub-02/ses-b/anat", "sub-01/anat", "derivatives"):
        (tmp_path / "bids" / name).mkdir(parents=True)
    found = find_patients(tmp_path / "bids")
    assert [patient.subject_id for patient in found] == ["sub-01", "sub-02_ses-a", "sub-02_ses-b"]
    assert found[2].paths == (tmp_path / "bids" / "sub-02" / "ses-b" / "anat",)
    listed = tmp_path / "list.tsv"
    listed.write_text("patient\tpath\nanna\ta/1.nii\nbert\tb\nanna\ta/2.nii\n")
    assert [(patient.subject_id, len(patient.paths)) for patient in find_patients(listed)] == [("anna", 2), ("bert", 1)]
    listed.write_text("patient\tpath\n../x\ta.nii\n")
    with pytest.raises(InputError, match="row 2: ../x cannot name a folder"):
        find_patients(listed)
