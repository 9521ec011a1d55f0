"""The table of keys: NiftyNet's list is complete, every key has one verdict, and docs/keys.md says the same."""

from pathlib import Path

import pytest

from niftynet_compat import ConfigError, Verdict, explain_key, keys_help, keys_markdown
from niftynet_compat.migration.original import STOCK_KEYS
from niftynet_compat.schema import sections
from niftynet_compat.schema.keys import differs, key, type_words, unsupported

ROOT = Path(__file__).parents[2]
# The 115 keys of NiftyNet 0.6 and the two that PyYAML adds, as its own parser lists them.
STOCK = """activation_function antialiasing axcodes batch_size bf_order bias_field_range bias_initializer border
compulsory_labels conditioning csv_data_file csv_file cuda_devices cutoff dataset_split_file dataset_to_infer decay
deformation_sigma do_elastic_deformation do_mixup early_stopping_mode error_map evaluation_units evaluations
event_handler exclude_fraction_for_inference exclude_fraction_for_validation feature filename_contains
filename_not_contains filename_removefromid fill_constant fixed_image fixed_label force_output_identity_resizing
foreground_type histogram_ref_file image inference_iter inference_type inferred interp_order isotropic_scaling
iteration_generator keep_prob label label_normalisation loader loss_border loss_type lr max_checkpoints max_iter
min_numb_labels min_sampling_ratio mix_match mixup_alpha model_dir moving_image moving_label multimod_foreground_type
n_interpolations name noise_size noise_stddev norm_type normalisation normalise_foreground_only num_classes
num_ctrl_points num_gpus num_threads optimiser output output_interp_order output_postfix output_prob path_to_search
patience pixdim proba_connect proportion_to_deform queue_length rand_samples random_flipping_axes reg_type
rgb_normalisation rotation_angle rotation_angle_x rotation_angle_y rotation_angle_z sample_per_volume sampler
save_csv_dir save_every_n save_seg_dir scaling_percentage smaller_final_batch_mode softmax spatial_window_size
starting_iter tensorboard_every_n to_ohe validation_every_n validation_max_iter value vars_to_freeze vars_to_restore
volume_padding_mode volume_padding_size volume_padding_to_size weight weight_initializer whitening
window_sampling weight_initializer_args bias_initializer_args"""
FORK = """num_classes_seg num_classes_classification decay_constant modalities with_bn csv_labels csv_path_file
modality_label do_whole_volume_validation
curriculum_learning_iter idxs_to_drop permuted_indices switch_dataset_every_n"""
ROWS = [(section, spec) for section, specs in sections.SPECS.items() for spec in specs.values()]


def test_every_key_of_niftynet_and_of_the_fork_is_in_the_table():
    assert set(STOCK.split()) | set(FORK.split()) <= sections.KNOWN_KEYS
    assert len(STOCK.split()) == 115 + 2


def test_what_niftynet_knows_is_told_apart_from_what_the_fork_added():
    assert set(STOCK.split()) == STOCK_KEYS


@pytest.mark.parametrize(("section", "spec"), ROWS, ids=[f"{section}-{spec.name}" for section, spec in ROWS])
def test_a_key_has_a_meaning_a_type_readers_and_a_sentence_for_its_verdict(section, spec):
    assert spec.meaning
    assert type_words(spec)
    assert set(spec.used_by.split()) <= {"train", "inference", "evaluation", "export"}
    assert spec.used_by
    assert (spec.ruling.verdict is Verdict.HONOURED) == (not spec.ruling.sentence)
    assert not spec.ruling.sentence.endswith(".")
    for word, ruling in spec.words.items():
        assert not spec.choices or word in spec.choices
        assert ruling.sentence or ruling.verdict is Verdict.HONOURED


def test_unsupported_changes_results_and_accepted_without_effect_does_not():
    rulings = [ruling for _, spec in ROWS for ruling in (spec.ruling, *spec.words.values())]
    assert all(ruling.changes_results for ruling in rulings if ruling.verdict is Verdict.UNSUPPORTED)
    assert not any(ruling.changes_results for ruling in rulings if ruling.verdict is Verdict.NO_EFFECT)
    assert {ruling.verdict for ruling in rulings} == set(Verdict)


def test_a_key_cannot_have_two_verdicts():
    with pytest.raises(ValueError, match="one verdict"):
        key(str, "", "a key", differs="so", no_effect="so")


def test_the_word_of_a_value_decides_before_the_key():
    spec = sections.SPECS["NETWORK"]["window_sampling"]
    assert spec.ruling_of("patch").verdict is Verdict.UNSUPPORTED
    assert spec.ruling_of("resize").verdict is Verdict.HONOURED
    metrics = sections.SPECS["EVALUATION"]["evaluations"]
    assert metrics.ruling_of("dice,average_distance").changes_results
    assert differs("x").changes_results is False
    assert unsupported("x").changes_results is True


def test_docs_keys_md_is_what_the_table_gives():
    text = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    assert text == keys_markdown(), "write it anew: pimms-tf config explain --markdown > docs/keys.md"


def test_the_documentation_has_one_row_per_key_and_section():
    lines = keys_markdown().splitlines()
    assert sum(line.startswith("| `") for line in lines) == len(ROWS) + len(sections.OTHER_KEYS) + len(sections.ALIASES)


@pytest.mark.parametrize("name", sorted(sections.KNOWN_KEYS))
def test_every_key_can_be_explained(name):
    assert "verdict" in explain_key(name)


def test_explaining_a_key_names_sections_values_default_readers_origin_and_verdict():
    text = explain_key("LR")
    assert text.splitlines()[0] == "[TRAINING] lr: learning rate"
    for part in ("number, from 0", "0.01", "train", "NiftyNet 0.6", "honoured"):
        assert part in text
    assert "[SYSTEM] num_threads" in explain_key("num_threads")
    assert "[NETWORK] num_threads" in explain_key("num_threads")
    assert "input sections" in explain_key("csv_path_file")
    assert "[GAN] noise_size" in explain_key("noise_size")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("lerning_rate", "lr"), ("batchsize", "batch_size"), ("loss_typ", "loss_type"), ("Epochs", "max_iter")],
)
def test_an_unknown_key_is_answered_with_the_nearest(word, meant):
    with pytest.raises(ConfigError, match=f"did you mean {meant}"):
        explain_key(word)


def test_nothing_near_is_answered_with_where_all_keys_stand():
    with pytest.raises(ConfigError, match="--help list all keys"):
        explain_key("qqqqqqqqqqqqqq")


@pytest.mark.parametrize("verb", ["train", "inference", "evaluation", "export"])
def test_the_help_of_a_verb_lists_what_it_reads_with_defaults(verb):
    text = keys_help(verb)
    assert "--model_dir" in text
    assert ("--lr 0.01" in text) == (verb == "train")
    assert ("--evaluations" in text) == (verb == "evaluation")
    assert "keep_prob" not in text
    assert "--path_to_search" not in text


def test_the_help_of_another_verb_lists_all():
    assert "--lr 0.01" in keys_help("check")
    assert "--evaluations" in keys_help("")
