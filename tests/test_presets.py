"""The table "paper versus released code": every row is one named argument, and docs/fidelity.md says the same."""

import inspect
import re
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest

from niftynet_compat import load_config
from niftynet_compat.schema.sections import MultitaskSection, NetworkSection, PimmsSection, key_specs
from pimms_tf.data.slots import curriculum_probabilities
from pimms_tf.models import PIMMS, PRESETS, VARIANTS, build_model, preset_choices, regularised_variables
from pimms_tf.presets import AUGMENTATION, RESAMPLING
from pimms_tf.study.cohort import subject_loader
from pimms_tf.study.network import _LOSS_CHOICES
from pimms_tf.study.preparing import augmentation_of
from pimms_tf.study.task import task_of
from pimms_tf.training import make_loss

DOCUMENT = Path(__file__).parents[1] / "docs" / "fidelity.md"
CONFIGS = Path(__file__).parents[1] / "configs"
WIDTHS = (16, 64, 128, 256)


class Row(NamedTuple):
    """An argument with its value in the paper, and in the released offline and Online programs."""

    argument: str
    paper: object
    offline: object
    online: object


# Arguments of `PIMMS` that `preset` sets.
MODEL = [
    Row("null_class", False, False, True),
    Row("classifier_blocks", 9, 9, 10),
    Row("classifier_features", WIDTHS, WIDTHS, WIDTHS),
    Row("classifier_pool", "spatial", "spatial_and_channel", "spatial_and_channel"),
    Row("classifier_head_bn", False, True, False),
    Row("classifier_extra_bn", False, False, False),
    Row("classifier_average", "debiased", "debiased", "plain"),
    Row("attention_normalise", "none", "none", "sum"),
    Row("norm", "batch", "batch", "batch"),
    Row("norm_scope", "present", "all", "slot"),
    Row("frontend", "paper", "highres_1x1", "highres_1x1"),
    Row("mask_scope", "sample", "batch", "batch"),
    Row("abstraction_missing", "exclude", "zeros", "zeros"),
    Row("abstraction_ddof", 0, 0, 0),
    Row("init", "he_normal", "niftynet", "niftynet"),
    Row("regularise", "all", "classifier", "all"),
]
# Choices of the loss that `preset` sets.
LOSS = [
    Row("double_softmax", False, True, True),
    Row("dice_eps", "both", "denominator", "denominator"),
    Row("regulariser_reduction", "mean", "mean", "mean"),
]
# Choices of how scans are prepared that `preset` sets.
DATA = [
    Row("resampling", "mended", "niftynet", "niftynet"),
    Row("augmentation", "composed", "chained", "chained"),
]
# Keys of [PIMMS] whose default is the paper's value, or our reading of it; no preset touches them.
PIMMS_KEYS = [
    Row("spatial_rank", 2, 2, 2),
    Row("max_slots", 0, 3, 9),
    Row("curriculum", "intended", "uniform", "uniform"),
    Row("permute", None, False, True),
    Row("classifier_scope", "scan", "scan", "window"),
    Row("sampling_area", "foreground", "all", "all"),
    Row("keep_incomplete", True, False, False),
    Row("assemble_with", "label", "label", "label"),
]
# Keys of [NETWORK] as the shipped experiments set them.
NETWORK_KEYS = [
    Row("window_sampling", "uniform", "resize", "resize"),
    Row("whitening", True, True, True),
    Row("foreground_type", "threshold_plus", "threshold_plus", "threshold_plus"),
    Row("multimod_foreground_type", "and", "and", "and"),
]
ALL = [*MODEL, *LOSS, *DATA, *PIMMS_KEYS, *NETWORK_KEYS]
# One choice that no configuration makes, to show that arguments equal in all three columns are connected.
OTHERWISE = {
    "classifier_features": (4, 6, 10),
    "classifier_extra_bn": True,
    "norm": "none",
    "abstraction_ddof": 1,
    "average": "plain",
}
SMALL = {"classifier_features": (4, 8, 12), "classifier_blocks": 1}


def ids(rows):
    return [row.argument for row in rows]


@pytest.mark.parametrize("row", MODEL, ids=ids(MODEL))
def test_an_argument_of_the_model_has_the_value_of_its_source(row):
    assert PRESETS["paper"][row.argument] == row.paper
    for variant in (*VARIANTS, "classifier"):
        assert preset_choices(variant, "paper")[row.argument] == row.paper
        released = row.online if variant == "online" else row.offline
        assert preset_choices(variant, "niftynet2018")[row.argument] == released


def test_the_presets_set_these_arguments_and_no_others():
    assert {row.argument for row in MODEL} == set(PRESETS["paper"]) == set(PRESETS["niftynet2018"])
    assert {row.argument for row in LOSS} == set(_LOSS_CHOICES["paper"]) == set(_LOSS_CHOICES["niftynet2018"])


def test_without_a_preset_the_model_is_the_papers():
    defaults = {name: item.default for name, item in inspect.signature(PIMMS).parameters.items()}
    assert {name: defaults[name] for name in PRESETS["paper"]} == PRESETS["paper"]


@pytest.mark.parametrize("row", LOSS, ids=ids(LOSS))
def test_a_choice_of_the_loss_has_the_value_of_its_source(row):
    assert _LOSS_CHOICES["paper"][row.argument] == row.paper
    assert _LOSS_CHOICES["niftynet2018"][row.argument] == row.offline == row.online


@pytest.mark.parametrize("row", DATA, ids=ids(DATA))
def test_a_choice_of_the_data_has_the_value_of_its_source(row):
    chosen = {"resampling": RESAMPLING, "augmentation": AUGMENTATION}[row.argument]
    assert chosen == {"paper": row.paper, "niftynet2018": row.offline}
    assert row.offline == row.online


@pytest.mark.parametrize(("setting", "as_niftynet"), [({}, False), ({"preset": "niftynet2018"}, True)])
def test_the_loader_and_the_augmentation_resample_as_the_preset_or_the_key_says(setting, as_niftynet):
    opposite = {"resampling": "mended" if as_niftynet else "niftynet"}
    for overrides, expected in ((setting, as_niftynet), (setting | opposite, not as_niftynet)):
        config = load_config(CONFIGS / "pimms_online.ini", overrides)
        loader = subject_loader(config, task_of(config), needs_label=True)
        far_plane = "zeroed" if expected else "interpolated"
        assert (loader.keep_zeros, loader.far_plane) == (not expected, far_plane)
        assert augmentation_of(config).far_plane == far_plane


@pytest.mark.parametrize(
    ("setting", "reading"),
    [({}, "composed"), ({"preset": "niftynet2018"}, "chained"), ({"augmentation": "chained"}, "chained")],
)
def test_changes_of_geometry_are_read_as_the_preset_or_the_key_says(setting, reading):
    turned = {"rotation_angle": "-10, 10", "random_flipping_axes": "0"}
    augmentation = augmentation_of(load_config(CONFIGS / "pimms_online.ini", setting | turned))
    assert augmentation.reading == reading
    assert augmentation.interpolates_scans is (reading == "composed")
    flipped = load_config(CONFIGS / "pimms_online.ini", setting | {"random_flipping_axes": "0"})
    assert not augmentation_of(flipped).interpolates_scans


@pytest.mark.parametrize("row", [*MODEL, *LOSS, *DATA], ids=ids([*MODEL, *LOSS, *DATA]))
def test_a_configuration_can_make_every_choice_of_a_preset_by_name(row):
    key = key_specs(PimmsSection)[row.argument]
    assert key.default is None  # left to the preset
    for value in (row.paper, row.offline, row.online):
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert key.parse(text) == value
        assert not key.choices or value in key.choices


@pytest.mark.parametrize("row", PIMMS_KEYS, ids=ids(PIMMS_KEYS))
def test_a_key_that_concerns_data_can_be_set_to_what_the_released_code_did(row):
    key = key_specs(PimmsSection)[row.argument]
    assert key.default == row.paper
    for value in (row.offline, row.online):
        assert key.parse(str(value)) == value
        assert not key.choices or value in key.choices


@pytest.mark.parametrize("row", NETWORK_KEYS, ids=ids(NETWORK_KEYS))
def test_the_shipped_experiments_set_the_keys_of_niftynet_that_concern_data(row):
    for path in sorted(set(CONFIGS.glob("*.ini")) - {CONFIGS / "demo.ini"}):
        assert getattr(load_config(path).network, row.argument) == row.paper, path.name
    choices = key_specs(NetworkSection)[row.argument].choices
    assert not choices or {row.offline, row.online} <= set(choices)


def fingerprint(variant, **choices):
    """What a model of these choices is and does: variables, penalty, first answers in training, statistics after."""
    keras.utils.set_random_seed(7)
    model = build_model(variant, 3, 2, **SMALL | choices)
    scans = np.random.default_rng(1).normal(1, 1, (3, 9, 8, 3)).astype(np.float32)
    scans[0, ..., 1] = 0
    weights = [variable.numpy().copy() for variable in model.variables]
    trained = [model(scans, training=True) for _ in range(2)]
    predictions = [part for answer in (*trained, model(scans)) for part in answer if part is not None]
    penalised = [variable.path for variable in regularised_variables(model)]
    after = [variable.numpy() for variable in model.non_trainable_variables]
    return [variable.path for variable in model.variables], penalised, [*weights, *map(np.asarray, predictions), *after]


def equal(one, other):
    return one[:2] == other[:2] and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(one[2], other[2], strict=True)
    )


@pytest.fixture(scope="module")
def papers():
    return {variant: fingerprint(variant) for variant in ("hemis", "online")}


def test_equal_choices_give_equal_models(papers):
    assert equal(fingerprint("hemis"), papers["hemis"])


@pytest.mark.parametrize("argument", [*(row.argument for row in MODEL if row.argument not in OTHERWISE), *OTHERWISE])
def test_every_argument_of_the_model_makes_a_difference(papers, argument):
    rows = {row.argument: row for row in MODEL}
    # A soft mixture is zero nowhere, so only HeMIS can lack a modality.
    variant = "hemis" if argument.startswith(("mask", "abstraction", "frontend")) else "online"
    if argument in OTHERWISE:
        value = OTHERWISE[argument]
    else:
        row = rows[argument]
        value = row.online if row.online != row.paper else row.offline
    if argument == "classifier_blocks":
        value = 2
    assert not equal(fingerprint(variant, **{argument: value}), papers[variant])


def test_every_choice_of_the_loss_makes_a_difference():
    rng = np.random.default_rng(3)
    logits, label = rng.normal(size=(2, 6, 6, 2)).astype(np.float32), np.zeros((2, 6, 6), np.int32)
    plain = float(make_loss("Dice")(logits, label))
    assert abs(float(make_loss("Dice", double_softmax=True)(logits, label)) - plain) > 0.01
    nothing = np.float32([40.0, -40.0]) * np.ones_like(logits)
    assert float(make_loss("Dice")(nothing, label)) == pytest.approx(0, abs=1e-6)
    assert float(make_loss("Dice", eps="denominator")(nothing, label)) == pytest.approx(0.5, abs=1e-6)


def test_the_curricula_are_what_was_meant_and_what_was_run():
    np.testing.assert_allclose(curriculum_probabilities(3, "intended"), [0.5, 0.3, 0.2])
    np.testing.assert_allclose(curriculum_probabilities(3, "uniform"), [1 / 3] * 3)


def test_the_released_key_of_the_schedule_is_read_too():
    assert key_specs(MultitaskSection)["decay_constant"].default == 0.01  # of the released parser


def documented():
    """{argument: (paper, offline, online)} of the tables in the document."""
    rows = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and (match := re.fullmatch(r"`(\w+)`", cells[1])):
            rows[match[1]] = tuple(cells[2:])
    return rows


@pytest.mark.parametrize("row", ALL, ids=ids(ALL))
def test_the_document_says_the_same(row):
    shown = tuple(f"`{str(value).replace(' ', '')}`" for value in row[1:])
    assert tuple(cell.replace(" ", "") for cell in documented()[row.argument]) == shown


def test_the_tests_that_the_document_names_exist():
    named = set(re.findall(r"`((?:\w+/)*test_\w+\.py)`", DOCUMENT.read_text(encoding="utf-8")))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (Path(__file__).parent / name).is_file()] == []
