"""`pimms-tf segment` and `classify`: files in, files out, and one sentence for whatever cannot be used."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.commands import patient_cli
from pimms_tf.commands.cli import main


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
    monkeypatch.setattr(patient_cli, "_segmenter", lambda folder: segmenter)


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
