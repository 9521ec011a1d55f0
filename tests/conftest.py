"""What tests of the whole program share: a few small simulated subjects, a small configuration, a trained model."""

import logging
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# What a busy machine is slow with is no mistake.
hypothesis_settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any machine")

# Where several processes share the tests, TensorFlow's threads share the cores; before TensorFlow is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    threads = str(max((os.cpu_count() or 1) // workers, 1))
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, threads)

MODALITIES = ("T1", "T2", "FLAIR")
SUBJECTS = tuple(f"sub{number:02d}" for number in range(6))
# Two subjects for each phase; voxels of 6 mm make volumes of 28 x 35 x 10.
SECTIONS = {
    "SYSTEM": {"num_threads": 2, "model_dir": "./model"},
    "NETWORK": {
        "name": "pimms_online",
        "batch_size": 4,
        "queue_length": 20,
        "whitening": True,
        "normalise_foreground_only": True,
        "foreground_type": "threshold_plus",
    },
    "TRAINING": {
        "lr": 1e-3,
        "loss_type": "DicePlusXEnt",
        "sample_per_volume": 2,
        "max_iter": 2,
        "save_every_n": 0,
        "tensorboard_every_n": 1,
        "exclude_fraction_for_validation": 0.33,
        "exclude_fraction_for_inference": 0.33,
    },
    "INFERENCE": {"spatial_window_size": "(0, 0, 1)"},
    "EVALUATION": {},
    "SEGMENTATION": {"image": ",".join(MODALITIES), "label": "lesion", "num_classes": 2},
    "PIMMS": {
        "classifier_blocks": 1,
        "classifier_features": "4, 8",
        "frontend": "highres_1x1",
        "classifier_slices": 3,
    },
}


class Study:
    """A folder with `x.ini` in which commands run: study.write(NETWORK={"name": "hemis"}), study("train", "x.ini")."""

    def __init__(self, folder: Path, scans: Path) -> None:
        self.folder, self.scans = folder, scans

    def write(self, name: str = "x.ini", scans: Path | None = None, **changes: Mapping | None) -> Path:
        """Writes the small configuration with changed keys; None removes a key or a whole section."""
        sections = dict(SECTIONS)
        for section in (*MODALITIES, "lesion"):
            sections[section] = {
                "path_to_search": scans or self.scans,
                "filename_contains": f"_{section}",
                "interp_order": 0 if section == "lesion" else 3,
                "axcodes": "(L, P, S)",
                "spatial_window_size": "(24, 24, 1)",
            }
        for section, keys in changes.items():
            sections[section] = None if keys is None else {**(sections.get(section) or {}), **keys}
        blocks = [
            "\n".join([f"[{section}]", *(f"{key} = {value}" for key, value in keys.items() if value is not None)])
            for section, keys in sections.items()
            if keys is not None
        ]
        path = self.folder / name
        path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        return path

    def copy_scans(self) -> Path:
        """A copy of the scans to spoil."""
        return Path(shutil.copytree(self.scans, self.folder / "scans"))

    def listing(self) -> list[str]:
        """All files and folders below the study's folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def __call__(self, *argv: str) -> int:
        from pimms_tf.commands.cli import main

        return main(argv)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that point tests of servers at one that is running, see tests/server/conftest.py."""
    parser.addoption("--server", help="URL of a model on a TensorFlow Serving: http://127.0.0.1:8501/v1/models/pimms")
    parser.addoption("--server_grpc", default="127.0.0.1:8500", help="its gRPC address")
    parser.addoption("--export", help="the folder that it serves")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_ones_own(tmp_path_factory) -> Iterator[None]:
    """Prepared scans go to a folder of the tests, also those of programs that they start."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """A folder with T1, T2, FLAIR and lesion mask of six small simulated subjects; not to be changed."""
    from pimms_tf.simulation.phantom import draw_phantom, write_phantom

    folder = tmp_path_factory.mktemp("cohort")
    for number, subject_id in enumerate(SUBJECTS):
        subject = draw_phantom(np.random.default_rng((0, number)), (6.0, 6.0, 6.0), (-20.0, 40.0))
        write_phantom(folder, subject_id, subject)
    return folder


@contextmanager
def logging_restored() -> Iterator[None]:
    """Takes back what the command line does to the logging of the process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    noisy = ("absl", "tensorflow", "h5py", "matplotlib", "highdicom", "pydicom")
    levels = {name: logging.getLogger(name).level for name in noisy}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        logging.captureWarnings(False)


@contextmanager
def eager_functions() -> Iterator[None]:
    """For a handful of steps, tracing the network takes longer than running it as it stands."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Even though the `tf.config.experimental_run_functions_eagerly`")
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


def trained_folder(folder: Path, scans: Path, **changes: Mapping) -> Path:
    """The folder after training as its new x.ini says."""
    study = Study(folder, scans)
    study.write(**changes)
    with logging_restored(), chdir(folder):
        assert study("train", "x.ini") == 0
    return folder


@contextmanager
def chdir(folder: Path) -> Iterator[None]:  # contextlib has it from Python 3.11 on
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def study(tmp_path, scans, monkeypatch) -> Iterator[Study]:
    """An empty folder with a configuration, as the working directory."""
    monkeypatch.setenv("niftynet_config_home", str(tmp_path / "no_home"))
    study = Study(tmp_path, scans)
    study.write()
    with logging_restored(), chdir(tmp_path):
        yield study


@pytest.fixture(scope="session")
def trained(tmp_path_factory, scans) -> Path:
    """The folder of a study whose x.ini has been trained for four iterations; to be copied, not changed."""
    training = {"max_iter": 4, "save_every_n": 2, "validation_every_n": 2, "validation_max_iter": 1}
    return trained_folder(tmp_path_factory.mktemp("trained"), scans, TRAINING=training)


@pytest.fixture(scope="session")
def hemis(tmp_path_factory, scans) -> Path:
    """The folder of a study with a HeMIS network, trained for two iterations."""
    with eager_functions():
        return trained_folder(tmp_path_factory.mktemp("hemis"), scans, NETWORK={"name": "hemis"})


@pytest.fixture(scope="session")
def classifier(tmp_path_factory, scans) -> Path:
    """The folder of a study with a modality classifier, trained for two iterations."""
    with eager_functions():
        network = {"name": "modality_classifier"}
        return trained_folder(tmp_path_factory.mktemp("classifier"), scans, NETWORK=network)


@pytest.fixture(scope="session")
def small_export(tmp_path_factory) -> Path:
    """Version 1 of a small network, weights drawn, that takes windows, volumes and files; not to be changed."""
    import keras

    from pimms_tf.inference.preparation import Preparation
    from pimms_tf.models import build_model
    from pimms_tf.serving import export_saved_model

    record = Preparation(
        variant="soft",
        choices={"classifier_blocks": 1, "classifier_features": (4, 8), "frontend": "highres_1x1"},
        modalities=MODALITIES,
        num_classes=2,
        axcodes=("L", "P", "S"),
        pixdim_mm=(1.5, 1.5, 0.0),
        foreground="otsu_plus",
        classifier_slices=3,
    )
    keras.utils.set_random_seed(3)
    model = build_model("soft", 3, 2, **record.choices)
    return export_saved_model(model, tmp_path_factory.mktemp("small"), preparation=record, card="Weights are drawn.")


@pytest.fixture
def trained_study(study, trained) -> Study:
    """A study of one's own with the model of `trained`."""
    shutil.copytree(trained, study.folder, dirs_exist_ok=True)
    return study


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """mount(folder, *words) mounts there until the test ends; where that is not allowed the test is skipped."""
    mounted = []

    def run(folder: Path, *words: object) -> None:
        if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root can mount disks")
        done = subprocess.run(["mount", *map(str, words), folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"disks cannot be mounted here: {done.stderr.strip()}")
        if not any("remount" in str(word) for word in words):
            mounted.append(folder)

    yield run
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_disk(tmp_path, mount) -> Callable[[str], Path]:
    """small_disk("400k") is an empty disk of that size."""

    def make(size: str) -> Path:
        folder = tmp_path / "small"
        folder.mkdir()
        mount(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")
        return folder

    return make


@pytest.fixture
def read_only(mount) -> Callable[[Path], None]:
    """read_only(folder) makes a folder that cannot be written to, even by root."""

    def make(folder: Path) -> None:
        mount(folder, "--bind", folder)
        mount(folder, "-o", "remount,bind,ro")

    return make


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Runs TensorFlow's functions as Python."""
    with eager_functions():
        yield


@pytest.fixture(scope="session")
def rounding() -> Callable[[Callable, np.ndarray], float]:
    """A tolerance: how far compute(x) may be from the same, computed otherwise.

    Processors, batches of other sizes and traced functions add up in other orders, and so round otherwise. That cannot
    be told from inputs that are off by a rounding, so the tolerance is five times what such inputs move the answer by
    at most. Batches of other sizes moved those of `PIMMS` and of its parts by at most 1.7 times as much, with and
    without oneDNN, on AVX2 and AVX-512.
    """

    def tolerance(compute: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
        rng, expected, moved = np.random.default_rng(0), np.asarray(compute(x)), 0.0
        for _ in range(3):
            near = x * (1 + rng.choice([-1, 1], x.shape) * np.finfo(np.float32).eps)
            moved = max(moved, float(np.abs(np.asarray(compute(near.astype(np.float32))) - expected).max()))
        return 5 * moved

    return tolerance


@pytest.fixture(scope="session")
def bfloat16() -> None:
    """Skips tests of half precision where oneDNN has no convolution for it, which needs AVX-512."""
    import tensorflow as tf

    try:
        tf.nn.conv2d(tf.ones((1, 4, 4, 1), tf.bfloat16), tf.ones((3, 3, 1, 1), tf.bfloat16), 1, "SAME")
    except tf.errors.AbortedError:
        pytest.skip("this processor, or ONEDNN_MAX_CPU_ISA, lets oneDNN compute no convolution in bfloat16")
