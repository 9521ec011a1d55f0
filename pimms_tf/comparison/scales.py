"""The networks, the holdouts and the sizes of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass

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
GIVEN = ("T1", "FLAIR", "lesion")  # files of a real patient
TRAINED = ("hemis", "modality_classifier", "online")


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


def of_seed(network: str, number: int) -> str:
    """What a network is called that is trained from the seed so many after that of the comparison; 0 is itself."""
    return f"{network}_seed{number}" if number else network


def number_of(network: str) -> tuple[str, int]:
    """The inverse of `of_seed`."""
    name, _, number = network.partition("_seed")
    return name, int(number or 0)
