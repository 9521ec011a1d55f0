"""[SYSTEM], [NETWORK], [TRAINING], [INFERENCE] and [EVALUATION]: keys, defaults and verdicts.

Source: `niftynet/utilities/user_parameters_default.py`; the fork's trees.
"""

from dataclasses import dataclass
from typing import ClassVar

from niftynet_compat import ini
from niftynet_compat.schema.choices import (
    ACTIVATIONS,
    DATASETS,
    EARLY_STOPPING_MODES,
    EVENT_HANDLERS,
    INITIALISERS,
    LOSSES,
    MASKS,
    METRICS,
    OPTIMISERS,
    PADDING_MODES,
)
from niftynet_compat.schema.keys import (
    Ruling,
    Verdict,
    differs,
    flip_axes,
    key,
    pair,
    pattern,
    percentiles,
    sizes,
    unsupported,
)
from niftynet_compat.schema.programs import NETWORKS

UNIFORM = "centres of uniform windows lie in slices that show brain unless sampling_area = all in [PIMMS]"
_VOXEL_DISTANCE = differs(
    "distances in NiftyNet's tables are in voxels of the file's own grid, not of the preprocessed one; evaluation.csv "
    "has them in mm",
    changes_results=True,
)


def _network_words() -> dict[str, Ruling]:
    rows = {}
    for name, network in NETWORKS.items():
        if network.ours is None:
            rows[name] = unsupported(f"{name} is not built here: {network.reason}", stops=True)
        else:
            what = "is a network of this package" if name == network.ours else f"means {network.ours} here"
            rows[name] = Ruling(Verdict.HONOURED, f"{name} {what}")
    return rows


@dataclass(frozen=True)
class SystemSection:
    """[SYSTEM]: devices and folders."""

    USED_BY: ClassVar[str] = "train inference evaluation export"

    cuda_devices: str = key(
        ini.to_str,
        "",
        "exported as CUDA_VISIBLE_DEVICES if it has a digit",
        keeps_empty=True,
        used_by="train inference",
    )
    num_threads: int = key(
        ini.to_int,
        2,
        "threads that load and sample in training",
        differs="results do not depend on their number",
        used_by="train",
    )
    num_gpus: int = key(
        ini.to_int,
        1,
        "replicas; batch_size is per replica",
        low=0,
        differs="unset means all there are; statistics and losses are those of all replicas' windows together; more "
        "than there are is an error",
        used_by="train",
    )
    model_dir: str = key(
        ini.to_str,
        "",
        "folder of the model; unset: `model` beside the INI file",
        differs="it is a plain folder, never the name of a Python module",
    )
    dataset_split_file: str = key(
        ini.to_str,
        "./dataset_split.csv",
        "subject,phase list, in model_dir",
        differs_at_default=True,
        differs="a list that shares no subject with the data, or lacks a phase that dataset_to_infer names, is an "
        "error; NiftyNet then took all subjects",
        used_by="train inference evaluation",
    )
    event_handler: tuple[str, ...] = key(
        ini.to_strs,
        EVENT_HANDLERS,
        "steps of the loop",
        no_effect="the loop is fixed: it saves, restores, logs and writes results",
        words={
            "early_stopper": unsupported("early_stopper is not built; early_stopping = True in [PIMMS] stops early")
        },
        used_by="train",
    )
    iteration_generator: str = key(
        ini.to_str,
        "iteration_generator",
        "order of training and validation iterations",
        unsupported="the loop is fixed",
        used_by="train",
    )


@dataclass(frozen=True)
class NetworkSection:
    """[NETWORK]: the network, its windows and the preprocessing of volumes."""

    USED_BY: ClassVar[str] = "train inference"

    name: str = key(
        ini.to_str,
        "",
        "network, a name of NETWORKS; required",
        words=_network_words(),
        used_by="train inference evaluation export",
    )
    activation_function: str = key(
        ini.to_str,
        "relu",
        "activation",
        *ACTIVATIONS,
        fold=True,
        unsupported="the networks here have the published activations",
    )
    batch_size: int = key(ini.to_int, 2, "windows per step and replica", low=1)
    smaller_final_batch_mode: str = key(
        ini.to_str,
        "pad",
        "last batch",
        "pad",
        "drop",
        "dynamic",
        fold=True,
        no_effect="training batches are always full, and at inference every window counts",
    )
    decay: float = key(ini.to_float, 0.0, "weight penalty factor, 0 = none", low=0, used_by="train")
    reg_type: str = key(ini.to_str, "L2", "weight penalty", "L2", "L1", fold=True, used_by="train")
    volume_padding_size: tuple[int, ...] = key(
        ini.to_spatial3, (0, 0, 0), "voxels added on both sides of each axis", check=sizes
    )
    volume_padding_mode: str = key(ini.to_str, "minimum", "what the padding holds, as in numpy.pad", *PADDING_MODES)
    volume_padding_to_size: tuple[int, ...] = key(
        ini.to_spatial3, (0,), "pad up to this size instead, (0,) = off", check=sizes
    )
    window_sampling: str = key(
        ini.to_str,
        "uniform",
        "where windows are cut",
        "uniform",
        "resize",
        "balanced",
        "weighted",
        "patch",
        words={
            "uniform": differs(UNIFORM),
            "patch": unsupported("patch is treated as uniform; its selection of windows is not built"),
        },
    )
    force_output_identity_resizing: bool = key(
        ini.to_bool,
        False,
        "resize sampler: output keeps its own size",
        unsupported="labels are resized to the window like the scans",
    )
    queue_length: int = key(ini.to_int, 5, "shuffle buffer, at least 5 batches", used_by="train")
    keep_prob: float = key(
        ini.to_float,
        1.0,
        "probability of keeping a unit in dropout",
        low=0,
        high=1,
        unsupported="the networks here have no dropout",
    )
    histogram_ref_file: str = key(
        ini.to_str,
        "./histogram_ref_file.txt",
        "landmarks and label maps, in model_dir",
        keeps_empty=True,
        differs_at_default=True,
        differs="label values that the file does not list become 0 as in NiftyNet, but with a warning",
        used_by="train inference evaluation export",
    )
    norm_type: str = key(ini.to_str, "percentile", "landmarks in use", "percentile", "quartile", "median", fold=True)
    cutoff: tuple[float, ...] = key(ini.to_floats, (0.01, 0.99), "outer landmarks as fractions", check=percentiles)
    normalisation: bool = key(ini.to_bool, False, "histogram standardisation")
    rgb_normalisation: bool = key(
        ini.to_bool, False, "histogram equalisation of colour images", unsupported="scans here have no colours"
    )
    whitening: bool = key(ini.to_bool, False, "zero mean and unit variance per volume")
    normalise_foreground_only: bool = key(ini.to_bool, False, "statistics from the foreground only")
    foreground_type: str = key(
        ini.to_str, "otsu_plus", "what counts as foreground; brain, which NiftyNet lacks, finds it", *MASKS, fold=True
    )
    multimod_foreground_type: str = key(
        ini.to_str,
        "and",
        "masks of several scans",
        "and",
        "or",
        "multi",
        fold=True,
        words={"multi": differs("multi gives each scan its own mask, where NiftyNet's masks came out empty", True)},
    )
    weight_initializer: str = key(
        ini.to_str,
        "he_normal",
        "initial weights",
        *INITIALISERS,
        unsupported="init in [PIMMS] chooses the initial weights",
        used_by="train",
    )
    bias_initializer: str = key(
        ini.to_str,
        "zeros",
        "initial biases",
        *INITIALISERS,
        unsupported="biases begin at zero in the networks here",
        used_by="train",
    )
    num_threads: int = key(
        ini.to_int,
        5,
        "processes scanning labels",
        command_line=False,
        fork=True,
        no_effect="labels are scanned in one process",
        used_by="train",
    )


@dataclass(frozen=True)
class TrainingSection:
    """[TRAINING]: the loop, the loss and the augmentation."""

    USED_BY: ClassVar[str] = "train"

    optimiser: str = key(ini.to_str, "adam", "optimiser", *OPTIMISERS)
    sample_per_volume: int = key(ini.to_int, 1, "windows drawn per loaded subject", low=1)
    lr: float = key(ini.to_float, 0.01, "learning rate", low=0)
    loss_type: str = key(
        ini.to_str,
        "Dice",
        "segmentation or classification loss",
        *LOSSES,
        words={
            word: unsupported(f"{word} is not built, so training stops; choose another loss", stops=True)
            for word in ("DicePlusXEntTopK", "MultiLabelCrossEntropy")
        },
    )
    starting_iter: int = key(
        ini.to_int,
        0,
        "0 random, below 0 latest checkpoint, N checkpoint N",
        differs="0 refuses a model_dir that holds checkpoints, which NiftyNet wrote over",
        differs_at_default=True,
    )
    max_iter: int = key(ini.to_int, 10000, "number of the last iteration")
    save_every_n: int = key(ini.to_int, 500, "iterations between checkpoints, 0 = only at the end")
    max_checkpoints: int = key(ini.to_int, 100, "checkpoints kept, at least 2")
    tensorboard_every_n: int = key(ini.to_int, 20, "iterations between event records, 0 or less = never")
    validation_every_n: int = key(
        ini.to_int,
        -1,
        "iterations between validation passes, 0 or less = never",
        differs="validation uses the moving statistics of the network, as inference does; NiftyNet used those of the "
        "batch",
    )
    validation_max_iter: int = key(
        ini.to_int, 1, "batches per validation pass", differs="every pass sees the same windows"
    )
    exclude_fraction_for_validation: float = key(
        ini.to_float, 0.0, "fraction of subjects", low=0, high=1, differs="the draw has a seed, [PIMMS] seed"
    )
    exclude_fraction_for_inference: float = key(
        ini.to_float, 0.0, "fraction of subjects", low=0, high=1, differs="the draw has a seed, [PIMMS] seed"
    )
    vars_to_restore: str = key(
        ini.to_str,
        "",
        "regular expression: restore only these weights",
        check=pattern,
        differs="names are those of the variables here, and what is restored still trains",
    )
    vars_to_freeze: str = key(
        ini.to_str,
        "",
        "regular expression: weights that do not train",
        check=pattern,
        differs="names are those of the variables here; unset freezes nothing, where NiftyNet took vars_to_restore",
    )
    rotation_angle: tuple[float, ...] = key(ini.to_floats, (), "lowest, highest angle in degrees", check=pair)
    rotation_angle_x: tuple[float, ...] = key(ini.to_floats, (), "the same about x", check=pair)
    rotation_angle_y: tuple[float, ...] = key(ini.to_floats, (), "the same about y", check=pair)
    rotation_angle_z: tuple[float, ...] = key(ini.to_floats, (), "the same about z", check=pair)
    scaling_percentage: tuple[float, ...] = key(ini.to_floats, (), "lowest, highest change in percent", check=pair)
    isotropic_scaling: bool = key(ini.to_bool, False, "one factor for all axes")
    antialiasing: bool = key(ini.to_bool, True, "smooth before shrinking")
    random_flipping_axes: tuple[int, ...] = key(ini.to_ints, (-1,), "axes that may be flipped", check=flip_axes)
    do_elastic_deformation: bool = key(ini.to_bool, False, "elastic deformation")
    num_ctrl_points: int = key(ini.to_int, 4, "elastic: control points per axis", low=1)
    deformation_sigma: float = key(ini.to_float, 15, "elastic: strength in voxels", low=0)
    proportion_to_deform: float = key(ini.to_float, 0.5, "elastic: fraction of subjects", low=0, high=1)
    bias_field_range: tuple[float, ...] = key(
        ini.to_floats,
        (),
        "bias field coefficients",
        check=pair,
        differs="every network gets it; NiftyNet had it in one contributed program only",
    )
    bf_order: int = key(ini.to_int, 3, "bias field order", low=0)
    patience: int = key(
        ini.to_int,
        100,
        "early stopping: validations without gain",
        low=1,
        differs="it counts validations without a better loss, and only with early_stopping = True in [PIMMS]",
    )
    early_stopping_mode: str = key(
        ini.to_str,
        "mean",
        "early stopping rule",
        *EARLY_STOPPING_MODES,
        no_effect="early stopping waits for a better validation loss, patience validations long",
    )
    do_whole_volume_validation: bool = key(
        ini.to_bool,
        False,
        "validate on whole volumes by the path of inference, all validation subjects, loss = 1 - mean Dice",
        fork=True,
    )
    curriculum_learning_iter: int = key(
        ini.to_int,
        0,
        "first iterations, in which pimms_online trains only its classifier",
        low=0,
        differs="gradients are not clipped; the fork cut them at 100",
        fork=True,
    )


@dataclass(frozen=True)
class InferenceSection:
    """[INFERENCE]: which subjects, which checkpoint, where results go."""

    USED_BY: ClassVar[str] = "inference"

    spatial_window_size: tuple[int, ...] = key(
        ini.to_window,
        (),
        "window; unset: that of training; 0 = full length",
        differs="a full length is that of each scan; NiftyNet took the first one's for all",
        used_by="inference export",
    )
    inference_iter: int = key(ini.to_int, -1, "checkpoint, below 0 the latest", used_by="inference export")
    dataset_to_infer: str = key(
        ini.to_str,
        "",
        "phases; unset: inference, or all (with a warning) if the split has none",
        *DATASETS,
        fold=True,
        several=True,
        differs="several phases may be named, and a named one without subjects is an error; NiftyNet then took all "
        "subjects",
        used_by="inference evaluation",
    )
    save_seg_dir: str = key(ini.to_str, "./output", "folder of results, in model_dir", used_by="inference evaluation")
    output_postfix: str = key(
        ini.to_str,
        "_niftynet_out",
        "added to the subject id",
        keeps_empty=True,
        differs_at_default=True,
        differs="files are called <id><postfix>.nii.gz as up to NiftyNet 0.5; [PIMMS] output_names gives those of 0.6",
    )
    output_interp_order: int = key(
        ini.to_int,
        0,
        "spline order back to the original grid",
        low=0,
        high=3,
        differs="above 0, labels are the best of the interpolated probabilities; NiftyNet interpolated label numbers",
    )
    border: tuple[int, ...] = key(
        ini.to_spatial3,
        (0, 0, 0),
        "voxels cut off each side of a window",
        check=sizes,
        differs="along axes on which windows are one voxel thick nothing is cut off",
    )
    fill_constant: float = key(ini.to_float, 0.0, "value where no window wrote")


@dataclass(frozen=True)
class EvaluationSection:
    """[EVALUATION]: metrics and where their tables go."""

    USED_BY: ClassVar[str] = "evaluation"

    evaluations: str = key(
        ini.to_str,
        "",
        "metrics of NiftyNet's tables; unset: evaluation.csv alone",
        *METRICS,
        several=True,
        differs_at_default=True,
        differs="measured on the files' own grid; NiftyNet measured on the preprocessed one",
        words={
            **dict.fromkeys(("average_distance", "hausdorff_distance", "hausdorff95_distance"), _VOXEL_DISTANCE),
            **dict.fromkeys(
                ("classification_accuracy", "roc_auc", "roc"),
                unsupported("evaluation scores segmentations alone, so this metric stops it", stops=True),
            ),
        },
    )
    save_csv_dir: str = key(
        ini.to_str,
        "./evaluation",
        "folder of tables, in model_dir",
        differs_at_default=True,
        differs="evaluation.csv and evaluation_summary.csv stand beside NiftyNet's tables",
    )
