"""Cohorts: one bad file, a rerun, shards on several computers; each subject is done once, and nothing by halves."""

import os
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from niftynet_compat import ConfigError, load_config
from pimms_tf.actions import inference
from pimms_tf.actions.sharding import Shard, environment_command
from pimms_tf.commands.cli import main
from pimms_tf.errors import InputError
from pimms_tf.files import kernel_id
from pimms_tf.study import inference_study
from pimms_tf.study.task import task_of
from pimms_tf.study.trained import trained_model

ALL = {"dataset_to_infer": "all"}


@pytest.fixture
def cohort(study, hemis, eagerly):
    """A study of six subjects of one's own, with a HeMIS network."""
    shutil.copytree(hemis, study.folder, dirs_exist_ok=True)
    study.scans = study.copy_scans()
    study.write(NETWORK={"name": "hemis"}, INFERENCE=ALL)
    return study


def configured(study, *words):
    return load_config(study.folder / "x.ini", list(words), None, "inference")


def prepared(study, *words):
    return inference_study(configured(study, *words))


def output(study) -> Path:
    return study.folder / "model" / "output"


def contents(folder, *endings):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith(endings)}


def lists(study):
    return [(output(study) / name).read_bytes() for name in ("inferred.csv", "modality_scores.csv")]


def written(study):
    """When each file of the model folder was written."""
    return {path: path.stat().st_mtime_ns for path in (study.folder / "model").rglob("*") if path.is_file()}


def spoil(study, subject_id):
    path = study.scans / f"{subject_id}_FLAIR.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:4000])
    return path, whole


def times(study):
    return {path.name: path.stat().st_mtime_ns for path in output(study).glob("*.nii.gz")}


# Mistakes


def test_a_bad_file_ends_its_subject_and_all_others_are_done(cohort, caplog):
    bad, _ = spoil(cohort, "sub01")
    also_bad, _ = spoil(cohort, "sub04")
    with caplog.at_level("INFO"), pytest.raises(InputError, match="2 of 6 subjects could not be done: sub01, sub04"):
        inference.inference(prepared(cohort))
    assert f"2 of 6: sub01 failed: subject sub01, section [FLAIR], {bad}: is no image" in caplog.text
    assert "6 of 6: sub05" in caplog.messages
    done = ["sub00", "sub02", "sub03", "sub05"]
    assert sorted(contents(output(cohort), ".nii.gz")) == [f"{name}_niftynet_out.nii.gz" for name in done]
    assert [line.split(b",")[0].decode() for line in lists(cohort)[0].splitlines()] == done
    assert not [path for path in cohort.folder.rglob(".*") if path.name.startswith(".sub")]


def test_a_single_mistake_is_told_in_full(cohort):
    bad, _ = spoil(cohort, "sub05")
    with pytest.raises(InputError, match=f"1 of 6 subjects could not be done: subject sub05.*{bad.name}.*copy"):
        inference.inference(prepared(cohort))


def test_whatever_goes_wrong_with_one_subject_the_others_are_done(cohort, caplog):
    link, small = cohort.scans / "sub01_T1.nii.gz", cohort.scans / "sub03_T2.nii.gz"
    spoil(cohort, "sub05")
    link.unlink()
    link.symlink_to("../annex/sub01_T1.nii.gz")
    image = nib.load(small)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1e6, 1e6, 1e6, 1]) @ image.affine), small)
    cohort.write(NETWORK={"name": "hemis"}, INFERENCE=ALL, T2={"pixdim": "(6, 6, 6)"})
    with caplog.at_level("INFO"), pytest.raises(InputError, match="3 of 6 subjects could not be done"):
        inference.inference(prepared(cohort))
    assert f"2 of 6: sub01 failed: subject sub01, section [T1], {link}: is a link to ../annex" in caplog.text
    assert f"4 of 6: sub03 failed: subject sub03, section [T2], {small}: " in caplog.text
    assert "voxels of (6e+06, 6e+06, 6e+06) mm would become" in caplog.text
    assert len(contents(output(cohort), ".nii.gz")) == 3


def test_a_fault_of_ours_ends_its_subject_and_is_raised_when_the_others_are_done(cohort, caplog, monkeypatch):
    read = inference._Run.read

    def faulty(run, files):
        if files.subject_id in ("sub00", "sub02"):
            raise {"sub00": MemoryError("Unable to allocate 307 TiB"), "sub02": ZeroDivisionError("by zero")}[
                files.subject_id
            ]
        return read(run, files)

    monkeypatch.setattr(inference._Run, "read", faulty)
    with caplog.at_level("INFO"), pytest.raises(ZeroDivisionError):
        inference.inference(prepared(cohort))
    assert "sub00 failed: there is not enough memory for it (Unable to allocate 307 TiB)" in caplog.text
    assert "sub02 failed: ZeroDivisionError: by zero" in caplog.text
    assert "2 of 6 subjects could not be done: sub00, sub02" in caplog.text
    assert len(contents(output(cohort), ".nii.gz")) == 4


def test_scans_of_nothing_but_zeros_are_named(cohort, caplog):
    path = cohort.scans / "sub02_T2.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.int16), image.affine), path)
    with caplog.at_level("INFO"):
        inference.inference(prepared(cohort))
    assert [message for message in caplog.messages if "0 in every voxel" in message] == [
        f"subject sub02: 0 in every voxel, and so absent: [T2] {path}"
    ]


# Resuming


def test_a_rerun_does_what_is_missing_and_nothing_else(cohort, caplog):
    bad, whole = spoil(cohort, "sub03")
    with pytest.raises(InputError):
        inference.inference(prepared(cohort))
    first = times(cohort)
    bad.write_bytes(whole)
    inference.inference(prepared(cohort), resume=True)
    second = times(cohort)
    assert second == first | {"sub03_niftynet_out.nii.gz": second["sub03_niftynet_out.nii.gz"]}
    resumed = lists(cohort)
    inference.inference(prepared(cohort))
    assert lists(cohort) == resumed
    assert all(after > before for after, before in zip(times(cohort).values(), second.values(), strict=True))


def test_stale_results_are_done_again(cohort, monkeypatch):
    inference.inference(prepared(cohort))
    first = times(cohort)

    def done_again(*words):
        inference.inference(prepared(cohort, *words), resume=True)
        again = times(cohort)
        changed = [name[:5] for name in sorted(again) if again[name] != first.get(name)]
        first.update(again)
        return changed

    everybody = [f"sub{number:02}" for number in range(6)]
    assert done_again() == []
    scan = cohort.scans / "sub02_T1.nii.gz"
    image = nib.load(scan)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 1.5 + 1, image.affine), scan)
    assert done_again() == ["sub02"]
    (output(cohort) / "sub04_niftynet_out.nii.gz").write_bytes(b"something else")
    (output(cohort) / "sub05_niftynet_out.nii.gz").unlink()
    assert done_again() == ["sub04", "sub05"]
    assert done_again("--inference_mode", "windows") == everybody
    assert done_again("--inference_mode", "windows", "--inference_iter", "2") == everybody
    words = ("--inference_mode", "windows", "--inference_iter", "2")
    retrained = trained_model(configured(cohort, *words), task_of(configured(cohort, *words)))
    retrained.variables[0].assign(retrained.variables[0] + 0.5)
    monkeypatch.setattr(inference, "trained_model", lambda config, task: retrained)
    assert done_again(*words) == everybody


# Shards


def test_one_three_and_eight_shards_make_the_same_files(cohort):
    inference.inference(prepared(cohort))
    expected = contents(output(cohort), ".nii.gz"), lists(cohort)
    for count in (3, 8):
        shutil.rmtree(output(cohort))
        for number in range(count, 0, -1):
            inference.inference(prepared(cohort), Shard(number, count))
        parts = contents(output(cohort), ".csv")
        assert len(parts) == 2 * min(count, 6)
        assert "inferred.csv" not in parts
        inference.merge(prepared(cohort), count)
        assert (contents(output(cohort), ".nii.gz"), lists(cohort)) == expected
        union = b"".join(parts[f"inferred.shard-{number}-of-{count}.csv"] for number in range(1, min(count, 6) + 1))
        assert sorted(union.splitlines()) == sorted(expected[1][0].splitlines())


def test_a_merge_names_who_is_missing_and_in_which_shard_and_writes_nothing(cohort):
    inference.inference(prepared(cohort), Shard(1, 4))
    before = written(cohort)
    inference.inference(prepared(cohort), Shard(3, 4))
    after = written(cohort)
    assert {path.name for path, time in before.items() if after[path] != time} <= {"inference_niftynet_log"}
    with pytest.raises(InputError, match="3 of 6 subjects have no result") as complaint:
        inference.merge(prepared(cohort), 4)
    assert "sub01 (shard 2 of 4), sub03 (shard 4 of 4), sub05 (shard 2 of 4); run shards 2,4" in str(complaint.value)
    assert str(complaint.value).endswith("sbatch --array=2,4")
    assert not (output(cohort) / "inferred.csv").exists()


def test_a_merge_refuses_results_of_changed_files_and_of_different_settings(cohort):
    inference.inference(prepared(cohort), Shard(1, 2))
    inference.inference(prepared(cohort, "--inference_mode", "windows"), Shard(2, 2))
    with pytest.raises(InputError, match="come from 2 runs with different weights or settings"):
        inference.merge(prepared(cohort), 2)
    inference.inference(prepared(cohort), Shard(2, 2), resume=True)
    os.utime(cohort.scans / "sub05_T2.nii.gz")  # the same bytes
    edit_and_set_back(cohort.scans / "sub03_T2.nii.gz")
    with pytest.raises(InputError, match=r"1 of 6 .* of their present files .*: sub03 \(shard 2 of 2\); run"):
        inference.merge(prepared(cohort), 2)
    inference.inference(prepared(cohort), Shard(2, 2), resume=True)
    inference.merge(prepared(cohort), 2)
    assert len(lists(cohort)[0].splitlines()) == 6


def edit_and_set_back(path):
    found, image = path.stat(), nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 1.5 + 1, image.affine), path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_shards_may_prepare_scans_in_folders_of_their_own_but_not_in_ways_of_their_own(cohort):
    for number in (1, 2):
        inference.inference(prepared(cohort, "--cache", f"cache_{number}"), Shard(number, 2))
    first = times(cohort)
    inference.merge(prepared(cohort), 2)
    inference.inference(prepared(cohort, "--cache", "off"), resume=True)
    assert times(cohort) == first
    cohort.write(NETWORK={"name": "hemis"}, INFERENCE=ALL, T1={"interp_order": 1})
    inference.inference(prepared(cohort), Shard(2, 2), resume=True)
    assert {name[:5] for name, time in times(cohort).items() if time != first[name]} == {"sub01", "sub03", "sub05"}
    with pytest.raises(InputError, match="come from 2 runs with different weights or settings"):
        inference.merge(prepared(cohort), 2)


def test_half_precision_is_asked_for_apart_from_that_of_training(cohort, bfloat16):
    whole, training, half = (
        probability_of_the_first(cohort, *words)
        for words in ((), ("--precision", "mixed_bfloat16"), ("--inference_precision", "mixed_bfloat16"))
    )
    np.testing.assert_array_equal(whole, training)
    assert 0 < np.abs(half - whole).max() < 0.05  # some units in the third digit, which is bfloat16's last


def probability_of_the_first(study, *words):
    inference.inference(prepared(study, "--output_prob", "True", *words), Shard(1, 6))
    (path,) = output(study).glob("*.nii.gz")
    return nib.load(path).get_fdata()


def test_a_run_says_what_the_cache_was_good_for(cohort, caplog):
    with caplog.at_level("INFO"):
        for found in (0, 6):
            inference.inference(prepared(cohort, "--cache", "prepared"))
            assert f"prepared: {found} found, {6 - found} prepared, 6 entries" in caplog.text


def test_a_file_that_goes_away_ends_its_subject_as_a_mistake(cohort, monkeypatch, caplog):
    scan, read = cohort.scans / "sub02_T1.nii.gz", inference.overlapped

    def meanwhile(*steps):
        scan.unlink()
        return read(*steps)

    monkeypatch.setattr(inference, "overlapped", meanwhile)
    with pytest.raises(InputError, match=f"1 of 6 subjects could not be done: subject sub02, .*{scan.name}"):
        inference.inference(prepared(cohort))


@pytest.mark.slow
def test_shards_of_every_subset_are_merged_too(cohort):
    words = ("--subsets", "True")
    (cohort.scans / "sub02_T1.nii.gz").unlink()
    for number in (1, 2):
        inference.inference(prepared(cohort, *words), Shard(number, 2))
    inference.merge(prepared(cohort, *words), 2)
    rows = (output(cohort) / "subset_T1" / "inferred.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["sub00", "sub01", "sub03", "sub04", "sub05"]
    first = (output(cohort) / "subset_T1" / "sub00_niftynet_out.nii.gz").stat().st_mtime_ns
    inference.inference(prepared(cohort, *words), resume=True)
    assert (output(cohort) / "subset_T1" / "sub00_niftynet_out.nii.gz").stat().st_mtime_ns == first


def test_the_command_line_knows_shards_merges_and_reruns(cohort, capsys):
    for number in (1, 2):
        assert cohort("inference", "x.ini", "--shard", f"{number}/2") == 0
    assert cohort("inference", "x.ini", "--merge", "2") == 0
    first = times(cohort)
    assert cohort("inference", "x.ini", "--resume") == 0
    assert times(cohort) == first
    assert cohort("inference", "x.ini", "--shard", "3/2") == 2
    assert cohort("inference", "x.ini", "--merge", "0") == 2
    assert cohort("inference", "x.ini", "--merge", "2", "--shard", "1/2") == 2
    assert cohort("slurm", "x.ini", "--shards", "5", "--save_seg_dir", "there") == 0
    script = (cohort.folder / "run.sbatch").read_text()
    assert f"srun {shlex.join(environment_command())} inference x.ini --save_seg_dir there --shard" in script
    assert (cohort.folder / "run.merge.sbatch").is_file()
    assert f"cd {cohort.folder}\n" in script
    assert cohort("slurm", "x.ini") == 2
    captured = capsys.readouterr()
    assert f"    job=$(sbatch --parsable {cohort.folder}/run.sbatch)\n" in captured.out
    assert "run.sbatch is there already" in captured.err


# Slices or windows


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], True),
        (["--inference_mode", "windows"], False),
        (["--inference_mode", "slices", "--preset", "niftynet2018", "--mask_scope", "sample"], True),
        (["--preset", "niftynet2018"], False),
        (["--preset", "niftynet2018", "--mask_scope", "sample"], False),
        (["--window_sampling", "resize"], False),
        (["--spatial_rank", "3"], False),
        (["--name", "pimms_soft", "--classifier_scope", "window"], False),
        (["--name", "pimms_soft"], True),
        (["--mask_scope", "batch"], False),
        (["--name", "modality_classifier"], False),
    ],
)
def test_whole_slices_are_taken_where_they_give_the_same_as_windows_should(study, words, expected):
    study.write(NETWORK={"name": "hemis"})
    assert prepared(study, *words).whole_slices is expected


@pytest.mark.parametrize(
    ("words", "obstacle"),
    [
        (["--window_sampling", "resize"], "window_sampling = resize"),
        (["--spatial_rank", "3"], "spatial_rank = 3"),
        (["--classifier_scope", "window"], "classifier_scope = window"),
        (["--mask_scope", "batch"], "mask_scope = batch"),
    ],
)
def test_slices_that_cannot_be_had_are_refused(study, words, obstacle):
    with pytest.raises(ConfigError, match=f"x.ini: .* cannot be had with {obstacle}; take windows, or auto"):
        prepared(study, "--inference_mode", "slices", *words)


def test_a_full_length_along_z_is_segmented_slice_by_slice(cohort, caplog):
    masks = []
    for window in ("(24, 24, 1)", "(24, 24, 0)"):
        cohort.write(NETWORK={"name": "hemis"}, INFERENCE={"spatial_window_size": window, "border": "(6, 6, 0)"})
        assert main(["check", "x.ini", "--action", "inference", "--fast", "--inference_mode", "windows"]) == 0
        inference.inference(prepared(cohort, "--inference_mode", "windows"))
        masks.append(contents(output(cohort), ".nii.gz"))
    assert masks[0] == masks[1]


def test_windows_that_are_thick_everywhere_are_refused_for_slices_before_any_subject(study):
    study.write(NETWORK={"name": "hemis"}, INFERENCE={"spatial_window_size": "(24, 24, 8)"})
    with pytest.raises(ConfigError, match=r"x.ini: spatial_window_size = \(24, 24, 8\) is a volume, but the network"):
        prepared(study, "--spatial_rank", "2")


def test_slices_and_windows_with_a_wide_border_give_the_same_files(cohort):
    some = ("--output_prob", "True", "--dataset_to_infer", "inference")
    inference.inference(prepared(cohort, *some))
    slices = {name: nib.load(output(cohort) / name).get_fdata() for name in contents(output(cohort), ".nii.gz")}
    wide = ["--spatial_window_size", "34,34,1", "--border", "6,6,0", "--inference_mode", "windows"]
    inference.inference(prepared(cohort, *some, *wide))
    assert len(slices) == 2
    for name, found in slices.items():
        np.testing.assert_allclose(nib.load(output(cohort) / name).get_fdata(), found, atol=1e-5)


# Folders that cannot be written, and what killed runs left


def test_a_model_folder_that_nobody_can_write_serves_inference_and_evaluation(cohort, read_only, capsys):
    before = {path: path.stat().st_mtime_ns for path in (cohort.folder / "model").rglob("*")}
    read_only(cohort.folder / "model")
    words = ["--save_seg_dir", str(cohort.folder / "out"), "--save_csv_dir", str(cohort.folder / "scores")]
    assert cohort("inference", "x.ini", *words, "--shard", "1/2") == 0
    assert cohort("inference", "x.ini", *words, "--shard", "2/2") == 0
    said = capsys.readouterr().out
    assert f"settings, log, lists and records of this run are in {cohort.folder / 'out' / 'run_notes'}" in said
    assert "not written" not in said
    assert cohort("inference", "x.ini", *words, "--merge", "2") == 0
    assert cohort("evaluation", "x.ini", *words) == 0
    notes = {path.name for path in (cohort.folder / "out" / "run_notes").iterdir()}
    assert notes >= {"settings_inference.txt", "inference_niftynet_log", "records", "FLAIR.csv"}
    assert (cohort.folder / "scores" / "run_notes" / "settings_evaluation.txt").is_file()
    assert (cohort.folder / "scores" / "evaluation.csv").is_file()
    assert before == {path: path.stat().st_mtime_ns for path in (cohort.folder / "model").rglob("*")}


def test_those_who_can_write_the_model_folder_find_the_records_of_those_who_cannot(cohort, read_only, mount, capsys):
    words = ["--save_seg_dir", str(cohort.folder / "out")]
    read_only(cohort.folder / "model")
    assert cohort("inference", "x.ini", *words, "--shard", "1/1") == 0
    mount(cohort.folder / "model", "-o", "remount,bind,rw")
    capsys.readouterr()
    assert cohort("inference", "x.ini", *words, "--merge", "1") == 0
    assert not (cohort.folder / "model" / "records").exists()


def test_results_that_can_be_written_nowhere_are_refused_before_the_first_subject(cohort, read_only, capsys):
    read_only(cohort.folder / "model")
    assert cohort("inference", "x.ini") == 2
    said = capsys.readouterr()
    assert "cannot be written (Read-only file system), nor can save_seg_dir" in said.err
    assert "give save_seg_dir a folder that can" in said.err
    assert "1 of 6" not in said.out


def test_a_full_disk_ends_a_subject_with_one_sentence_and_leaves_no_half_of_it(cohort, small_disk, capsys):
    folder = small_disk("8k")
    assert cohort("inference", "x.ini", "--save_seg_dir", str(folder)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_killed_runs_left_goes_when_the_next_one_starts(cohort):
    left = [
        folder / f".{name}.x7_k2abc"
        for folder, name in (
            (cohort.folder / "model", "settings_inference.txt"),
            (cohort.folder / "model" / "models", "model.ckpt-5.writing"),
            (output(cohort), "sub01_niftynet_out.nii.gz"),
        )
    ]
    for scratch in left:
        scratch.mkdir(parents=True)
        (scratch / ".writer").write_text(kernel_id())
    assert cohort("inference", "x.ini") == 0
    assert not [scratch for scratch in left if scratch.exists()]


# The order of scans


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("pimms_online", {"inference_mode": "slices"}),
        ("pimms_online", {"inference_mode": "windows"}),
        ("pimms_online", {"classifier_scope": "window"}),
        ("pimms_soft", {}),
        ("pimms_hard", {}),
        ("hemis", {}),
    ],
)
def test_the_order_of_sections_changes_no_byte(study, trained, hemis, classifier, eagerly, network, changes):
    if network in ("pimms_soft", "pimms_hard"):
        changes = {"segmenter": hemis / "model", "classifier": classifier / "model"}
    else:
        shutil.copytree((trained if network == "pimms_online" else hemis) / "model", study.folder / "model")
    masks, scores = [], []
    for name, image in (("one", "T1,T2,FLAIR"), ("other", "FLAIR,T1,T2")):
        study.write(
            NETWORK={"name": network},
            SEGMENTATION={"image": image, "output_prob": True},
            SYSTEM={"dataset_split_file": hemis / "model" / "dataset_split.csv"},
            PIMMS={"modalities": "T1,T2,FLAIR", **changes},
        )
        assert study("inference", "x.ini", "--save_seg_dir", str(study.folder / name)) == 0
        masks.append(contents(study.folder / name, ".nii.gz"))
        scores.append(sorted((study.folder / name / "modality_scores.csv").read_text(encoding="utf-8").splitlines()))
    assert len(masks[0]) == 2
    assert masks[0] == masks[1]
    assert scores[0] == scores[1]
