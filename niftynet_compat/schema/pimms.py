"""[PIMMS]: the keys that are ours.

NiftyNet takes the section for an input source and refuses its keys; a file that both programs shall read has it not.
"""

from dataclasses import dataclass
from typing import ClassVar

from niftynet_compat import ini
from niftynet_compat.schema.keys import key, widths


@dataclass(frozen=True)
class PimmsSection:
    """[PIMMS]: what NiftyNet has no key for. A default of None leaves the choice to `preset`."""

    USED_BY: ClassVar[str] = "train inference evaluation export"

    preset: str = key(ini.to_str, "paper", "values behind every unset choice", "paper", "niftynet2018")
    modalities: tuple[str, ...] = key(ini.to_strs, (), "modality classes in order; unset: the sections in `image`")
    image_modalities: tuple[str, ...] = key(ini.to_strs, (), "modality of each section in `image`")
    value_order: str | None = key(
        ini.to_str,
        None,
        "how words in a csv_data_file of one value per subject are numbered: as in NiftyNet or as in the fork; unset: "
        "names of modalities and class numbers mean themselves, other words are sorted",
        "sorted",
        "appearance",
    )
    reference: str = key(ini.to_str, "", "section whose grid the other scans are resampled onto")
    zero_background: bool = key(
        ini.to_bool, False, "shift scans that were standardised before, with a background below 0, so that it is 0"
    )
    resampling: str | None = key(
        ini.to_str,
        None,
        "onto other voxel sizes; as in NiftyNet, which zeroes the last plane for one pair of lengths in 25 and lets "
        "splines ring where a background is zero, or with both mended",
        "mended",
        "niftynet",
    )
    augmentation: str | None = key(
        ini.to_str,
        None,
        "flips, scaling, rotation and elastic deformation make one change, computed where windows are cut, or each "
        "interpolates the whole volume as in NiftyNet, which takes a hundred times longer",
        "composed",
        "chained",
    )
    weights: str = key(
        ini.to_str, "", "begin with weights that come with the package, their network and preparation", "bundled"
    )
    blank_outside: bool = key(ini.to_bool, False, "scans are 0 outside the foreground, once they are whitened")
    keep_incomplete: bool = key(ini.to_bool, True, "keep subjects lacking a scan; False is NiftyNet's rule")
    seed: int = key(ini.to_int, 0, "of split, sampling and initial weights", low=0)
    spatial_rank: int = key(
        ini.to_int, 2, "2 for slices, 3 for volumes; unset: 3 if all three sizes of the windows exceed 1", low=2, high=3
    )
    max_slots: int = key(ini.to_int, 0, "scans per subject, 0 = as many as there are", low=0)
    attention_normalise: str | None = key(ini.to_str, None, "divisor of the re-assembly", "none", "sum", "count")
    null_class: bool | None = key(ini.to_bool, None, "a class for empty slots")
    abstraction_missing: str | None = key(ini.to_str, None, "absent back-ends", "exclude", "zeros")
    abstraction_ddof: int | None = key(ini.to_int, None, "variance divides by n - ddof", low=0, high=1)
    mask_scope: str | None = key(ini.to_str, None, "absences are found per sample or per batch", "sample", "batch")
    norm: str | None = key(ini.to_str, None, "normalisation layer", "batch", "none")
    norm_scope: str | None = key(ini.to_str, None, "scans that enter its statistics", "present", "all", "slot")
    frontend: str | None = key(ini.to_str, None, "front-end", "paper", "paper_5x5", "highres_1x1")
    init: str | None = key(ini.to_str, None, "initial weights", "he_normal", "niftynet")
    average: str | None = key(ini.to_str, None, "moving averages of the segmenter", "debiased", "plain")
    classifier_blocks: int | None = key(ini.to_int, None, "blocks per resolution", low=1)
    classifier_features: tuple[int, ...] | None = key(
        ini.to_ints, None, "features of the stem and of each resolution", check=widths
    )
    classifier_pool: str | None = key(ini.to_str, None, "final mean over", "spatial", "spatial_and_channel")
    classifier_head_bn: bool | None = key(ini.to_bool, None, "normalise the classifier's logits")
    classifier_extra_bn: bool | None = key(ini.to_bool, None, "normalise the input and before strided convolutions")
    classifier_average: str | None = key(ini.to_str, None, "moving averages of the classifier", "debiased", "plain")
    classifier_scope: str = key(ini.to_str, "scan", "one decision per", "scan", "window")
    classifier_slices: int = key(ini.to_int, 11, "central slices averaged per scan", low=1)
    inference_mode: str = key(
        ini.to_str,
        "auto",
        "how volumes are cut; auto: whole slices, but windows with preset niftynet2018 or where slices cannot be had",
        "auto",
        "slices",
        "windows",
    )
    curriculum: str = key(
        ini.to_str, "intended", "how many scans are hidden", "intended", "uniform", "student_t", "none"
    )
    curriculum_warmup_iters: int = key(ini.to_int, 0, "iterations before scans are hidden", low=0)
    permute: bool | None = key(ini.to_bool, None, "shuffle the scans in training")
    assemble_with: str = key(ini.to_str, "label", "HeMIS: scans are put in place by", "label", "score")
    segmenter: str = key(ini.to_str, "", "model folder of the HeMIS weights")
    classifier: str = key(ini.to_str, "", "model folder of the modality classifier")
    modality_decay: float = key(ini.to_float, 1e-4, "gamma of lambda(i) = exp(-gamma i)", low=0)
    lr_decay: float = key(ini.to_float, 0.0, "gamma of lr exp(-gamma i), 0 = the constant rate of NiftyNet", low=0)
    modality_weight: float = key(ini.to_float, 1.0, "factor of the modality loss", low=0)
    regularise: str | None = key(ini.to_str, None, "what the weight penalty reaches", "all", "classifier", "none")
    regulariser_reduction: str | None = key(ini.to_str, None, "weight penalty over weights", "mean", "sum")
    dice_eps: str | None = key(ini.to_str, None, "where Dice adds its constant", "both", "denominator")
    double_softmax: bool | None = key(ini.to_bool, None, "softmax inside the network and again in the loss")
    sampling_area: str = key(ini.to_str, "foreground", "where window centres lie", "foreground", "all")
    early_stopping: bool = key(ini.to_bool, False, "stop after patience validations without a better loss")
    resume: bool = key(
        ini.to_bool,
        False,
        "train: go on from the latest checkpoint, or begin where there is none; inference: pass over subjects done",
    )
    use_best: bool = key(ini.to_bool, False, "infer with the checkpoint of the lowest validation loss, not by number")
    subsets: bool = key(ini.to_bool, False, "run every subset of the scans")
    distance: str = key(ini.to_str, "mm", "unit of distances", "mm", "niftynet")
    output_names: str = key(
        ini.to_str,
        "auto",
        "names of results as in NiftyNet 0.5 or 0.6; auto: those of 0.6 in net_segment and the like, else of 0.5",
        "auto",
        "niftynet05",
        "niftynet06",
    )
    strategy: str = key(
        ini.to_str,
        "auto",
        "devices of training: one, the GPUs of this process, or the processes that TF_CONFIG or Slurm names",
        "auto",
        "one_device",
        "mirrored",
        "multi_worker",
    )
    worker_timeout: float = key(ini.to_float, 60.0, "seconds after which a silent worker ends the others", low=1)
    precision: str = key(
        ini.to_str,
        "float32",
        "of the convolutions in training; weights, statistics and losses are float32",
        "float32",
        "mixed_bfloat16",
        "mixed_float16",
    )
    inference_precision: str = key(
        ini.to_str,
        "float32",
        "of the convolutions in inference; faster where the processor has bfloat16, for thousandths of Dice",
        "float32",
        "mixed_bfloat16",
    )
    recompute: bool | None = key(
        ini.to_bool, None, "training computes the back-ends twice: a third less memory, a quarter more time"
    )
    device_threads: int = key(ini.to_int, 0, "threads of the device, 0 = its own choice", low=0)
    cache: str = key(
        ini.to_str, "", "folder of prepared scans, or off; unset: pimms-tf in $XDG_CACHE_HOME, which is ~/.cache"
    )
    cache_gib: float = key(ini.to_float, 32.0, "GiB that the folder of prepared scans may hold", low=0)
