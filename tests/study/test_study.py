"""The study: one value from which a run and its dry run come."""

import nibabel as nib
import numpy as np
import pytest

from niftynet_compat import ConfigError, Phase, load_config
from pimms_tf.study import inference_study, training_study
from pimms_tf.study.study import MODEL, PHASES, SETTINGS, SUBJECTS, with_learnt


def config_of(study, action="train", **changes):
    return load_config(study.write(**changes), action=action)


def ids(part):
    return [files.subject_id for files in part]


class Heard:
    """Notes mistakes by topic and lets the study go on."""

    def __init__(self):
        self.mistakes = []

    def __call__(self, topic):
        self._topic = topic
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, ConfigError):
            self.mistakes.append((self._topic, str(error)))
        return isinstance(error, ConfigError)


def test_training_has_its_subjects_windows_and_loader_and_nothing_is_written(study):
    before = study.listing()
    prepared = training_study(config_of(study))
    assert study.listing() == before
    assert prepared.window == (24, 24, 1)
    assert sorted(
        ids(prepared.used) + [name for name, phase in prepared.split.items() if phase is Phase.INFERENCE]
    ) == [f"sub0{number}" for number in range(6)]
    assert (len(prepared.training), len(prepared.validation), prepared.start) == (2, 2, 0)
    assert (prepared.loader.scans, prepared.loader.label) == (("T1", "T2", "FLAIR"), "lesion")


def test_inference_takes_the_phase_on_file_and_reads_no_labels(study):
    config = config_of(study, "inference", INFERENCE={"border": "(5, 5, 0)"})
    config.split_file.parent.mkdir()
    config.split_file.write_text("".join(f"sub0{n},{'inference' if n in (1, 4) else 'training'}\n" for n in range(6)))
    prepared = inference_study(config)
    assert ids(prepared.used) == ["sub01", "sub04"]
    assert (prepared.training, prepared.loader.label) == ((), None)
    assert (prepared.window, prepared.border, prepared.whole_slices) == ((0, 0, 1), (5, 5, 0), True)


def test_a_run_ends_at_the_first_mistake_and_a_dry_run_hears_all(study):
    changes = {
        "NETWORK": {"window_sampling": "weighted"},
        "TRAINING": {"starting_iter": 7},
        "SYSTEM": {"dataset_split_file": study.folder},
    }
    config = config_of(study, **changes)
    with pytest.raises(ConfigError, match="weighted needs a map"):
        training_study(config)
    heard = Heard()
    prepared = training_study(config, heard)
    assert [topic for topic, _ in heard.mistakes] == [SETTINGS, MODEL, PHASES]
    assert (len(prepared.cohort.subjects), prepared.used) == (6, ())


def test_subjects_are_looked_for_though_no_window_is_set(study):
    heard = Heard()
    no_window = {name: {"spatial_window_size": None} for name in ("T1", "T2", "FLAIR")}
    prepared = training_study(config_of(study, **no_window, INFERENCE=None), heard)
    assert [topic for topic, _ in heard.mistakes] == [SETTINGS]
    assert (prepared.window, len(prepared.training)) == (None, 2)


def test_nobody_with_all_files_is_told_with_the_reasons(study):
    scans = study.copy_scans()
    for path in scans.glob("*_lesion.nii.gz"):
        path.rename(scans / f"x{path.name}")
    with pytest.raises(ConfigError, match=r"6 have a file, but each of them has no file in \[lesion\]: sub00, sub01"):
        training_study(config_of(study, scans=scans))
    heard = Heard()
    training_study(config_of(study, scans=scans), heard)
    assert [topic for topic, _ in heard.mistakes] == [SUBJECTS]


def test_what_training_learns_is_put_on_file_once_and_read_by_inference(study):
    changes = {"NETWORK": {"normalisation": True}, "SEGMENTATION": {"label_normalisation": True}}
    config = config_of(study, **changes)
    with pytest.raises(ConfigError, match="has no landmarks for T1, T2, FLAIR"):
        inference_study(config_of(study, "inference", **changes, INFERENCE={"dataset_to_infer": "all"}))
    trial = with_learnt(training_study(config), store=False)
    assert not config.histogram_file.exists()
    learnt = with_learnt(training_study(config))
    assert config.histogram_file.is_file()
    inferring = inference_study(config_of(study, "inference", **changes, INFERENCE={"dataset_to_infer": "all"}))
    assert inferring.codes == learnt.loader.label_mapping == trial.loader.label_mapping
    for name in ("T1", "T2", "FLAIR"):
        np.testing.assert_allclose(inferring.loader.mapping[name], learnt.loader.mapping[name], rtol=1e-6)


def test_a_trial_takes_landmarks_of_some_and_label_codes_of_all(study):
    scans = study.copy_scans()
    prepared = training_study(
        config_of(
            study,
            scans=scans,
            NETWORK={"normalisation": True},
            SEGMENTATION={"label_normalisation": True, "num_classes": 3},
            TRAINING={"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0},
        )
    )
    last = prepared.training[-1].images["lesion"]
    image = nib.load(last)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 9, image.affine), last)
    trial = with_learnt(prepared, store=False, landmarks_from=prepared.training[:2])
    assert trial.loader.label_mapping.source == (0, 1, 9)
    of_two = with_learnt(prepared, store=False, landmarks_from=prepared.training[:2]).loader.mapping["T1"]
    of_all = with_learnt(prepared, store=False).loader.mapping["T1"]
    assert np.array_equal(trial.loader.mapping["T1"], of_two)
    assert not np.array_equal(of_two, of_all)


def test_a_trial_takes_modality_codes_of_all_though_its_landmarks_are_of_two(study):
    (study.folder / "one").mkdir()
    for number, code in enumerate((7, 7, 7, 20, 20, 100)):
        (study.folder / "one" / f"sub0{number}_scan.nii.gz").symlink_to(study.scans / f"sub0{number}_T1.nii.gz")
        label = nib.Nifti1Image(np.full((1, 1, 1), code, np.int16), np.eye(4))
        nib.save(label, study.folder / "one" / f"sub0{number}_kind.nii.gz")
    found = {"path_to_search": study.folder / "one", "spatial_window_size": "(24, 24, 1)"}
    config = config_of(
        study,
        NETWORK={"name": "modality_classifier", "normalisation": True},
        SEGMENTATION=None,
        CLASSIFICATION={"image": "scan", "label": "kind", "num_classes": 3, "label_normalisation": True},
        TRAINING={"exclude_fraction_for_validation": 0, "exclude_fraction_for_inference": 0},
        scan={**found, "filename_contains": "_scan"},
        kind={**found, "filename_contains": "_kind", "interp_order": -1},
        **dict.fromkeys(("T1", "T2", "FLAIR", "lesion")),
    )
    prepared = training_study(config)
    trial = with_learnt(prepared, store=False, landmarks_from=prepared.training[:2])
    assert trial.loader.modality_mapping.source == (7, 20, 100)
