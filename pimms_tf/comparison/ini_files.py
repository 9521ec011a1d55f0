"""The INI files of a comparison: the shipped ones with the folders, the voxels and the settings of its scale."""

import re
from collections.abc import Mapping

from pimms_tf.comparison.scales import GIVEN, HOLDOUT_SUBSETS, MODALITIES, UNLABELLED, VOLUMES, Scale, number_of

_SHIPPED = {
    "hemis": "hemis.ini",
    "modality_classifier": "modality_classifier.ini",
    "soft": "pimms_soft.ini",
    "hard": "pimms_hard.ini",
    "online": "pimms_online.ini",
    UNLABELLED: "pimms_online.ini",
    VOLUMES: "hemis.ini",
}


def training_ini(shipped: Mapping[str, str], name: str, size: Scale, seed: int) -> str:
    """The text by which a network, or the modality classifier, is trained; `shipped` are the package's by name."""
    base, number = number_of(name)
    changes = {
        **_common(name, size, seed + number),
        ("TRAINING", "max_iter"): str(size.iterations[base]),
        **{(section, "path_to_search"): "./train/data" for section in (*MODALITIES, "lesion")},
    }
    if name == "modality_classifier":
        # It has no lesions to balance by, and a loss of its own.
        for key in (("NETWORK", "window_sampling"), ("TRAINING", "loss_type"), ("SEGMENTATION", "sampler")):
            changes.pop(key, None)
        changes = {key: value for key, value in changes.items() if key[0] != "lesion"}
    if name == UNLABELLED:
        changes["PIMMS", "modality_weight"] = "0"
    if name == VOLUMES:
        changes |= _in_volumes(size) | {("NETWORK", "batch_size"): "2"}
    return edited(_of(shipped, base), changes)


def holdout_ini(shipped: Mapping[str, str], network: str, holdout: str, size: Scale, seed: int) -> str:
    """The text by which a network segments a holdout and is scored on it."""
    # The largest subset that is scored is all that is read.
    sections = HOLDOUT_SUBSETS[holdout][0]
    split = f"{holdout}_{network}" if network == VOLUMES else holdout
    base, number = number_of(network)
    changes = {
        **_common(network, size, seed + number),
        ("SYSTEM", "dataset_split_file"): f"../../splits/{split}.csv",
        ("INFERENCE", "save_seg_dir"): f"../../results/{holdout}/{network}",
        ("EVALUATION", "save_csv_dir"): f"../../results/{holdout}/{network}",
        ("SEGMENTATION", "image"): ",".join(sections),
        ("PIMMS", "image_modalities"): ",".join(sections),
        **{(section, "path_to_search"): f"./{holdout}/data" for section in (*MODALITIES, "lesion")},
    }
    if network == VOLUMES:
        changes |= _in_volumes(size)
        # All of a volume at once has no seams.
        changes |= {("INFERENCE", "spatial_window_size"): "(0, 0, 0)", ("INFERENCE", "border"): "(0, 0, 0)"}
    # NiftyNet's own tables would be measured beside ours.
    text = re.sub(r"(?m)^evaluations = .*\n", "", edited(_of(shipped, base), changes))
    for section in set(MODALITIES) - set(sections):
        text = re.sub(rf"(?m)^\[{section}\]\n(?:[^\[\n].*\n|\n)*", "", text)
    return _of_patients(text) if holdout == "gold" else text


def _in_volumes(size: Scale) -> dict[tuple[str, str], str]:
    """What makes a network three-dimensional; a front-end of 21×21×21 would cost more than all the rest."""
    return {
        ("PIMMS", "spatial_rank"): "3",
        ("PIMMS", "frontend"): "highres_1x1",
        ("NETWORK", "volume_padding_size"): "(4, 4, 2)",
        **{(section, "spatial_window_size"): str(size.volume_window) for section in (*MODALITIES, "lesion")},
    }


def _of_patients(text: str) -> str:
    """The INI file of a holdout for real patients, whose files lists name."""
    text = re.sub(r"(?m)^(filename_(not_)?contains|path_to_search) = .*\n", "", text)
    lists = {(name, "csv_file"): f"./gold/{name}.csv" for name in GIVEN}
    # Shared scans are often standardised already, so that zero is a brightness of the brain.
    return edited(text, {("PIMMS", "zero_background"): "True", **lists})


def _common(name: str, size: Scale, seed: int) -> dict[tuple[str, str], str]:
    pixdim = f"({', '.join(f'{edge:g}' for edge in size.spacing_mm)})"
    sections = MODALITIES if name == "modality_classifier" else (*MODALITIES, "lesion")
    changes = {
        **size.settings,
        ("SYSTEM", "model_dir"): f"./models/{name}",
        ("SYSTEM", "dataset_split_file"): "../dataset_split.csv",
        ("PIMMS", "seed"): str(seed),
        **{(section, "pixdim"): pixdim for section in sections},
        **{(section, "spatial_window_size"): f"({size.window}, {size.window}, 1)" for section in sections},
    }
    if size.settings.get(("NETWORK", "window_sampling")) == "balanced":
        changes["SEGMENTATION", "sampler"] = "lesion"
    return changes


def _of(shipped: Mapping[str, str], name: str) -> str:
    """The shipped text without the remarks at its head, which speak of the paper's data."""
    return re.sub(r"\A(?:#.*\n)+\n*", "", shipped[_SHIPPED[name]])


def edited(text: str, changes: Mapping[tuple[str, str], str]) -> str:
    """Returns the text of an INI file with other values of these keys; a key that is not there follows its section.

    Raises:
        ValueError: the text has no section of that name.
    """
    for (section, key), value in changes.items():
        head = re.search(rf"(?m)^\[{re.escape(section)}\]\n", text)
        if head is None:
            raise ValueError(f"the configuration has no section [{section}]")
        after = re.search(r"(?m)^\[", text[head.end() :])
        end = len(text) if after is None else head.end() + after.start()
        body = text[head.end() : end]
        body, found = re.subn(rf"(?m)^{re.escape(key)} = .*$", lambda _, line=f"{key} = {value}": line, body)
        text = text[: head.end()] + ("" if found else f"{key} = {value}\n") + body + text[end:]
    return text
