"""A run writes over nothing that its configuration reads, by whatever name it would."""

import shutil

import pytest

from niftynet_compat import ConfigError, load_config
from pimms_tf.actions.evaluation import evaluation
from pimms_tf.check import Level, check_config
from pimms_tf.study import evaluation_study, inference_study, training_study
from pimms_tf.study.overwriting import InputFiles
from pimms_tf.study.study import results_of_inference
from pimms_tf.study.task import task_of

ALL = {"dataset_to_infer": "all"}


@pytest.fixture
def cohort(study):
    """A study of six subjects of one's own."""
    study.scans = study.copy_scans()
    study.write(INFERENCE=ALL)
    return study


def configured(study, *words, action="inference"):
    return load_config(study.folder / "x.ini", list(words), None, action)


def refused(study, *words, match):
    before = {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=match):
        inference_study(configured(study, *words))
    report = check_config(study.folder / "x.ini", list(words), action="inference", fast=True)
    texts = [finding.text for finding in report.findings if finding.level is Level.MISTAKE]
    assert any("would be written over" in text for text in texts), texts
    assert {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("postfix", "section"), [("_T1", "T1"), ("_lesion", "lesion")])
def test_results_are_not_written_over_scans_or_references(cohort, postfix, section):
    match = rf"sub00{postfix}.nii.gz would be written over, but is .* of section \[{section}\], and 5 more"
    refused(cohort, "--save_seg_dir", str(cohort.scans), "--output_postfix", postfix, match=match)
    inference_study(configured(cohort, "--save_seg_dir", str(cohort.scans), "--output_postfix", "_new"))


def test_folders_and_files_that_are_links_hide_nothing(cohort):
    (cohort.folder / "linked").symlink_to(cohort.scans)
    words = ["--save_seg_dir", str(cohort.folder / "linked"), "--output_postfix"]
    refused(cohort, *words, "_T1", match=r"linked/sub00_T1.nii.gz would be written over, but is .*scans/sub00_T1")
    output = cohort.folder / "output"
    output.mkdir()
    (output / "sub03_soft.nii.gz").symlink_to(cohort.scans / "sub03_T2.nii.gz")
    (output / "sub04_hard.nii.gz").hardlink_to(cohort.scans / "sub04_T2.nii.gz")
    words = ["--save_seg_dir", str(output), "--output_postfix"]
    refused(cohort, *words, "_soft", match=r"sub03_soft.nii.gz would be written over, but is .*sub03_T2.nii.gz")
    refused(cohort, *words, "_hard", match=r"sub04_hard.nii.gz would be written over, but is .*sub04_T2.nii.gz")


def test_scans_that_are_links_are_not_replaced_by_results(cohort):
    linked = cohort.folder / "linked"
    linked.mkdir()
    for path in cohort.scans.iterdir():
        (linked / path.name).symlink_to(path)
    cohort.scans = linked
    cohort.write(INFERENCE=ALL)
    refused(cohort, "--save_seg_dir", str(linked), "--output_postfix", "_T1", match=r"linked/sub00_T1")


def test_lists_that_sections_read_are_not_replaced_by_lists_of_results(cohort):
    output = cohort.folder / "model" / "output"
    output.mkdir(parents=True)
    text = "".join(f"sub0{number},{cohort.scans / f'sub0{number}_T1.nii.gz'}\n" for number in range(6))
    (output / "inferred.csv").write_text(text)
    cohort.write(INFERENCE=ALL, T1={"csv_file": output / "inferred.csv"})
    refused(cohort, match=r"inferred.csv would be written over, but is .* of section \[T1\]")


def test_sections_that_nothing_uses_are_protected_and_those_of_results_are_not(cohort):
    other = cohort.folder / "other"
    other.mkdir()
    shutil.copy(cohort.scans / "sub00_T1.nii.gz", other / "sub00_PD.nii.gz")
    section = {"path_to_search": other, "filename_contains": "_PD"}
    words = ["--save_seg_dir", str(other), "--output_postfix", "_PD"]
    cohort.write(INFERENCE=ALL, PD=section)
    refused(cohort, *words, match=r"is .*other/sub00_PD.nii.gz of section \[PD\]")
    cohort.write(INFERENCE=ALL, SEGMENTATION={"inferred": "PD"}, PD=section)
    inference_study(configured(cohort, *words))
    assert InputFiles(configured(cohort, action="evaluation")).owner_of(other / "sub00_PD.nii.gz")


@pytest.mark.parametrize("postfix", ["/../../x", "_a/b", "\\x"])
def test_a_postfix_makes_no_paths_of_names(cohort, postfix):
    config = configured(cohort)
    with pytest.raises(ConfigError, match="output_postfix = .* would put results elsewhere"):
        results_of_inference(
            load_config(config.path, {"output_postfix": postfix}, None, "inference"), task_of(config), ["s1"]
        )


def test_evaluation_and_training_write_over_no_list_either(cohort):
    lists = cohort.folder / "lists"
    lists.mkdir()
    text = "".join(f"sub0{number},{cohort.scans / f'sub0{number}_lesion.nii.gz'}\n" for number in range(6))
    (lists / "evaluation.csv").write_text(text)
    found = {"path_to_search": cohort.scans, "filename_contains": "_T1"}
    cohort.write(lesion={"csv_file": lists / "evaluation.csv"}, SEGMENTATION={"inferred": "found"}, found=found)
    with pytest.raises(ConfigError, match="evaluation.csv would be written over"):
        evaluation(evaluation_study(configured(cohort, "--save_csv_dir", str(lists), action="evaluation")))
    words = ["--histogram_ref_file", str(lists / "evaluation.csv")]
    with pytest.raises(ConfigError, match="evaluation.csv would be written over"):
        training_study(configured(cohort, *words, action="training"))
    assert (lists / "evaluation.csv").read_text() == text
