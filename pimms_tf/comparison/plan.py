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
VOLUMES = "hemis_3d"  # as hemis, with kernels in three dimensions
REPEATED = ("hemis", "online")  # trained again from other seeds, and called as `of_seed` says
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
    VOLUMES: "hemis.ini",
}
_GIVEN = ("T1", "FLAIR", "lesion")  # files of a real patient
_TRAINED = ("hemis", "modality_classifier", "online")


@dataclass(frozen=True)
class Scale:
    """How large a comparison is.

    Args:
        spacing_mm: edges of the voxels of simulated scans, and of those the networks see.
        training_subjects: simulated subjects to learn from, a tenth of them for validation.
        training_hospitals, silver_hospitals: hospitals that the subjects of training and mixed, and of silver, share.
        holdout_subjects: simulated subjects of each holdout.
        load_ml: smallest and largest volume of a subject's lesions.
        window: edge of the square windows that are learnt from, in voxels.
        iterations: of each network that is trained; those not named here are left out.
        settings: of the INI files, {(section, key): value}, for all networks alike.
        volume_window: edges of the blocks that the 3-D network learns from, in voxels.
        volume_subjects: simulated subjects, the first ones of mixed, that the 3-D network is scored on.
        repeats: further seeds, of the networks in `REPEATED`, on the same subjects.
        budget: what it costs, in words.
    """

    spacing_mm: tuple[float, float, float]
    training_subjects: int
    training_hospitals: int
    silver_hospitals: int
    holdout_subjects: int
    load_ml: tuple[float, float]
    window: int
    iterations: Mapping[str, int]
    settings: Mapping[tuple[str, str], str]
    volume_window: tuple[int, int, int]
    volume_subjects: int
    repeats: int
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
        spacing_mm=(4.0, 4.0, 8.0),
        training_subjects=4,
        training_hospitals=2,
        silver_hospitals=1,
        holdout_subjects=2,
        load_ml=(20.0, 40.0),
        window=32,
        iterations={"hemis": 4, "modality_classifier": 4, "online": 4, UNLABELLED: 4, VOLUMES: 2},
        settings={
            **_SHORT,
            ("NETWORK", "batch_size"): "4",
            ("NETWORK", "queue_length"): "8",
            ("TRAINING", "validation_every_n"): "-1",
        },
        volume_window=(16, 16, 8),
        volume_subjects=1,
        repeats=0,
        budget="minutes; it shows that the path works, and nothing else",
    ),
    "small": Scale(
        # Slices as thick as many hospitals take them. In-plane, a band along a ventricle is a voxel or two wide.
        spacing_mm=(3.0, 3.0, 6.0),
        training_subjects=40,
        training_hospitals=10,
        silver_hospitals=6,
        holdout_subjects=30,
        load_ml=(10.0, 60.0),
        window=48,
        iterations={"hemis": 1200, "modality_classifier": 500, "online": 1200, UNLABELLED: 600, VOLUMES: 600},
        settings={
            **_SHORT,
            ("PIMMS", "lr_decay"): "2e-3",
            ("TRAINING", "validation_every_n"): "200",
            ("TRAINING", "save_every_n"): "200",
            ("TRAINING", "max_checkpoints"): "2",
        },
        volume_window=(24, 24, 12),
        volume_subjects=10,
        repeats=2,
        budget="between one and two hours on two cores",
    ),
    "paper": Scale(
        spacing_mm=(1.0, 1.0, 1.0),
        training_subjects=400,
        training_hospitals=60,
        silver_hospitals=20,
        holdout_subjects=100,
        load_ml=(0.5, 50.0),
        window=100,
        iterations={
            "hemis": 26_000,
            "modality_classifier": 100_000,
            "online": 50_000,
            UNLABELLED: 50_000,
            VOLUMES: 26_000,
        },
        settings={("TRAINING", "exclude_fraction_for_inference"): "0"},
        volume_window=(64, 64, 64),
        volume_subjects=100,
        repeats=2,
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
        networks: {holdout: networks that are scored on it, HeMIS first}.
    """

    scale: str
    seed: int
    files: Mapping[str, str]
    stages: tuple[Stage, ...]
    networks: Mapping[str, tuple[str, ...]]


def plan_of(scale: str, seed: int, gold: Sequence[Path], shipped: Mapping[str, str]) -> Plan:
    """Returns the plan of a comparison.

    Args:
        scale: a name in `SCALES`.
        seed: 0 or more.
        gold: folders of real patients, each with T1, FLAIR and lesion as `.nii.gz`; empty: the comparison has no gold
            holdout.
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
    again = tuple(of_seed(name, number) for number in range(1, 1 + size.repeats) for name in REPEATED)
    more = {"mixed": (*_future(size), *again), "silver": again}
    networks = {name: NETWORKS + more.get(name, ()) for name in HOLDOUTS if name != "gold" or patients}
    files = {f"{name}.ini": _training_ini(shipped, name, size, seed) for name in (*_TRAINED, *_future(size), *again)}
    simulated = subject_ids(size.holdout_subjects)
    for holdout in networks:
        files[f"splits/{holdout}.csv"] = _split(list(patients) if holdout == "gold" else simulated)
        for network in networks[holdout]:
            files[f"{holdout}_{network}.ini"] = _holdout_ini(shipped, network, holdout, size, seed)
    if VOLUMES in size.iterations:
        files[f"splits/mixed_{VOLUMES}.csv"] = _split(simulated[: size.volume_subjects])
    for name in _GIVEN if patients else ():
        files[f"gold/{name}.csv"] = "".join(
            f"{patient},{folder / name}.nii.gz\n" for patient, folder in patients.items()
        )
    return Plan(scale, seed, files, tuple(_stages(size, seed, networks)), networks)


def of_seed(network: str, number: int) -> str:
    """What a network is called that is trained from the seed so many after that of the comparison; 0 is itself."""
    return f"{network}_seed{number}" if number else network


def _number_of(network: str) -> tuple[str, int]:
    """The inverse of `of_seed`."""
    name, _, number = network.partition("_seed")
    return name, int(number or 0)


def _future(size: Scale) -> list[str]:
    """What the paper left to future work, as far as the scale has it."""
    return [name for name in (UNLABELLED, VOLUMES) if name in size.iterations]


def _split(ids: Sequence[str]) -> str:
    return "".join(f"{subject_id},inference\n" for subject_id in ids)


def _patients(folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        folder = Path(folder).resolve()
        for name in _GIVEN:
            if not (folder / f"{name}.nii.gz").is_file():
                raise InputError(f"--gold {folder}: {name}.nii.gz is not there; a folder holds {', '.join(_GIVEN)}")
        if folder.name in found:
            raise InputError(f"--gold: two folders are called {folder.name}; patients need names of their own")
        found[folder.name] = folder
    return found


def _stages(size: Scale, seed: int, networks: Mapping[str, Sequence[str]]) -> list[Stage]:
    def simulate(name: str, subjects: int, hospitals: str, seed: int) -> Stage:
        words = ["--subjects", str(subjects), "--hospitals", hospitals, "--seed", str(seed), "--head", "stripped"]
        words += ["--spacing_mm", *(f"{edge:g}" for edge in size.spacing_mm)]
        words += ["--load_ml", *(f"{load:g}" for load in size.load_ml), "--num_threads", "2"]
        return Stage(f"simulate_{name}", ("simulate", name, *words))

    def train(name: str) -> Stage:
        return Stage(f"train_{name}", ("train", f"{name}.ini", "--resume"))

    seeds = [1000 * seed + n for n in range(3)]
    stages = [
        simulate("train", size.training_subjects, str(size.training_hospitals), seeds[0]),
        # The scanners of the training, other subjects.
        simulate("mixed", size.holdout_subjects, "train/data/hospitals.json", seeds[1]),
        simulate("silver", size.holdout_subjects, str(size.silver_hospitals), seeds[2]),
        *(train(name) for name in _TRAINED),
    ]
    # The paper's table comes first, then what it left to future work, then other seeds.
    again = [[of_seed(name, number) for name in REPEATED] for number in range(1, 1 + size.repeats)]
    for wanted in (NETWORKS, *([name] for name in _future(size)), *again):
        stages += [train(name) for name in wanted if wanted is not NETWORKS]
        for holdout, names in networks.items():
            for name in (name for name in names if name in wanted):
                config = f"{holdout}_{name}.ini"
                stages.append(Stage(f"inference_{holdout}_{name}", ("inference", config, "--subsets", "--resume")))
                stages.append(Stage(f"evaluation_{holdout}_{name}", ("evaluation", config, "--subsets")))
    return stages


def _training_ini(shipped: Mapping[str, str], name: str, size: Scale, seed: int) -> str:
    base, number = _number_of(name)
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


def _holdout_ini(shipped: Mapping[str, str], network: str, holdout: str, size: Scale, seed: int) -> str:
    # The largest subset that is scored is all that is read.
    sections = HOLDOUT_SUBSETS[holdout][0]
    split = f"{holdout}_{network}" if network == VOLUMES else holdout
    base, number = _number_of(network)
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
    lists = {(name, "csv_file"): f"./gold/{name}.csv" for name in _GIVEN}
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
