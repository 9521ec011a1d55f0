"""What a comparison consists of: how large it is, its INI files, and its commands in their order.

Each stage is an ordinary command on an ordinary INI file in the folder of the comparison, so any of them can be
repeated, or changed, by hand.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pimms_tf.errors import InputError
from pimms_tf.simulation.cohort import subject_ids

NETWORKS = ("hemis", "soft", "hard", "online")  # the columns of the paper's table
UNLABELLED = "online_unlabelled"  # as online, but never told which scan is which
MODALITIES = ("T1", "T2", "FLAIR")
HOLDOUTS = ("mixed", "silver", "gold")  # scanners of the training; other scanners; real patients
HOLDOUT_SUBSETS: Mapping[str, tuple[tuple[str, ...], ...]] = {  # the rows of the paper's table
    "mixed": (MODALITIES, ("T1", "T2"), ("T1", "FLAIR"), ("T2", "FLAIR"), ("T1",), ("T2",), ("FLAIR",)),
    "silver": (("T1", "FLAIR"), ("T1",), ("FLAIR",)),
    "gold": (("T1", "FLAIR"), ("T1",), ("FLAIR",)),
}
_SHIPPED = {
    "hemis": "hemis.ini",
    "modality_classifier": "modality_classifier.ini",
    "soft": "pimms_soft.ini",
    "hard": "pimms_hard.ini",
    "online": "pimms_online.ini",
    UNLABELLED: "pimms_online.ini",
}
_TRAINED = ("hemis", "modality_classifier", "online", UNLABELLED)


@dataclass(frozen=True)
class Scale:
    """How large a comparison is.

    Args:
        spacing_mm: edge of the voxels of simulated scans, and of those the networks see.
        training_subjects: simulated subjects to learn from, a tenth of them for validation.
        training_hospitals, silver_hospitals: hospitals that the subjects of training and mixed, and of silver, share.
        holdout_subjects: simulated subjects of each holdout.
        load_ml: smallest and largest volume of a subject's lesions.
        window: edge of the square windows that are learnt from, in voxels.
        iterations: of each network that is trained; those not named here are left out.
        settings: of the INI files, {(section, key): value}, for all networks alike.
        budget: what it costs, in words.
    """

    spacing_mm: float
    training_subjects: int
    training_hospitals: int
    silver_hospitals: int
    holdout_subjects: int
    load_ml: tuple[float, float]
    window: int
    iterations: Mapping[str, int]
    settings: Mapping[tuple[str, str], str]
    budget: str


_SHORT = {
    ("NETWORK", "batch_size"): "8",
    ("NETWORK", "window_sampling"): "balanced",
    ("NETWORK", "queue_length"): "64",
    ("TRAINING", "loss_type"): "DicePlusXEnt",
    ("TRAINING", "sample_per_volume"): "4",
    ("TRAINING", "lr"): "1e-3",
    ("TRAINING", "validation_max_iter"): "4",
    ("TRAINING", "exclude_fraction_for_inference"): "0",
    # The paper's nine blocks a resolution take most of the time of a joint training.
    ("PIMMS", "classifier_blocks"): "1",
}

SCALES: Mapping[str, Scale] = {
    "tiny": Scale(
        spacing_mm=4.0,
        training_subjects=4,
        training_hospitals=2,
        silver_hospitals=1,
        holdout_subjects=2,
        load_ml=(20.0, 40.0),
        window=48,
        iterations={"hemis": 4, "modality_classifier": 4, "online": 4, UNLABELLED: 4},
        settings={
            **_SHORT,
            ("NETWORK", "batch_size"): "4",
            ("NETWORK", "queue_length"): "8",
            ("TRAINING", "validation_every_n"): "-1",
        },
        budget="minutes; it shows that the path works, and nothing else",
    ),
    "small": Scale(
        spacing_mm=2.0,
        training_subjects=60,
        training_hospitals=12,
        silver_hospitals=6,
        holdout_subjects=30,
        load_ml=(2.0, 40.0),
        window=100,
        iterations={"hemis": 1200, "modality_classifier": 600, "online": 1200, UNLABELLED: 600},
        settings={
            **_SHORT,
            ("PIMMS", "lr_decay"): "2e-3",
            ("TRAINING", "validation_every_n"): "200",
            ("TRAINING", "save_every_n"): "200",
            ("TRAINING", "max_checkpoints"): "2",
        },
        budget="hours on two cores",
    ),
    "paper": Scale(
        spacing_mm=1.0,
        training_subjects=400,
        training_hospitals=60,
        silver_hospitals=20,
        holdout_subjects=100,
        load_ml=(0.5, 50.0),
        window=100,
        iterations={"hemis": 26_000, "modality_classifier": 100_000, "online": 50_000, UNLABELLED: 50_000},
        settings={("TRAINING", "exclude_fraction_for_inference"): "0"},
        budget="days on a graphics card; networks, batches and steps are those of the paper",
    ),
}


class Stage(NamedTuple):
    """One command of the comparison: its name, and the words after `pimms-tf`."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All of a comparison.

    Args:
        scale: the name of its size.
        seed: of the hospitals, the subjects and the networks.
        files: text of the files to be written into the folder first, by relative path.
        stages: its commands, in order.
        networks: those that are compared, HeMIS first.
        holdouts: {name: subsets of the scans that are scored}.
    """

    scale: str
    seed: int
    files: Mapping[str, str]
    stages: tuple[Stage, ...]
    networks: tuple[str, ...]
    holdouts: Mapping[str, tuple[tuple[str, ...], ...]]


def plan_of(scale: str, seed: int, gold: Sequence[Path], shipped: Mapping[str, str]) -> Plan:
    """Returns the plan of a comparison.

    Args:
        scale: a name in `SCALES`.
        seed: 0 or more.
        gold: folders of real patients, each with T1, FLAIR and lesion (and T2 if there is one) as `.nii.gz`; empty:
            the comparison has no gold holdout.
        shipped: the texts of the INI files that come with the package, by name.

    Raises:
        InputError: an unknown scale, a negative seed, a folder that lacks one of its files, two of one name.
    """
    if scale not in SCALES:
        raise InputError(f"--scale {scale} is not one of {', '.join(SCALES)}")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative: give 0 or more")
    size = SCALES[scale]
    patients = _patients(gold)
    # A subset is scored on all patients, so a modality that one of them lacks is left out.
    sections = [name for name in MODALITIES if all(name in found for found in patients.values())]
    networks = (*NETWORKS, UNLABELLED) if UNLABELLED in size.iterations else NETWORKS
    holdouts = {name: HOLDOUT_SUBSETS[name] for name in HOLDOUTS if name != "gold" or patients}
    files = {f"{name}.ini": _training_ini(shipped, name, size, seed) for name in _TRAINED if name in size.iterations}
    for holdout in holdouts:
        ids = list(patients) if holdout == "gold" else subject_ids(size.holdout_subjects)
        files[f"splits/{holdout}.csv"] = "".join(f"{subject_id},inference\n" for subject_id in ids)
        for network in networks:
            text = _holdout_ini(shipped, network, holdout, size, seed)
            files[f"{holdout}_{network}.ini"] = _of_patients(text, sections) if holdout == "gold" else text
    for section in (*sections, "lesion") if patients else ():
        files[f"gold/{section}.csv"] = "".join(f"{name},{found[section]}\n" for name, found in patients.items())
    return Plan(scale, seed, files, tuple(_stages(size, seed, networks, holdouts)), networks, holdouts)


def _patients(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        folder = Path(folder).resolve()
        files = {name: folder / f"{name}.nii.gz" for name in (*MODALITIES, "lesion")}
        for name in ("T1", "FLAIR", "lesion"):
            if not files[name].is_file():
                raise InputError(f"--gold {folder}: {files[name].name} is not there; a folder holds T1, FLAIR, lesion")
        if folder.name in found:
            raise InputError(f"--gold: two folders are called {folder.name}; patients need names of their own")
        found[folder.name] = {name: path for name, path in files.items() if path.is_file()}
    return found


def _stages(size: Scale, seed: int, networks: Sequence[str], holdouts: Mapping[str, object]) -> list[Stage]:
    def simulate(name: str, subjects: int, hospitals: str, seed: int) -> Stage:
        words = ["--subjects", str(subjects), "--hospitals", hospitals, "--seed", str(seed), "--head", "stripped"]
        words += ["--spacing_mm", f"{size.spacing_mm:g}", "--load_ml", *(f"{load:g}" for load in size.load_ml)]
        return Stage(f"simulate_{name}", ("simulate", name, *words))

    seeds = [1000 * seed + n for n in range(3)]
    stages = [
        simulate("train", size.training_subjects, str(size.training_hospitals), seeds[0]),
        # The scanners of the training, other subjects.
        simulate("mixed", size.holdout_subjects, "train/data/hospitals.json", seeds[1]),
        simulate("silver", size.holdout_subjects, str(size.silver_hospitals), seeds[2]),
    ]
    stages += [
        Stage(f"train_{name}", ("train", f"{name}.ini", "--resume")) for name in _TRAINED if name in size.iterations
    ]
    for holdout in holdouts:
        for network in networks:
            config = f"{holdout}_{network}.ini"
            stages.append(Stage(f"inference_{holdout}_{network}", ("inference", config, "--subsets", "--resume")))
            stages.append(Stage(f"evaluation_{holdout}_{network}", ("evaluation", config, "--subsets")))
    return stages


def _training_ini(shipped: Mapping[str, str], name: str, size: Scale, seed: int) -> str:
    changes = {
        **_common(name, size, seed),
        ("TRAINING", "max_iter"): str(size.iterations[name]),
        **{(section, "path_to_search"): "./train/data" for section in (*MODALITIES, "lesion")},
    }
    if name == "modality_classifier":
        # It has no lesions to balance by, and a loss of its own.
        for key in (("NETWORK", "window_sampling"), ("TRAINING", "loss_type"), ("SEGMENTATION", "sampler")):
            changes.pop(key, None)
        changes = {key: value for key, value in changes.items() if key[0] != "lesion"}
    if name == UNLABELLED:
        changes["PIMMS", "modality_weight"] = "0"
    return edited(_of(shipped, name), changes)


def _holdout_ini(shipped: Mapping[str, str], network: str, holdout: str, size: Scale, seed: int) -> str:
    changes = {
        **_common(network, size, seed),
        ("SYSTEM", "dataset_split_file"): f"../../splits/{holdout}.csv",
        ("INFERENCE", "save_seg_dir"): f"../../results/{holdout}/{network}",
        ("EVALUATION", "save_csv_dir"): f"../../results/{holdout}/{network}",
        **{(section, "path_to_search"): f"./{holdout}/data" for section in (*MODALITIES, "lesion")},
    }
    return edited(_of(shipped, network), changes)


def _of_patients(text: str, sections: Sequence[str]) -> str:
    """The INI file of a holdout for real patients, whose files lists name."""
    names = ",".join(sections)
    text = re.sub(r"(?m)^(filename_(not_)?contains|path_to_search) = .*\n", "", text)
    lists = {(name, "csv_file"): f"./gold/{name}.csv" for name in (*sections, "lesion")}
    # Shared scans are often standardised already, so that zero is a brightness of the brain.
    shared = {("PIMMS", "image_modalities"): names, ("PIMMS", "zero_background"): "True"}
    return edited(text, {("SEGMENTATION", "image"): names, **shared, **lists})


def _common(name: str, size: Scale, seed: int) -> dict[tuple[str, str], str]:
    pixdim = f"({', '.join([f'{size.spacing_mm:g}'] * 3)})"
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
