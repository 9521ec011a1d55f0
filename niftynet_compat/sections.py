"""The sections of an INI file as frozen dataclasses: every key with its type, default, legal words and meaning.

Field names and defaults are NiftyNet 0.6's, with the keys that the PIMMS fork added; `PimmsSection` is ours. This table
is the only place that knows a key: reading, checking, writing back and documentation all go through `KeySpec`.

Source: `niftynet/utilities/user_parameters_default.py`, `user_parameters_custom.py`; the fork's trees.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from niftynet_compat import ini

Value = str | int | float | bool | tuple[str, ...] | tuple[int, ...] | tuple[float, ...] | None

ACTIVATIONS = (
    "relu",
    "relu6",
    "elu",
    "softplus",
    "softsign",
    "sigmoid",
    "tanh",
    "prelu",
    "selu",
    "leakyrelu",
    "dropout",
)
INITIALISERS = (
    *("constant", "zeros", "ones", "uniform_scaling", "orthogonal", "variance_scaling"),
    *("glorot_normal", "glorot_uniform", "he_normal", "he_uniform"),
)
OPTIMISERS = ("adam", "gradientdescent", "momentum", "nesterov", "adagrad", "rmsprop")
LOSSES = (
    *("CrossEntropy", "CrossEntropy_Dense", "Dice", "Dice_NS", "Dice_Dense", "Dice_Dense_NS", "Tversky", "GDSC"),
    *("DicePlusXEnt", "WGDL", "SensSpec", "VolEnforcement", "DicePlusXEntTopK", "MultiLabelCrossEntropy"),
)
METRICS = (
    *("dice", "Dice", "jaccard", "Jaccard", "intersection_over_union", "n_pos_ref", "n_neg_ref", "n_pos_seg"),
    *("n_neg_seg", "fp", "fn", "tp", "tn", "n_intersection", "n_union", "sensitivity", "specificity", "accuracy"),
    *("false_positive_rate", "positive_predictive_values", "negative_predictive_values", "informedness"),
    *("markedness", "vol_diff", "average_distance", "hausdorff_distance", "hausdorff95_distance", "com_ref"),
    *("classification_accuracy", "roc_auc", "roc"),
)
MASKS = ("otsu_plus", "otsu_minus", "threshold_plus", "threshold_minus", "mean_plus")
PADDING_MODES = (
    *(
        "minimum",
        "maximum",
        "mean",
        "median",
        "constant",
        "edge",
        "linear_ramp",
        "reflect",
        "symmetric",
        "wrap",
        "empty",
    ),
)
EVENT_HANDLERS = (
    *("model_saver", "model_restorer", "sampler_threading", "apply_gradients"),
    *("output_interpreter", "console_logger", "tensorboard_logger", "performance_logger"),
)
EARLY_STOPPING_MODES = (*("mean", "robust_mean", "median", "generalisation_loss", "median_smoothing", "validation_up"),)
DATASETS = ("all", "training", "validation", "inference")


class KeySpec(NamedTuple):
    """What is known of one key: how its text is read, its default, and what may be written."""

    name: str
    parse: Callable[[str], Value]
    default: Value
    meaning: str
    choices: tuple[str, ...] = ()
    fold: bool = False  # NiftyNet itself ignores case here, so other spellings need no remark
    several: bool = False  # a text holding several of the choices, separated by commas
    low: float | None = None
    high: float | None = None
    check: Callable[[Value], str | None] | None = None  # complaint about a parsed value
    keeps_empty: bool = False  # `key =` means the empty text, not the default
    command_line: bool = True
    names_sections: bool = False
    ignored: str = ""  # why the key has no effect here


def _key(
    parse: Callable[[str], Value], default: Value, meaning: str, *choices: str, **rules: object
) -> dataclasses.Field:
    return dataclasses.field(
        default=default, metadata={"parse": parse, "meaning": meaning, "choices": choices, **rules}
    )


def _sources(meaning: str, **rules: object) -> dataclasses.Field:
    return _key(ini.to_strs, (), meaning, names_sections=True, **rules)


_NOT_BUILT = "this part of NiftyNet is not rebuilt"


def key_specs(section: type) -> dict[str, KeySpec]:
    """Returns the keys of a section's dataclass in its order, by name."""
    return {
        item.name: KeySpec(name=item.name, default=item.default, **item.metadata)
        for item in dataclasses.fields(section)
        if item.metadata
    }


def _pair(value: tuple[float, ...]) -> str | None:
    return None if len(value) in (0, 2) else "needs two numbers, the lowest and the highest"


def _percentiles(value: tuple[float, ...]) -> str | None:
    if len(value) == 2 and 0 <= value[0] < value[1] <= 1:
        return None
    return "needs two fractions between 0 and 1, the lower first, for example 0.01, 0.99"


def _three_spacings(value: tuple[float, ...]) -> str | None:
    if not value or (len(value) >= 3 and all(item > 0 for item in value)):
        return None
    return "needs three positive numbers in mm, for example 1.0, 1.0, 1.0"


def _orientation(value: tuple[str, ...]) -> str | None:
    axes = sorted("LR" if code in "LR" else "AP" if code in "AP" else "IS" for code in value if code in tuple("LRAPIS"))
    if not value or (len(value) == 3 and axes == ["AP", "IS", "LR"]):
        return None
    return "needs three letters separated by commas, one of L R, one of P A and one of I S, for example R,A,S"


def _flip_axes(value: tuple[int, ...]) -> str | None:
    return None if all(axis in (-1, 0, 1, 2) for axis in value) else "needs axes out of 0, 1, 2, or -1 for none"


def _sizes(value: tuple[int, ...]) -> str | None:
    return None if all(size >= 0 for size in value) else "must not be negative"


def _widths(value: tuple[int, ...]) -> str | None:
    if len(value) >= 2 and all(size >= 1 for size in value):
        return None
    return "needs two positive numbers or more, the stem's first, for example 16, 64, 128, 256"


@dataclass(frozen=True)
class SystemSection:
    """[SYSTEM]: devices and folders."""

    cuda_devices: str = _key(ini.to_str, "", "exported as CUDA_VISIBLE_DEVICES if it has a digit", keeps_empty=True)
    num_threads: int = _key(ini.to_int, 2, "threads that load and sample in training")
    num_gpus: int = _key(ini.to_int, 1, "replicas; batch_size is per replica", low=0)
    model_dir: str = _key(ini.to_str, "", "folder of the model; unset: `model` beside the INI file")
    dataset_split_file: str = _key(ini.to_str, "./dataset_split.csv", "subject,phase list, in model_dir")
    event_handler: tuple[str, ...] = _key(ini.to_strs, EVENT_HANDLERS, "steps of the loop", ignored="the loop is fixed")
    iteration_generator: str = _key(
        ini.to_str, "iteration_generator", "order of iterations", ignored="the loop is fixed"
    )


@dataclass(frozen=True)
class NetworkSection:
    """[NETWORK]: the network, its windows and the preprocessing of volumes."""

    name: str = _key(ini.to_str, "", "network, a name of NETWORKS; required")
    activation_function: str = _key(
        ini.to_str,
        "relu",
        "activation",
        *ACTIVATIONS,
        fold=True,
        ignored="the networks here have the published activations",
    )
    batch_size: int = _key(ini.to_int, 2, "windows per step and replica", low=1)
    smaller_final_batch_mode: str = _key(
        ini.to_str,
        "pad",
        "last batch",
        "pad",
        "drop",
        "dynamic",
        fold=True,
        ignored="training batches are always full, and at inference every window counts",
    )
    decay: float = _key(ini.to_float, 0.0, "weight penalty factor, 0 = none", low=0)
    reg_type: str = _key(ini.to_str, "L2", "weight penalty", "L2", "L1", fold=True)
    volume_padding_size: tuple[int, ...] = _key(
        ini.to_spatial3, (0, 0, 0), "voxels added on both sides of each axis", check=_sizes
    )
    volume_padding_mode: str = _key(ini.to_str, "minimum", "what the padding holds, as in numpy.pad", *PADDING_MODES)
    volume_padding_to_size: tuple[int, ...] = _key(
        ini.to_spatial3, (0,), "pad up to this size instead, (0,) = off", check=_sizes
    )
    window_sampling: str = _key(
        ini.to_str, "uniform", "where windows are cut", "uniform", "resize", "balanced", "weighted", "patch"
    )
    force_output_identity_resizing: bool = _key(
        ini.to_bool,
        False,
        "resize sampler: output keeps its own size",
        ignored="labels are resized to the window like the scans",
    )
    queue_length: int = _key(ini.to_int, 5, "shuffle buffer, at least 5 batches")
    keep_prob: float = _key(
        ini.to_float,
        1.0,
        "probability of keeping a unit in dropout",
        low=0,
        high=1,
        ignored="the networks here have no dropout",
    )
    histogram_ref_file: str = _key(
        ini.to_str, "./histogram_ref_file.txt", "landmarks and label maps, in model_dir", keeps_empty=True
    )
    norm_type: str = _key(ini.to_str, "percentile", "landmarks in use", "percentile", "quartile", "median", fold=True)
    cutoff: tuple[float, ...] = _key(ini.to_floats, (0.01, 0.99), "outer landmarks as fractions", check=_percentiles)
    normalisation: bool = _key(ini.to_bool, False, "histogram standardisation")
    rgb_normalisation: bool = _key(
        ini.to_bool, False, "histogram equalisation of colour images", ignored="scans here have no colours"
    )
    whitening: bool = _key(ini.to_bool, False, "zero mean and unit variance per volume")
    normalise_foreground_only: bool = _key(ini.to_bool, False, "statistics from the foreground only")
    foreground_type: str = _key(ini.to_str, "otsu_plus", "what counts as foreground", *MASKS, fold=True)
    multimod_foreground_type: str = _key(ini.to_str, "and", "masks of several scans", "and", "or", "multi", fold=True)
    weight_initializer: str = _key(
        ini.to_str, "he_normal", "initial weights", *INITIALISERS, ignored="init in [PIMMS] chooses the initial weights"
    )
    bias_initializer: str = _key(
        ini.to_str, "zeros", "initial biases", *INITIALISERS, ignored="biases begin at zero in the networks here"
    )
    num_threads: int = _key(
        ini.to_int,
        5,
        "fork: processes scanning labels",
        command_line=False,
        ignored="labels are scanned in one process",
    )


@dataclass(frozen=True)
class TrainingSection:
    """[TRAINING]: the loop, the loss and the augmentation."""

    optimiser: str = _key(ini.to_str, "adam", "optimiser", *OPTIMISERS)
    sample_per_volume: int = _key(ini.to_int, 1, "windows drawn per loaded subject", low=1)
    lr: float = _key(ini.to_float, 0.01, "learning rate", low=0)
    loss_type: str = _key(ini.to_str, "Dice", "segmentation or classification loss", *LOSSES)
    starting_iter: int = _key(ini.to_int, 0, "0 random, below 0 latest checkpoint, N checkpoint N")
    max_iter: int = _key(ini.to_int, 10000, "number of the last iteration")
    save_every_n: int = _key(ini.to_int, 500, "iterations between checkpoints, 0 = only at the end")
    max_checkpoints: int = _key(ini.to_int, 100, "checkpoints kept, at least 2")
    tensorboard_every_n: int = _key(ini.to_int, 20, "iterations between event records, 0 or less = never")
    validation_every_n: int = _key(ini.to_int, -1, "iterations between validation passes, 0 or less = never")
    validation_max_iter: int = _key(ini.to_int, 1, "batches per validation pass")
    exclude_fraction_for_validation: float = _key(ini.to_float, 0.0, "fraction of subjects", low=0, high=1)
    exclude_fraction_for_inference: float = _key(ini.to_float, 0.0, "fraction of subjects", low=0, high=1)
    vars_to_restore: str = _key(ini.to_str, "", "regular expression: restore only these weights")
    vars_to_freeze: str = _key(ini.to_str, "", "regular expression: weights that do not train")
    rotation_angle: tuple[float, ...] = _key(ini.to_floats, (), "lowest, highest angle in degrees", check=_pair)
    rotation_angle_x: tuple[float, ...] = _key(ini.to_floats, (), "the same about x", check=_pair)
    rotation_angle_y: tuple[float, ...] = _key(ini.to_floats, (), "the same about y", check=_pair)
    rotation_angle_z: tuple[float, ...] = _key(ini.to_floats, (), "the same about z", check=_pair)
    scaling_percentage: tuple[float, ...] = _key(ini.to_floats, (), "lowest, highest change in percent", check=_pair)
    isotropic_scaling: bool = _key(ini.to_bool, False, "one factor for all axes")
    antialiasing: bool = _key(ini.to_bool, True, "smooth before shrinking")
    random_flipping_axes: tuple[int, ...] = _key(ini.to_ints, (-1,), "axes that may be flipped", check=_flip_axes)
    do_elastic_deformation: bool = _key(ini.to_bool, False, "elastic deformation")
    num_ctrl_points: int = _key(ini.to_int, 4, "elastic: control points per axis", low=1)
    deformation_sigma: float = _key(ini.to_float, 15, "elastic: strength in voxels", low=0)
    proportion_to_deform: float = _key(ini.to_float, 0.5, "elastic: fraction of subjects", low=0, high=1)
    bias_field_range: tuple[float, ...] = _key(ini.to_floats, (), "bias field coefficients", check=_pair)
    bf_order: int = _key(ini.to_int, 3, "bias field order", low=0)
    patience: int = _key(ini.to_int, 100, "early stopping: validations without gain", low=1)
    early_stopping_mode: str = _key(
        ini.to_str,
        "mean",
        "early stopping rule",
        *EARLY_STOPPING_MODES,
        ignored="early stopping waits for a better validation loss, patience validations long",
    )
    do_whole_volume_validation: bool = _key(
        ini.to_bool, False, "fork: validate on whole volumes", ignored="validation looks at windows"
    )
    curriculum_learning_iter: int = _key(
        ini.to_int,
        0,
        "fork: iterations that train the classifier alone",
        low=0,
        ignored="both parts train together; for one alone there are modality_classifier and [PIMMS] classifier",
    )


@dataclass(frozen=True)
class InferenceSection:
    """[INFERENCE]: which subjects, which checkpoint, where results go."""

    spatial_window_size: tuple[int, ...] = _key(ini.to_window, (), "window; unset: that of training; 0 = full length")
    inference_iter: int = _key(ini.to_int, -1, "checkpoint, below 0 the latest")
    dataset_to_infer: str = _key(
        ini.to_str, "", "phases; unset: inference, or all without a split", *DATASETS, fold=True, several=True
    )
    save_seg_dir: str = _key(ini.to_str, "./output", "folder of results, in model_dir")
    output_postfix: str = _key(ini.to_str, "_niftynet_out", "added to the subject id", keeps_empty=True)
    output_interp_order: int = _key(ini.to_int, 0, "spline order back to the original grid", low=0, high=3)
    border: tuple[int, ...] = _key(ini.to_spatial3, (0, 0, 0), "voxels cut off each side of a window", check=_sizes)
    fill_constant: float = _key(ini.to_float, 0.0, "value where no window wrote")


@dataclass(frozen=True)
class EvaluationSection:
    """[EVALUATION]: metrics and where their tables go."""

    evaluations: str = _key(ini.to_str, "", "metrics; unset: dice,jaccard,average_distance", *METRICS, several=True)
    save_csv_dir: str = _key(ini.to_str, "./evaluation", "folder of tables, in model_dir")


@dataclass(frozen=True)
class SegmentationSection:
    """[SEGMENTATION]: one label per voxel."""

    image: tuple[str, ...] = _sources("sections stacked as scans, in this order")
    label: tuple[str, ...] = _sources("section of the label map")
    weight: tuple[str, ...] = _sources("section of voxel weights of the loss", ignored="no loss here weighs voxels")
    sampler: tuple[str, ...] = _sources("section of the sampling map")
    inferred: tuple[str, ...] = _sources("section of segmentations to evaluate")
    value: tuple[str, ...] = _key(
        ini.to_strs, (), "section of values", names_sections=True, ignored="no network here uses values"
    )
    modality_label: tuple[str, ...] = _sources(
        "fork: section of modality labels", ignored="image_modalities in [PIMMS] says which scan is which"
    )
    num_classes: int = _key(ini.to_int, -1, "label values, background included")
    output_prob: bool = _key(ini.to_bool, False, "write probabilities")
    label_normalisation: bool = _key(ini.to_bool, False, "map the label values found to 0, 1, ...")
    softmax: bool = _key(
        ini.to_bool, True, "softmax before the loss", ignored="every loss here takes the softmax itself"
    )
    min_sampling_ratio: float = _key(ini.to_float, 0, "selective sampler", ignored=_NOT_BUILT)
    compulsory_labels: tuple[int, ...] = _key(ini.to_ints, (0, 1), "selective sampler", ignored=_NOT_BUILT)
    rand_samples: int = _key(ini.to_int, 0, "selective sampler", ignored=_NOT_BUILT)
    min_numb_labels: int = _key(ini.to_int, 1, "selective sampler", ignored=_NOT_BUILT)
    proba_connect: bool = _key(ini.to_bool, True, "selective sampler", ignored=_NOT_BUILT)
    evaluation_units: str = _key(
        ini.to_str, "foreground", "what one row of a table is", "foreground", "label", "cc", several=True
    )
    do_mixup: bool = _key(ini.to_bool, False, "mix-up augmentation", ignored=_NOT_BUILT)
    mixup_alpha: float = _key(ini.to_float, 0.2, "mix-up augmentation", low=0, ignored=_NOT_BUILT)
    mix_match: bool = _key(ini.to_bool, False, "mix-up augmentation", ignored=_NOT_BUILT)
    idxs_to_drop: tuple[int, ...] = _key(
        ini.to_ints, (), "fork: scans zeroed at inference", check=_sizes, ignored="name the scans to use in image"
    )
    permuted_indices: tuple[int, ...] = _key(
        ini.to_ints, (), "fork: scan order at inference", check=_sizes, ignored="order the sections in image"
    )
    switch_dataset_every_n: int = _key(ini.to_int, -1, "fork: alternate training sets", ignored=_NOT_BUILT)


@dataclass(frozen=True)
class ClassificationSection:
    """[CLASSIFICATION]: one label per scan."""

    image: tuple[str, ...] = _sources("sections of scans")
    label: tuple[str, ...] = _sources("section of the label")
    sampler: tuple[str, ...] = _sources("section of the sampling map")
    inferred: tuple[str, ...] = _sources(
        "section of classifications to evaluate", ignored="evaluation scores segmentations"
    )
    modality_label: tuple[str, ...] = _sources(
        "fork: section of modality labels", ignored="image_modalities in [PIMMS] says which scan is which"
    )
    num_classes: int = _key(ini.to_int, -1, "classes")
    output_prob: bool = _key(
        ini.to_bool, False, "write probabilities", ignored="modality_scores.csv always holds them, with the best class"
    )
    label_normalisation: bool = _key(ini.to_bool, False, "map the label values found to 0, 1, ...")
    with_bn: bool = _key(ini.to_bool, True, "fork: batch normalisation", ignored="the fork never read it")
    csv_labels: bool = _key(ini.to_bool, False, "fork: labels from a list", ignored="the fork never read it")


@dataclass(frozen=True)
class MultitaskSection:
    """[MULTITASK]: the published PIMMS task, segmentation and modality classification together."""

    image: tuple[str, ...] = _sources("sections of scans, in any order")
    label: tuple[str, ...] = _sources("section of the label map")
    modalities: tuple[str, ...] = _sources("section of the modality labels")
    num_classes_seg: int = _key(ini.to_int, -1, "label values, background included")
    num_classes_classification: int = _key(ini.to_int, -1, "modality classes")
    decay_constant: float = _key(ini.to_float, 0.01, "gamma of the weight exp(-gamma i) of the modality loss", low=0)
    output_prob: bool = _key(ini.to_bool, False, "write probabilities")
    label_normalisation: bool = _key(ini.to_bool, False, "map the label values found to 0, 1, ...")

    @property
    def num_classes(self) -> int:
        return self.num_classes_seg


@dataclass(frozen=True)
class InputSection:
    """Any other section: where one kind of file lies and how it is read.

    `csv_file` of a loaded configuration is an absolute path; folders in `path_to_search` are relative to the working
    directory. `referenced` is no key: it is False for a section that no key of the task names.
    """

    csv_file: str = _key(ini.to_str, "", "list of subject,path; replaces the search")
    csv_data_file: str = _key(
        ini.to_str, "", "list of subject,value,... instead of images", ignored="lists of values are not read"
    )
    to_ohe: bool = _key(ini.to_bool, False, "one-hot encode csv_data_file", ignored="lists of values are not read")
    path_to_search: str = _key(ini.to_str, "", "folders separated by commas, not searched recursively")
    filename_contains: tuple[str, ...] = _key(ini.to_strs, (), "words that all occur in a file's name")
    filename_not_contains: tuple[str, ...] = _key(
        ini.to_strs, (), "words that do not occur in a file's name", keeps_empty=True
    )
    filename_removefromid: str = _key(ini.to_str, "", "regular expression removed from the name to form the id")
    interp_order: int = _key(ini.to_int, 1, "spline order, 0 for labels, -1 never interpolated", low=-1, high=3)
    loader: str | None = _key(
        ini.to_str,
        None,
        "reader of the files",
        "nibabel",
        "opencv",
        "skimage",
        "pillow",
        "simpleitk",
        "dummy",
        fold=True,
    )
    pixdim: tuple[float, ...] = _key(ini.to_floats, (), "target spacing in mm", check=_three_spacings)
    axcodes: tuple[str, ...] = _key(ini.to_strs, (), "target orientation", check=_orientation)
    spatial_window_size: tuple[int, ...] = _key(ini.to_window, (), "window in training, 0 = full length")
    referenced: bool = True


@dataclass(frozen=True)
class PimmsSection:
    """[PIMMS]: what NiftyNet has no key for. A default of None leaves the choice to `preset`."""

    preset: str = _key(ini.to_str, "paper", "values behind every unset choice", "paper", "niftynet2018")
    modalities: tuple[str, ...] = _key(ini.to_strs, (), "modality classes in order; unset: the sections in `image`")
    image_modalities: tuple[str, ...] = _key(ini.to_strs, (), "modality of each section in `image`")
    reference: str = _key(ini.to_str, "", "section whose grid the other scans are resampled onto")
    keep_incomplete: bool = _key(ini.to_bool, True, "keep subjects lacking a scan; False is NiftyNet's rule")
    seed: int = _key(ini.to_int, 0, "of split, sampling and initial weights", low=0)
    spatial_rank: int = _key(ini.to_int, 2, "2 for slices, 3 for volumes", low=2, high=3)
    max_slots: int = _key(ini.to_int, 0, "scans per subject, 0 = as many as there are", low=0)
    attention_normalise: str | None = _key(ini.to_str, None, "divisor of the re-assembly", "none", "sum", "count")
    null_class: bool | None = _key(ini.to_bool, None, "a class for empty slots")
    abstraction_missing: str | None = _key(ini.to_str, None, "absent back-ends", "exclude", "zeros")
    abstraction_ddof: int | None = _key(ini.to_int, None, "variance divides by n - ddof", low=0, high=1)
    mask_scope: str | None = _key(ini.to_str, None, "who decides that a modality is absent", "sample", "batch")
    norm: str | None = _key(ini.to_str, None, "normalisation layer", "batch", "none")
    norm_scope: str | None = _key(ini.to_str, None, "scans that enter its statistics", "present", "all", "slot")
    frontend: str | None = _key(ini.to_str, None, "front-end", "paper", "paper_5x5", "highres_1x1")
    init: str | None = _key(ini.to_str, None, "initial weights", "he_normal", "niftynet")
    average: str | None = _key(ini.to_str, None, "moving averages of the segmenter", "debiased", "plain")
    classifier_blocks: int | None = _key(ini.to_int, None, "blocks per resolution", low=1)
    classifier_features: tuple[int, ...] | None = _key(
        ini.to_ints, None, "features of the stem and of each resolution", check=_widths
    )
    classifier_pool: str | None = _key(ini.to_str, None, "final mean over", "spatial", "spatial_and_channel")
    classifier_head_bn: bool | None = _key(ini.to_bool, None, "normalise the classifier's logits")
    classifier_extra_bn: bool | None = _key(ini.to_bool, None, "normalise the input and before strided convolutions")
    classifier_average: str | None = _key(ini.to_str, None, "moving averages of the classifier", "debiased", "plain")
    classifier_scope: str = _key(ini.to_str, "scan", "one decision per", "scan", "window")
    classifier_slices: int = _key(ini.to_int, 11, "central slices averaged per scan", low=1)
    curriculum: str = _key(
        ini.to_str, "intended", "how many scans are hidden", "intended", "uniform", "student_t", "none"
    )
    curriculum_warmup_iters: int = _key(ini.to_int, 0, "iterations before scans are hidden", low=0)
    permute: bool | None = _key(ini.to_bool, None, "shuffle the scans in training")
    assemble_with: str = _key(ini.to_str, "label", "HeMIS: scans are put in place by", "label", "score")
    segmenter: str = _key(ini.to_str, "", "model folder of the HeMIS weights")
    classifier: str = _key(ini.to_str, "", "model folder of the modality classifier")
    modality_decay: float = _key(ini.to_float, 1e-4, "gamma of lambda(i) = exp(-gamma i)", low=0)
    lr_decay: float = _key(ini.to_float, 0.0, "gamma of lr exp(-gamma i), 0 = the constant rate of NiftyNet", low=0)
    modality_weight: float = _key(ini.to_float, 1.0, "factor of the modality loss", low=0)
    regularise: str | None = _key(ini.to_str, None, "what the weight penalty reaches", "all", "classifier", "none")
    regulariser_reduction: str | None = _key(ini.to_str, None, "weight penalty over weights", "mean", "sum")
    dice_eps: str | None = _key(ini.to_str, None, "where Dice adds its constant", "both", "denominator")
    double_softmax: bool | None = _key(ini.to_bool, None, "softmax inside the network and again in the loss")
    sampling_area: str = _key(ini.to_str, "foreground", "where window centres lie", "foreground", "all")
    early_stopping: bool = _key(ini.to_bool, False, "stop after patience validations without a better loss")
    use_best: bool = _key(ini.to_bool, False, "infer with the checkpoint of the lowest validation loss, not by number")
    subsets: bool = _key(ini.to_bool, False, "run every subset of the scans")
    distance: str = _key(ini.to_str, "mm", "unit of distances", "mm", "niftynet")
    device_threads: int = _key(ini.to_int, 0, "threads of the device, 0 = its own choice", low=0)


TaskSection = SegmentationSection | ClassificationSection | MultitaskSection

SYSTEM_SECTIONS: dict[str, type] = {
    "SYSTEM": SystemSection,
    "NETWORK": NetworkSection,
    "TRAINING": TrainingSection,
    "INFERENCE": InferenceSection,
    "EVALUATION": EvaluationSection,
    "PIMMS": PimmsSection,
}
TASK_SECTIONS: dict[str, type] = {
    "SEGMENTATION": SegmentationSection,
    "CLASSIFICATION": ClassificationSection,
    "MULTITASK": MultitaskSection,
}

# Keys of tasks that are not built, which NiftyNet therefore knows everywhere, and keys that only PyYAML switches on.
OTHER_KEYS: dict[str, str] = {
    **dict.fromkeys(("loss_border", "error_map", "output"), "REGRESSION"),
    **dict.fromkeys(("inference_type", "noise_stddev", "n_interpolations", "feature"), "AUTOENCODER"),
    **dict.fromkeys(("noise_size", "conditioning"), "GAN"),
    **dict.fromkeys(("fixed_image", "fixed_label", "moving_image", "moving_label"), "REGISTRATION"),
    **dict.fromkeys(("weight_initializer_args", "bias_initializer_args"), "NETWORK"),
}
OTHER_TASKS = ("REGRESSION", "AUTOENCODER", "GAN", "REGISTRATION")

# The later fork renamed this key; both spellings mean the same.
ALIASES: dict[str, str] = {"csv_path_file": "csv_file"}
