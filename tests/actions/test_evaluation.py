"""Evaluation of a cohort in which something is wrong with some subjects: the others get their table."""

import csv
import shutil

import nibabel as nib
import numpy as np
import pytest

from niftynet_compat import load_config
from pimms_tf.actions.evaluation import evaluation
from pimms_tf.check import Level, check_config
from pimms_tf.errors import InputError
from pimms_tf.study import evaluation_study


@pytest.fixture
def cohort(study):
    """A study of six subjects, all of them segmented, with a section that names the segmentations."""
    study.scans = study.copy_scans()
    found = study.folder / "found"
    found.mkdir()
    for path in study.scans.glob("*_lesion.nii.gz"):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj).copy()
        voxels[:14] = 0
        nib.save(nib.Nifti1Image(voxels, image.affine), found / path.name.replace("lesion", "found"))
    section = {"path_to_search": found, "filename_contains": "_found"}
    study.write(SEGMENTATION={"inferred": "found"}, found=section)
    return study


def configured(study, *words):
    return load_config(study.folder / "x.ini", list(words), None, "evaluation")


def checked(study, *words):
    report = check_config(study.folder / "x.ini", list(words), action="evaluation")
    return [finding.text for finding in report.findings if finding.level is Level.MISTAKE]


def table(study, name="evaluation.csv"):
    with open(study.folder / "model" / "evaluation" / name, newline="") as file:
        return list(csv.DictReader(file))


def rewrite(path, change=lambda voxels: voxels, shift_mm=0.0):
    image = nib.load(path)
    affine = image.affine.copy()
    affine[1, 3] += shift_mm
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), affine), path)


def test_subjects_that_cannot_be_scored_are_named_and_cost_the_others_no_table(cohort, caplog):
    good = evaluation(evaluation_study(configured(cohort)))
    assert "over 6 subjects" in good
    before = {row["subject_id"]: row for row in table(cohort)}
    label, found = (lambda n: cohort.scans / f"sub0{n}_lesion.nii.gz"), cohort.folder / "found"
    rewrite(label(0), shift_mm=10)
    rewrite(label(1), lambda voxels: (voxels * 255).astype(np.uint8))
    (found / "sub02_found.nii.gz").unlink()
    (found / "sub02_found.nii.gz").symlink_to("../annex/sub02.nii.gz")
    (found / "sub03_found.nii.gz").write_bytes(b"no image")
    (found / "sub04_found.nii.gz").unlink()
    (found / "sub04_found.nii.gz").symlink_to(label(4))
    with caplog.at_level("INFO"), pytest.raises(InputError) as caught:
        evaluation(evaluation_study(configured(cohort, "--evaluations", "dice")))
    assert str(caught.value).startswith("5 of 6 subjects could not be done: sub00, sub01, sub02, sub03, sub04; ")
    assert table(cohort) == [before["sub05"]]
    assert [row["subject_id"] for row in table(cohort, "eval_subject_id_label.csv")] == ["sub05"]
    assert "over 1 subject;" in caplog.text
    reasons = {
        "sub00": "are not on one grid",
        "sub01": "has label values [255] outside 0 to 1",
        "sub02": "is a link to ../annex/sub02.nii.gz, where no file is",
        "sub03": "is no image or is damaged",
        "sub04": "are the same file",
    }
    mistakes = checked(cohort)
    for subject_id, reason in reasons.items():
        assert any(f"{subject_id} (all scans) failed: " in text and reason in text for text in caplog.messages), reason
        # The label value is judged for all subjects at once there, in words of its own.
        wanted = "label value 255 of 1 subject" if subject_id == "sub01" else reason
        assert any(subject_id in text and wanted in text for text in mistakes), mistakes
    assert len(mistakes) == len(reasons)


def test_nothing_is_written_if_nobody_can_be_scored(cohort):
    for path in cohort.scans.glob("*_lesion.nii.gz"):
        rewrite(path, lambda voxels: (voxels * 255).astype(np.uint8))
    with pytest.raises(InputError, match=r"6 of 6 subjects .* label values \[255\] outside 0 to 1"):
        evaluation(evaluation_study(configured(cohort)))
    assert not (cohort.folder / "model" / "evaluation").exists()


def test_a_segmentation_that_is_gone_from_the_list_of_inference_is_its_subjects_mistake(cohort):
    output = cohort.folder / "model" / "output"
    output.mkdir(parents=True)
    lines = []
    for number in range(6):
        path = shutil.copy(cohort.folder / "found" / f"sub0{number}_found.nii.gz", output / f"sub0{number}.nii.gz")
        lines.append(f"sub0{number},{path}\n")
    (output / "inferred.csv").write_text("".join(lines))
    (output / "sub03.nii.gz").unlink()
    cohort.write()
    with pytest.raises(InputError, match=r"1 of 6 subjects could not be done: subject sub03, .*sub03.nii.gz: does not"):
        evaluation(evaluation_study(configured(cohort)))
    assert len(table(cohort)) == 5
    assert len(checked(cohort)) == 1


def test_other_pathology_of_the_challenge_counts_neither_way_and_is_no_mistake(cohort):
    evaluation(evaluation_study(configured(cohort)))
    before = table(cohort)[0]
    rewrite(cohort.scans / "sub00_lesion.nii.gz", lambda voxels: np.where(voxels[::-1] * (voxels == 0), 2, voxels))
    evaluation(evaluation_study(configured(cohort)))
    assert checked(cohort) == []
    assert table(cohort)[0]["reference_ml"] == before["reference_ml"]
