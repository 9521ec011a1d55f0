"""What a file means otherwise here than in NiftyNet though every key is honoured, which a table of keys hides."""

from typing import NamedTuple

from niftynet_compat.runs.model_dir import ModelDir
from niftynet_compat.schema import programs
from niftynet_compat.schema.keys import shown
from niftynet_compat.schema.programs import NETWORKS
from niftynet_compat.schema.system import UNIFORM
from niftynet_compat.settings.config import Config, Inspection
from niftynet_compat.settings.requirements import WHITENING

_SEGMENTERS = ("hemis", "pimms_soft", "pimms_hard", "pimms_online")
_STACKED = {
    "label": ("train", "evaluation"),
    "sampler": ("train",),
    "inferred": ("evaluation",),
    "modalities": ("train",),
}


class Difference(NamedTuple):
    """What is different about a key, or about its being left out, and the verbs whose results change by it."""

    sentence: str
    changes_results: bool
    verbs: tuple[str, ...] = ("train", "inference")


def differences(inspection: Inspection) -> dict[tuple[str, str], Difference]:
    """Returns {(section, key): difference}; the key may be absent from the file."""
    config = inspection.config
    if not config.application:
        return {}
    given = {(section.name, key) for section in inspection.file.sections for key in section.entries}
    ours = programs.ours(config.network.name)
    rows: dict[tuple[str, str], Difference] = {}
    training = config.training
    if training.vars_to_restore and not training.vars_to_freeze:
        rows["TRAINING", "vars_to_freeze"] = Difference(
            "unset, it freezes nothing; NiftyNet froze what vars_to_restore = "
            f"{training.vars_to_restore} matches, which vars_to_freeze with the same value does here",
            True,
            ("train",),
        )
    rows |= _start(config)
    if ours in _SEGMENTERS and config.pimms.spatial_rank == 2:
        rows |= _two_dimensional(config, given)
    if config.task_name == "MULTITASK" and config.network.decay == 0:
        rows["NETWORK", "decay"] = Difference(
            "with decay = 0 the released program had no modality loss; here modality_weight = 0 in [PIMMS] switches it "
            "off",
            True,
            ("train",),
        )
    if config.task_name == "MULTITASK" and config.pimms.modality_weight == 1.0:
        rows["MULTITASK", "decay_constant"] = Difference(
            "the modality loss is weighed by exp(-gamma i); the released program took 10 exp(-gamma i) and a tenth of "
            "the segmentation loss, which is modality_weight = 100 in [PIMMS]",
            True,
            ("train",),
        )
    rows |= _network(config, ours)
    rows |= _whole_slices(config, given, ours)
    rows |= _whole_scans(config, given)
    rows |= _mended_resampling(config, given)
    rows |= _composed_augmentation(config, given)
    for key, verbs in _STACKED.items():
        if len(config.sources(key)) > 1:
            rows[config.task_name, key] = Difference("NiftyNet stacks all of them", True, verbs)
    is_cut = config.network.window_sampling == "uniform" and config.pimms.sampling_area != "all"
    if is_cut and config.task_name != "CLASSIFICATION":
        # Where the key is in the file, its verdict says it.
        rows.setdefault(("NETWORK", "window_sampling"), Difference(UNIFORM, False))
    rows |= _label_window(config)
    sampler = config.sources("sampler")
    if sampler and config.network.window_sampling not in ("weighted", "balanced"):
        rows[config.task_name, "sampler"] = Difference(
            f"window_sampling = {config.network.window_sampling} does not look at it, but training leaves out subjects "
            f"without a file in [{sampler[0]}], as NiftyNet does",
            False,
        )
    return rows


def _start(config: Config) -> dict[tuple[str, str], Difference]:
    training = config.training
    try:
        present = ModelDir(config.model_dir).iterations()
    except OSError:
        present = []
    key = ("TRAINING", "starting_iter")
    if present and ModelDir(config.model_dir).is_niftynets(present[-1]):
        text = (
            f"model_dir holds NiftyNet's checkpoints up to iteration {present[-1]}, which pimms-tf import-checkpoint "
            "turns into a model_dir of ours; training and inference stop at them"
        )
        return {("SYSTEM", "model_dir"): Difference(text, False)}
    if config.pimms.resume:
        return {}
    if training.starting_iter == 0 and present:
        text = (
            f"model_dir holds checkpoints up to iteration {present[-1]}, so training refuses; NiftyNet wrote over them"
        )
        return {key: Difference(text, False)}
    texts = []
    if training.starting_iter < 0 and not present:
        texts.append("training needs a checkpoint in model_dir, as in NiftyNet; give 0 to begin")
    elif training.starting_iter > 0 and training.starting_iter not in present:
        texts.append("training needs that checkpoint in model_dir, as in NiftyNet")
    if training.starting_iter >= training.max_iter:
        texts.append(f"max_iter = {training.max_iter} is not above it, so training makes no step, as in NiftyNet")
    return {key: Difference("; ".join(texts), False)} if texts else {}


def _network(config: Config, ours: str | None) -> dict[tuple[str, str], Difference]:
    """What the network is otherwise than the original's, by whatever name of it the file calls it."""
    if ours is None:
        return {}
    named = NETWORKS[config.network.name]
    means = "" if config.network.name == ours else f"it means {ours} here; "
    if config.pimms.spatial_rank == 3 and ours in _SEGMENTERS:
        return {("NETWORK", "name"): Difference(f"{means}{programs.VOLUMES}", True)}
    if named.reason:
        return {("NETWORK", "name"): Difference(f"{means}{named.reason}", True)}
    if config.pimms.preset != "paper":
        return {("NETWORK", "name"): Difference(f"{means}it is built as the released program", False)} if means else {}
    text = f"{means}it is built as the paper says; preset = niftynet2018 in [PIMMS] builds it as the released program"
    return {("NETWORK", "name"): Difference(f"{text} did", True)}


def _whole_slices(config: Config, given: set[tuple[str, str]], ours: str | None) -> dict[tuple[str, str], Difference]:
    """Windows and borders of inference, where volumes are segmented by whole slices instead."""
    pimms = config.pimms
    if ours not in _SEGMENTERS:
        return {}
    if pimms.inference_mode != "auto" or pimms.preset == "niftynet2018" or pimms.spatial_rank == 3:
        return {}
    by_windows = config.network.window_sampling == "resize" or pimms.mask_scope == "batch"
    if by_windows or (pimms.classifier_scope == "window" and ours != "hemis"):
        return {}
    text = "inference takes whole slices, which have no seams; inference_mode = windows in [PIMMS] cuts windows"
    keys = [("INFERENCE", key) for key in ("spatial_window_size", "border")]
    return {key: Difference(text, True, ("inference",)) for key in keys if key in given}


def _mended_resampling(config: Config, given: set[tuple[str, str]]) -> dict[tuple[str, str], Difference]:
    """Voxel sizes onto which sections are resampled otherwise than in NiftyNet."""
    if (config.pimms.resampling or config.pimms.preset) in ("niftynet", "niftynet2018"):
        return {}
    text = (
        "resampling interpolates the last plane too, which NiftyNet zeroes for one pair of lengths in 25, and keeps a "
        "background of 0; resampling = niftynet in [PIMMS] does neither"
    )
    return {(name, "pixdim"): Difference(text, True) for name in config.inputs if (name, "pixdim") in given}


def _composed_augmentation(config: Config, given: set[tuple[str, str]]) -> dict[tuple[str, str], Difference]:
    """Random changes of geometry that are interpolated together, where NiftyNet does so after each."""
    if (config.pimms.augmentation or config.pimms.preset) in ("chained", "niftynet2018"):
        return {}
    text = (
        "flips, scaling, rotation and elastic deformation are composed and interpolated once, where windows are cut; "
        "augmentation = chained in [PIMMS] interpolates the whole volume after each, as NiftyNet does"
    )
    rotations = ("rotation_angle", *(f"rotation_angle_{axis}" for axis in "xyz"))
    keys = [("TRAINING", key) for key in ("scaling_percentage", *rotations, "do_elastic_deformation")]
    return {key: Difference(text, True, ("train",)) for key in keys if key in given}


def _whole_scans(config: Config, given: set[tuple[str, str]]) -> dict[tuple[str, str], Difference]:
    """Windows and borders of inference where scans are classified, which are those of segmentation.

    Source: `niftynet/application/classification_application.py`, which zooms every volume to the window and looks at no
    border; it knows no other `window_sampling` than resize.
    """
    if config.task_name != "CLASSIFICATION":
        return {}
    text = "a classifier looks at slices of each scan as they are; window_sampling = resize zooms them to the window"
    if config.network.window_sampling == "resize":
        text = (
            "slices are zoomed to the window and the scores of the central ones averaged; NiftyNet zoomed the volume "
            "to the window and scored that"
        )
    uncut = "nothing is cut off what a classifier looks at, as in NiftyNet"
    rows = {
        ("INFERENCE", "spatial_window_size"): Difference(text, True, ("inference",)),
        ("INFERENCE", "border"): Difference(uncut, False, ("inference",)),
    }
    return {key: row for key, row in rows.items() if key in given}


def _label_window(config: Config) -> dict[tuple[str, str], Difference]:
    """A window of the labels that is not the images': NiftyNet cuts it from the middle of theirs."""
    images = [config.inputs[name].spatial_window_size for name in config.sources("image") if name in config.inputs]
    labels = config.sources("label")[:1] if config.task_name != "CLASSIFICATION" else ()
    for name in labels:
        window = config.inputs[name].spatial_window_size if name in config.inputs else ()
        if window and images and images[0] and window != images[0]:
            text = (
                f"labels are cut like the scans, in windows of {shown(images[0])}; NiftyNet cut windows of "
                f"{shown(window)} from their middle"
            )
            return {(name, "spatial_window_size"): Difference(text, True, ("train",))}
    return {}


def _two_dimensional(config: Config, given: set[tuple[str, str]]) -> dict[tuple[str, str], Difference]:
    rows = {}
    if config.network.window_sampling != "resize":
        rows["NETWORK", "window_sampling"] = Difference(
            f"{shown(config.network.window_sampling)} cuts windows out; the released 2-D program zoomed every slice to "
            "the window whatever was set, which is window_sampling = resize",
            True,
        )
    if not config.network.whitening and not config.network.normalisation:
        rows["NETWORK", "whitening"] = Difference(WHITENING, True)
    if ("INFERENCE", "sample_per_volume") in given:
        rows["INFERENCE", "sample_per_volume"] = Difference(
            "the released 2-D program read it as the number of windows per slice, of which there is one here", False
        )
    return rows
