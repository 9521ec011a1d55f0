"""Settings → objects: tasks, subjects, loaders, windows, losses."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from niftynet_compat import ConfigError, Phase, load_config, write_mapping
from pimms_tf.data.grids import Grid
from pimms_tf.data.resizing import resized
from pimms_tf.data.subjects import Subject, restore
from pimms_tf.errors import InputError
from pimms_tf.study import cohort, mappings, network, training_study
from pimms_tf.study import task as tasks
from pimms_tf.study.preparing import preparation_of
from pimms_tf.study.study import check_volumes
from pimms_tf.study.task import resumed
from pimms_tf.study.windows import training_windows, validation_windows


def config_of(study, action="train", **changes):
    return load_config(study.write(**changes), action=action)


def task_of(study, action="train", **changes):
    return tasks.task_of(config_of(study, action, **changes))


# Where training starts


@pytest.mark.parametrize(
    ("present", "asked", "start"),
    [((), 0, 0), ((), -1, 0), ((), 7, 7), ((5, 9), 0, 9), ((5, 9), -1, 9), ((5, 9), 5, 9), ((0,), 0, -1)],
)
def test_a_training_that_resumes_takes_the_latest_checkpoint_or_begins(study, present, asked, start):
    (study.folder / "model" / "models").mkdir(parents=True)
    for number in present:
        (study.folder / "model" / "models" / f"model.ckpt-{number}.index").touch()
    changes = {"TRAINING": {"starting_iter": asked}, "PIMMS": {"resume": True}}
    assert resumed(config_of(study, **changes)).training.starting_iter == start
    changes["PIMMS"]["resume"] = False
    assert resumed(config_of(study, **changes)).training.starting_iter == asked


def test_variables_of_another_training_are_taken_at_the_first_start_alone(study):
    changes = {"TRAINING": {"starting_iter": 5, "vars_to_restore": "backend"}, "PIMMS": {"resume": True}}
    (study.folder / "model" / "models").mkdir(parents=True)
    (study.folder / "model" / "models" / "model.ckpt-5.index").touch()
    assert resumed(config_of(study, **changes)).training.vars_to_restore == "backend"
    (study.folder / "model" / "models" / "model.ckpt-6.index").touch()
    assert resumed(config_of(study, **changes)).training.vars_to_restore == ""
    changes["TRAINING"]["starting_iter"] = -1
    with pytest.raises(ConfigError, match="vars_to_restore with resume needs the number of the checkpoint .*such as 6"):
        resumed(config_of(study, **changes))


@pytest.mark.usefixtures("eagerly")
def test_one_command_serves_the_first_start_and_every_later_one(study, capsys):
    for number in (1, 2):
        assert study("train", "x.ini", "--resume", "--max_iter", str(number)) == 0
    said = capsys.readouterr().out
    assert "resume: there is no checkpoint, so training begins" in said
    assert "resume: goes on from iteration 1" in said
    assert sorted(path.stem for path in (study.folder / "model" / "models").glob("*.index")) == [
        "model.ckpt-1",
        "model.ckpt-2",
    ]


# Tasks


def test_without_further_words_every_section_of_image_is_a_modality(study):
    task = task_of(study)
    assert task.modalities == task.scans == ("T1", "T2", "FLAIR")
    assert task.slot_modality == (0, 1, 2)
    assert (task.variant, task.num_classes, task.label, task.permute) == ("online", 2, "lesion", True)
    assert tasks.real_modalities(task) == ("T1", "T2", "FLAIR")


def test_modalities_may_be_named_in_another_order_than_the_sections(study):
    task = task_of(study, PIMMS={"modalities": "FLAIR,T1,T2", "image_modalities": "T1,T1,FLAIR"})
    assert task.modalities == ("FLAIR", "T1", "T2")
    assert task.slot_modality == (1, 1, 0)


def test_sections_that_are_no_modalities_are_unknown(study):
    assert task_of(study, PIMMS={"modalities": "T1,PD"}).slot_modality == (0, -1, -1)


def test_a_class_for_empty_slots_stands_first(study):
    task = task_of(study, PIMMS={"null_class": True})
    assert task.modalities == ("empty", "T1", "T2", "FLAIR")
    assert task.slot_modality == (1, 2, 3)
    assert tasks.real_modalities(task) == ("T1", "T2", "FLAIR")


@pytest.mark.parametrize(
    ("name", "variant", "permute"),
    [
        ("hemis", "hemis", False),
        ("pimms_hard", "hard", True),
        ("niftynet.contrib.hemis_midl.hemis.HeMIS", "online", True),
    ],
)
def test_network_names_stand_for_variants_and_only_hemis_keeps_its_scans_in_order(study, name, variant, permute):
    task = task_of(study, NETWORK={"name": name})
    assert (task.variant, task.permute) == (variant, permute)


def test_choices_in_the_file_override_those_of_the_preset(study):
    task = task_of(study, PIMMS={"preset": "niftynet2018", "frontend": "paper", "abstraction_ddof": 1})
    assert task.choices["frontend"] == "paper"
    assert task.choices["abstraction_ddof"] == 1
    assert task.choices["abstraction_missing"] == "zeros"
    assert task.null_class


def test_the_number_of_modality_classes_has_to_fit_their_names(study):
    task = {"image": "T1,T2,FLAIR", "label": "lesion", "modalities": "lesion", "num_classes_seg": 2}
    for count, fits in ((4, True), (3, False)):
        changes = {
            "SEGMENTATION": None,
            "MULTITASK": {**task, "num_classes_classification": count},
            "PIMMS": {"modalities": "T1,T2,FLAIR"},
        }
        if fits:
            assert task_of(study, **changes).modalities == ("T1", "T2", "FLAIR")
        else:
            with pytest.raises(ConfigError, match=r"num_classes_classification = 3 .* make 4; correct it"):
                task_of(study, **changes)


# Subjects


def test_subjects_are_complete_or_not_as_the_configuration_asks(study, caplog):
    copied = study.copy_scans()
    (copied / "sub01_T2.nii.gz").unlink()
    (copied / "sub02_lesion.nii.gz").unlink()
    found = {}
    for keep in (True, False):
        config = config_of(study, scans=copied, PIMMS={"keep_incomplete": keep})
        task = tasks.task_of(config)
        for needs_label in (True, False):
            subjects = cohort.find_cohort(config, task, needs_label).subjects
            found[keep, needs_label] = "".join(subject.subject_id[-1] for subject in subjects)
    assert found == {(True, True): "01345", (True, False): "012345", (False, True): "0345", (False, False): "02345"}


def test_no_subject_at_all_counts_the_files_of_each_section(study):
    copied = study.copy_scans()
    for path in copied.glob("*_lesion.nii.gz"):
        path.rename(copied / f"x{path.name}")
    config = config_of(study, scans=copied)
    with pytest.raises(ConfigError, match=r"no subject has the files .* \(6 in \[T1\], .*6 in \[lesion\]\)"):
        training_study(config)


def test_a_list_of_values_where_images_are_needed_is_refused(study):
    config = config_of(study, lesion={"csv_data_file": "values.csv"})
    with pytest.raises(ConfigError, match=r"\[lesion\] has csv_data_file, a list of values, where images are needed"):
        cohort.find_cohort(config, tasks.task_of(config), needs_label=True)
    with pytest.raises(ConfigError, match=r"\[lesion\] has csv_data_file"):
        cohort.files_of_section(config, "lesion")


def test_a_split_is_drawn_by_the_seed_or_read_from_its_file(study, caplog):
    config = config_of(study)
    subjects = cohort.find_cohort(config, tasks.task_of(config), needs_label=True).subjects
    drawn = cohort.phases_of(config, subjects)
    assert drawn == cohort.phases_of(config, subjects)
    assert sorted(drawn.values()) == sorted([*Phase] * 2)
    assert not config.split_file.exists()  # training writes it, once all is well
    config.split_file.parent.mkdir(parents=True)
    config.split_file.write_text("sub03,training\nsub04,inference\n")
    phases = cohort.phases_of(config, subjects)
    ids = [subject.subject_id for subject in cohort.subjects_in_phase(subjects, phases, Phase.TRAINING, config)]
    assert ids == ["sub03"]
    assert cohort.subjects_in_phase(subjects, phases, Phase.VALIDATION, config) == []
    none = config_of(study, TRAINING={"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0})
    config.split_file.unlink()
    assert cohort.phases_of(none, subjects) is None


def test_headers_tell_the_shape_that_loading_gives(study):
    config = config_of(
        study,
        NETWORK={"volume_padding_size": "(3, 2, 1)"},
        **{name: {"pixdim": "(5, 7, 6)", "axcodes": "(A, I, R)"} for name in ("T1", "T2", "FLAIR", "lesion")},
    )
    task = tasks.task_of(config)
    loader = cohort.subject_loader(config, task, needs_label=True)
    files = cohort.find_cohort(config, task, needs_label=True).subjects[0]
    loaded = loader.load(files.images, files.subject_id)
    assert loader.prepared_shape(files.images, files.subject_id) == loaded.scans.shape[:3] == loaded.label.shape
    prepared = training_study(config)
    check_volumes(replace(prepared, window=loaded.label.shape))
    with pytest.raises(InputError, match=r"subject sub\d\d: window \(99, 1, 1\) is larger than volume"):
        check_volumes(replace(prepared, window=(99, 1, 1)))


def test_training_names_all_subjects_whose_files_cannot_be_used(study):
    copied = study.copy_scans()
    for number in range(6):
        scan = copied / f"sub0{number}_T1.nii.gz"
        scan.unlink()
        scan.symlink_to("../annex/T1.nii.gz")
    prepared = training_study(config_of(study, scans=copied))
    with pytest.raises(InputError) as caught:
        check_volumes(prepared)
    assert "4 of 4 subjects cannot be used: sub0" in str(caught.value)
    assert all(files.subject_id in str(caught.value) for files in prepared.used)
    assert "is a link to ../annex/T1.nii.gz, where no file is" in str(caught.value)


def test_an_empty_scan_may_lie_anywhere(study):
    import nibabel as nib

    copied = study.copy_scans()
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), copied / "sub00_T2.nii.gz")
    config = config_of(study, scans=copied)
    task = tasks.task_of(config)
    loader = cohort.subject_loader(config, task, needs_label=True)
    files = cohort.find_cohort(config, task, needs_label=True).subjects[0]
    shape = loader.prepared_shape(files.images, files.subject_id)
    subject = loader.load(files.images, files.subject_id)
    assert shape == subject.scans.shape[:3]
    assert subject.valid.tolist() == [True, False, True]


# What is learnt from training subjects


def test_landmarks_and_codes_that_are_on_file_are_not_learnt_again(study, caplog):
    caplog.set_level(logging.INFO)
    config = config_of(study, NETWORK={"normalisation": True}, SEGMENTATION={"label_normalisation": True})
    task = tasks.task_of(config)
    plain = cohort.subject_loader(config, task, needs_label=True)
    subjects = cohort.find_cohort(config, task, needs_label=True).subjects
    first = mappings.with_mappings(plain, config, task, learn_from=subjects[:2])
    assert "computing histogram landmarks" in caplog.text
    assert "collecting label codes of [lesion] from 2 subjects" in caplog.text
    second = mappings.with_mappings(plain, config, task)
    assert second.label_mapping == first.label_mapping == ((0.0, 1.0), (0, 1))
    for name in task.scans:
        np.testing.assert_array_equal(first.mapping[name], second.mapping[name])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"NETWORK": {"normalisation": True}}, "has no landmarks for T1, T2, FLAIR, which normalisation = True needs"),
        ({"SEGMENTATION": {"label_normalisation": True}}, r"has no label codes of \[lesion\]"),
        ({"NETWORK": {"normalisation": True, "histogram_ref_file": ""}}, "needs histogram_ref_file in"),
        ({"NETWORK": {"histogram_ref_file": ""}, "SEGMENTATION": {"label_normalisation": True}}, "needs histogram_ref"),
    ],
)
def test_mappings_that_are_nowhere_are_asked_for(study, changes, says):
    config = config_of(study, **changes)
    task = tasks.task_of(config)
    with pytest.raises(ConfigError, match=says):
        mappings.with_mappings(cohort.subject_loader(config, task, needs_label=True), config, task)


# Windows


def test_landmarks_on_file_go_on_record_with_the_scans_they_are_of(study):
    config = config_of(
        study, "export", NETWORK={"normalisation": True}, PIMMS={"modalities": "PD,FLAIR,T1,T2", "null_class": True}
    )
    task = tasks.task_of(config)
    config.histogram_file.parent.mkdir(parents=True)
    write_mapping(config.histogram_file, {name: np.arange(13.0) + n for n, name in enumerate(("T1", "T2", "FLAIR"))})
    loader = mappings.with_landmarks(cohort.subject_loader(config, task, needs_label=False), config, task)
    record = preparation_of(config, task, loader.mapping)
    assert record.modalities == ("empty", "PD", "FLAIR", "T1", "T2")
    found = [(slot.name, record.modalities[slot.modality], slot.landmarks[:1]) for slot in record.scans]
    assert found == [("T1", "T1", (0.0,)), ("T2", "T2", (1.0,)), ("FLAIR", "FLAIR", (2.0,))]
    config = config_of(study, "export")
    assert mappings.with_landmarks(loader, config, task) is loader


def test_a_border_along_an_axis_of_one_voxel_windows_is_dropped_and_named(study, caplog):
    config = config_of(study, "inference", INFERENCE={"border": "(5, 0, 5)"})
    with caplog.at_level(logging.WARNING):
        assert tasks.border_of(config, (24, 24, 1)) == (5, 0, 0)
    assert "border (5, 0, 5) becomes (5, 0, 0)" in caplog.text
    assert tasks.border_of(config, (24, 24, 0)) == (5, 0, 5)


def test_the_window_of_inference_is_that_of_training_unless_it_has_its_own(study):
    config = config_of(study, INFERENCE={"spatial_window_size": None})
    assert tasks.window_of(config, "training") == tasks.window_of(config, "inference") == (24, 24, 1)
    config = config_of(study, INFERENCE={"spatial_window_size": "(0, 30, 1)"})
    assert tasks.window_of(config, "training") == (24, 24, 1)
    assert tasks.window_of(config, "inference") == (0, 30, 1)
    bare = {name: {"spatial_window_size": None} for name in ("T1", "T2", "FLAIR")}
    with pytest.raises(ConfigError, match="spatial_window_size is set neither in"):
        tasks.window_of(config_of(study, **bare), "training")


def tilted_subject(shape):
    rng = np.random.default_rng(0)
    affine = np.array([[0, -2.0, 0, 5], [3, 0, 0, -7], [0, 0, 4, 1], [0, 0, 0, 1]])
    scans = np.stack([rng.normal(size=shape), np.zeros(shape)], axis=-1).astype(np.float32)
    valid = np.array([True, False])
    label = (scans[..., 0] > 1).astype(np.int32)
    return Subject("s", scans, valid, np.array([0, 1], np.int32), label, affine, Grid(shape, affine))


@pytest.mark.parametrize(
    ("window", "shape"), [((12, 6, 1), (12, 6, 5)), ((12, 6, 9), (12, 6, 9)), ((0, 0, 0), (6, 12, 5))]
)
def test_a_resized_subject_keeps_its_place_and_its_slices(window, shape):
    subject = tilted_subject((6, 12, 5))
    small = resized(subject, window)
    assert small.scans.shape == (*shape, 2)
    assert small.label.shape == shape
    assert not small.scans[..., 1].any()
    for corner in (np.zeros(3), np.ones(3)):
        before = subject.affine @ (*(corner * (np.array(subject.label.shape) - 1)), 1)
        after = small.affine @ (*(corner * (np.array(shape) - 1)), 1)
        np.testing.assert_allclose(after, before)
    assert restore(small, small.label).shape == shape


def test_windows_of_training_hold_the_slots_and_classes_of_the_task(study):
    prepared = training_study(config_of(study, PIMMS={"max_slots": 5}))
    batches = training_windows(prepared, prepared.loader)
    batch = next(iter(batches))
    assert batch.scans.shape == (4, 24, 24, 5)
    assert batch.label.shape == (4, 24, 24)
    for valid, modality in zip(batch.valid.numpy(), batch.modality.numpy(), strict=True):
        assert sorted(modality[modality >= 0]) == [0, 1, 2]
        assert valid.sum() >= 1
    assert set(batches.subjects_of(0)) <= {0, 1}
    held_out = validation_windows(prepared, prepared.loader)
    first, again = (next(iter(held_out)) for _ in range(2))
    np.testing.assert_array_equal(first.scans, again.scans)
    assert first.valid.numpy().sum() == 4 * 3
    assert validation_windows(replace(prepared, phases={}), prepared.loader) == ()


@pytest.mark.parametrize("sampling", ["weighted", "balanced"])
def test_windows_drawn_by_a_map_need_one(study, sampling):
    config = config_of(study, NETWORK={"window_sampling": sampling})
    with pytest.raises(ConfigError, match=rf"window_sampling = {sampling} needs a map .* set sampler"):
        tasks.check_sampler(config, tasks.task_of(config))


# Loss


@pytest.mark.parametrize(("preset", "double"), [("paper", False), ("niftynet2018", True)])
def test_the_loss_follows_the_preset_unless_a_key_says_otherwise(study, preset, double):
    config = config_of(study, PIMMS={"preset": preset}, NETWORK={"decay": 1e-4, "reg_type": "l1"})
    _, objective = network.objective_of(config, tasks.task_of(config))
    assert objective.double_softmax is double
    assert (objective.decay, objective.penalty) == (1e-4, "L1")
    config = config_of(study, PIMMS={"preset": preset, "double_softmax": not double})
    assert network.objective_of(config, tasks.task_of(config))[1].double_softmax is not double


def test_a_multitask_configuration_has_a_decay_of_its_own(study):
    task = {
        "image": "T1,T2,FLAIR",
        "label": "lesion",
        "modalities": "lesion",
        "num_classes_seg": 2,
        "num_classes_classification": 4,
        "decay_constant": 1e-3,
    }
    assert tasks.modality_decay(config_of(study)) == 1e-4
    assert tasks.modality_decay(config_of(study, SEGMENTATION=None, MULTITASK=task)) == 1e-3
    both = config_of(study, SEGMENTATION=None, MULTITASK=task, PIMMS={"modality_decay": 1e-5})
    assert tasks.modality_decay(both) == 1e-5


def test_a_network_is_built_as_the_task_says(study):
    model = network.network(task_of(study))
    assert model.num_modalities == 3
    assert len(model.backends) == 3
    alone = network.network(task_of(study, NETWORK={"name": "modality_classifier"}))
    assert alone.backends == []
    names = {variable.path for variable in alone.variables}
    assert names <= {variable.path for variable in model.variables}


def test_files_of_a_section_are_found_by_subject(study):
    config = config_of(study)
    assert sorted(cohort.files_of_section(config, "lesion")) == [f"sub0{number}" for number in range(6)]


def test_windows_of_training_that_the_network_cannot_look_at_are_refused(study):
    thick = {name: {"spatial_window_size": "(16, 16, 8)"} for name in ("T1", "T2", "FLAIR")}
    settings_of = {2: "is a volume, but the network looks at slices", 3: None}
    for rank, says in settings_of.items():
        config = config_of(study, **thick, PIMMS={"spatial_rank": rank})
        if says is None:
            tasks.check_rank(config, tasks.window_of(config, "training"))
            continue
        with pytest.raises(ConfigError, match=says):
            tasks.check_rank(config, tasks.window_of(config, "training"))
    assert study("train", "x.ini", "--spatial_rank", "2") == 2
    assert not (study.folder / "model").exists()
