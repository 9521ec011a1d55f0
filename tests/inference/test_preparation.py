"""The record of how scans are prepared comes back equal from its text, and refuses what it cannot hold."""

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from niftynet_compat import load_config
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.errors import InputError
from pimms_tf.inference.preparation import (
    PREPARATION_FILE,
    Preparation,
    ScanSlot,
    VolumeRange,
    read_preparation,
    write_preparation,
)
from pimms_tf.study import cohort, mappings
from pimms_tf.study.preparing import preparation_of
from pimms_tf.study.task import task_of

LANDMARKS = tuple(float(value) for value in range(0, 130, 10))
FULL = Preparation(
    variant="soft",
    preset="paper",
    choices={"null_class": False, "classifier_features": (4, 8), "average": None, "abstraction_ddof": 0},
    modalities=("FLAIR", "T1"),
    num_classes=2,
    class_names=("background", "lesion"),
    axcodes=("L", "P", "S"),
    pixdim_mm=(1.0, 1.0, 3.0),
    padding_to=(64, 64, 1),
    foreground="otsu_plus",
    fusion="or",
    scans=(ScanSlot("t1w", 1, 1, LANDMARKS), ScanSlot("flair_2d", 0, 3, LANDMARKS)),
    classifier_slices=5,
    window=(100, 100, 1),
    border=(17, 17, 0),
    threshold=0.4,
    smallest_lesion_ml=0.003,
    least_score=0.5,
    least_share=0.8,
    volume_range=VolumeRange(0.8, 0.2, 0.9, 1.2, 0.5, 0.85),
)


@pytest.mark.parametrize("preparation", [Preparation(), FULL])
def test_text_gives_an_equal_record_back(preparation, tmp_path):
    assert Preparation.from_json(preparation.to_json()) == preparation
    assert write_preparation(preparation, tmp_path) == tmp_path / PREPARATION_FILE
    assert read_preparation(tmp_path) == read_preparation(tmp_path / PREPARATION_FILE) == preparation
    assert [path.name for path in tmp_path.iterdir()] == [PREPARATION_FILE]


def test_fields_that_a_file_lacks_have_their_defaults():
    assert Preparation.from_json('{"version": 1, "whitening": false}') == Preparation(whitening=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged, it is no JSON"),
        ("[]", "names no version"),
        ("{}", "names no version"),
        ('{"version": 2}', "has version 2, but this release of pimms-tf reads version 1"),
        ('{"version": 1, "flavour": 3}', "has flavour, which this release"),
        ('{"version": 1, "modalities": "T1"}', "modalities holds 'T1'"),
        ('{"version": 1, "variant": "sooft"}', "variant holds 'sooft'"),
        ('{"version": 1, "num_classes": 2.5}', "num_classes holds 2.5"),
        ('{"version": 1, "num_classes": true}', "num_classes holds True"),
        ('{"version": 1, "threshold": NaN}', "threshold holds nan"),
        ('{"version": 1, "threshold": 2}', "threshold is 2; give a probability"),
        ('{"version": 1, "axcodes": ["L", "P"]}', "axcodes holds"),
        ('{"version": 1, "scans": [{"modality": 0}]}', "scans holds"),
        ('{"version": 1, "scans": [{"name": "T1", "colour": 0}]}', "scans holds"),
        ('{"version": 1, "scans": [{"name": "T1", "modality": 4}]}', "a scan has a modality that is not among"),
        ('{"version": 1, "choices": {"norm": {}}}', "choices holds"),
        ('{"version": 1, "modalities": ["T1", "T1"]}', "modalities has 1 different names, but 2 are needed"),
        ('{"version": 1, "num_classes": 2, "class_names": ["a"]}', "class_names has 1 different names"),
        ('{"version": 1, "batch_size": 0}', "count from 1"),
    ],
)
def test_text_that_is_no_record_is_refused_in_one_sentence_that_names_the_file(text, words, tmp_path):
    path = tmp_path / PREPARATION_FILE
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_preparation(tmp_path)
    assert words in str(refused.value)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_preparation(tmp_path)
    (tmp_path / PREPARATION_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is no text"):
        read_preparation(tmp_path)


def test_every_setting_of_the_loader_that_shapes_scans_is_on_record():
    of_slots = {"mapping", "orders", "modality", "scans"}
    of_answers = {"label", "weight", "modality_image", "label_mapping", "modality_mapping", "num_classes"}
    of_files = {"loader", "reference", "require_label"}
    of_training = {"coefficients"}  # what augmentation interpolates with; no scan changes by them
    settings = {field.name for field in fields(SubjectLoader)} - of_slots - of_answers - of_files - of_training
    settings -= {"null_class"}
    assert settings <= {field.name for field in fields(Preparation)}
    loader = FULL.subject_loader()
    assert {name: getattr(loader, name) for name in settings} == {name: getattr(FULL, name) for name in settings}


def test_scans_are_known_by_their_section_or_by_their_modality():
    loader = FULL.subject_loader(["FLAIR", "t1w"])
    assert loader.scans == ("FLAIR", "t1w")
    assert loader.modality == (0, 1)
    assert loader.orders == {"FLAIR": 3, "t1w": 1}
    assert {name: tuple(values) for name, values in loader.mapping.items()} == {"FLAIR": LANDMARKS, "t1w": LANDMARKS}


def test_a_scan_of_unknown_name_can_be_prepared_unless_its_histogram_is_to_be_standardised():
    with pytest.raises(InputError, match="scan_7: this network standardises .* one of t1w, flair_2d"):
        FULL.subject_loader(["T1", "scan_7"])
    plain = replace(FULL, scans=tuple(replace(slot, landmarks=()) for slot in FULL.scans))
    assert plain.subject_loader(["T1", "scan_7"]).modality == (1, -1)


def test_the_record_of_a_configuration_prepares_scans_as_the_configuration_does(study):
    config = load_config(study.write(T1={"interp_order": 1}), action="inference")
    task = task_of(config)
    loader = mappings.with_mappings(cohort.subject_loader(config, task, needs_label=False), config, task)
    recorded = Preparation.from_json(preparation_of(config, task, loader.mapping).to_json())
    files = cohort.find_cohort(config, task, needs_label=False).subjects[0]
    ours, theirs = (each.load(files.images, files.subject_id) for each in (recorded.subject_loader(), loader))
    for field in fields(ours):
        np.testing.assert_equal(_plain(getattr(ours, field.name)), _plain(getattr(theirs, field.name)), field.name)
    assert (recorded.variant, recorded.modalities, recorded.classifier_slices) == ("online", ("T1", "T2", "FLAIR"), 3)
    assert recorded.choices["classifier_features"] == (4, 8)
    assert recorded.window == (0, 0, 1)


def test_training_leaves_the_record_with_the_model(trained, hemis):
    assert read_preparation(trained / "model").variant == "online"
    found = json.loads((hemis / "model" / PREPARATION_FILE).read_text())
    assert (found["version"], found["variant"], found["foreground"]) == (1, "hemis", "threshold_plus")
    assert [slot["name"] for slot in found["scans"]] == ["T1", "T2", "FLAIR"]


def _plain(value):
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def test_a_guess_beside_a_sure_scan_of_its_modality_does_not_belong_and_a_second_sure_one_does():
    preparation = Preparation(modalities=("T1", "T2"), least_score=0.6, least_share=0.8)
    scores = np.array([[0.95, 0.05], [0.7, 0.3], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55], [0, 0]], np.float32)
    #                   surest       a guess    another one  sure enough  below 0.6     absent
    assert preparation.belonging(scores).tolist() == [True, False, True, True, False, False]
    assert preparation.belonging(scores[1:2]).tolist() == [True]  # alone it is all there is
    assert Preparation(modalities=("T1", "T2")).belonging(scores).tolist() == [True] * 5 + [False]


def test_a_share_above_one_is_refused():
    with pytest.raises(InputError, match="least_share 80; give numbers between 0 and 1"):
        Preparation(least_share=80)


def test_the_range_of_a_volume_counts_what_is_certain_and_what_is_possible():
    probability = np.array([0.9, 0.8, 0.6, 0.3, 0.1])
    assert VolumeRange().of(probability, 2.0, 6.0) == (4.0, 8.0)
    assert VolumeRange(less=0.5, more=2.0, margin_ml=1.0).of(probability, 2.0, 6.0) == (1.0, 17.0)
    assert VolumeRange(margin_ml=9.0).of(probability, 2.0, 6.0)[0] == 0.0
    assert VolumeRange(less=2.0).of(probability, 2.0, 6.0)[0] == 6.0  # never above what was measured


def test_what_a_range_means_is_said_as_it_was_found():
    assert "in about 8 of 10 simulated patients" in VolumeRange(inside=0.82).meaning
    assert "is not known" in VolumeRange().meaning
