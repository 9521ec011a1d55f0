"""What a comparison consists of: its files, and its commands in their order.

Each stage is an ordinary command on an ordinary INI file in the folder of the comparison, so any of them can be
repeated, or changed, by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pimms_tf.comparison.ini_files import holdout_ini, training_ini
from pimms_tf.comparison.scales import (
    GIVEN,
    HOLDOUTS,
    NETWORKS,
    REPEATED,
    SCALES,
    TRAINED,
    UNLABELLED,
    VOLUMES,
    Scale,
    of_seed,
)
from pimms_tf.errors import InputError
from pimms_tf.simulation.cohort import subject_ids


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
    files = {f"{name}.ini": training_ini(shipped, name, size, seed) for name in (*TRAINED, *_future(size), *again)}
    simulated = subject_ids(size.holdout_subjects)
    for holdout in networks:
        files[f"splits/{holdout}.csv"] = _split(list(patients) if holdout == "gold" else simulated)
        for network in networks[holdout]:
            files[f"{holdout}_{network}.ini"] = holdout_ini(shipped, network, holdout, size, seed)
    if VOLUMES in size.iterations:
        files[f"splits/mixed_{VOLUMES}.csv"] = _split(simulated[: size.volume_subjects])
    for name in GIVEN if patients else ():
        files[f"gold/{name}.csv"] = "".join(
            f"{patient},{folder / name}.nii.gz\n" for patient, folder in patients.items()
        )
    return Plan(scale, seed, files, tuple(_stages(size, seed, networks)), networks)


def _future(size: Scale) -> list[str]:
    """What the paper left to future work, as far as the scale has it."""
    return [name for name in (UNLABELLED, VOLUMES) if name in size.iterations]


def _split(ids: Sequence[str]) -> str:
    return "".join(f"{subject_id},inference\n" for subject_id in ids)


def _patients(folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        folder = Path(folder).resolve()
        for name in GIVEN:
            if not (folder / f"{name}.nii.gz").is_file():
                raise InputError(f"--gold {folder}: {name}.nii.gz is not there; a folder holds {', '.join(GIVEN)}")
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
        *(train(name) for name in TRAINED),
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
