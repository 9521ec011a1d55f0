"""Simulated subjects by number: made one at a time for training, or written to a folder with what describes them."""

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError
from pimms_tf.files import replacing
from pimms_tf.simulation.heads import Head, LesionMask, packaged_head
from pimms_tf.simulation.protocols import CONTRASTS, Contrast, Hospital, Protocol
from pimms_tf.simulation.subjects import SimulatedSubject, simulate

log = logging.getLogger(__name__)

FILE_NAMES: dict[Contrast, str] = {contrast: contrast for contrast in CONTRASTS} | {"T2*": "GRE"}
MANIFEST, HOSPITALS = "subjects.csv", "hospitals.json"


@dataclass(frozen=True, eq=False)
class Simulator:
    """Subjects by number: `Simulator(...)(7)` is the eighth, and depends on the seed and its number alone.

    Subjects go round the `hospitals`; each takes one of the `heads` (none: a new one of the packaged atlas) and lesions
    as `draw_lesions` makes them from `masks`. `load_ml` are the smallest and the largest lesion load, small ones as
    often as large ones on a logarithmic scale; None leaves it to `draw_lesions`. `num_slices` as in `simulate`.
    """

    hospitals: tuple[Hospital, ...]
    heads: tuple[Head, ...] = ()
    masks: tuple[LesionMask, ...] = ()
    seed: int = 0
    load_ml: tuple[float, float] | None = None
    num_slices: int | None = None

    def __post_init__(self) -> None:
        if not self.hospitals:
            raise InputError("no hospitals: give one or more")
        if self.seed < 0:
            raise InputError(f"seed {self.seed} is negative: give 0 or more")
        if self.load_ml is not None and not 0 <= self.load_ml[0] <= self.load_ml[1]:
            raise InputError(f"lesion load {self.load_ml} ml: give a smallest and a largest load, both 0 or more")

    def __call__(self, number: int, subject_id: str = "") -> SimulatedSubject:
        rng = np.random.default_rng((self.seed, number + 1))  # 0 is for hospitals; see commands.simulate
        head = self.heads[rng.integers(len(self.heads))] if self.heads else packaged_head(rng)
        return simulate(
            head,
            self.hospitals[number % len(self.hospitals)],
            rng,
            masks=self.masks,
            load_ml=self._load_ml(rng),
            num_slices=self.num_slices,
            subject_id=subject_id or f"sim{number + 1}",
        )

    def subject(self, number: int) -> Subject:
        """The same subject prepared for a network: `training_batches(range(n), simulator.subject, …)` needs no disk."""
        return self(number).subject()

    def _load_ml(self, rng: np.random.Generator) -> float | None:
        if self.load_ml is None:
            return None
        low, high = self.load_ml
        return float(np.exp(rng.uniform(*np.log(np.maximum((low, high), 1e-3))))) if high > 0 else 0.0


def subject_ids(num_subjects: int) -> list[str]:
    """sim01, sim02, …: of equal lengths, so that subjects sort by number."""
    width = max(2, len(str(num_subjects)))
    return [f"sim{number:0{width}d}" for number in range(1, num_subjects + 1)]


def write_cohort(folder: Path, simulator: Simulator, num_subjects: int, num_threads: int = 1) -> list[str]:
    """Writes subjects sim01, sim02, … into `folder`, and what they are into files beside them; the ids.

    Subject n depends on the seed and n alone, so a larger cohort begins with the smaller one, and the number of
    threads changes nothing. Besides the files of `write_subject` there are `subjects.csv`, a row per subject with its
    hospital and lesions, and `hospitals.json`, which `read_hospitals` reads.
    """
    ids = subject_ids(num_subjects)

    def made(number: int) -> tuple[str | float | int, ...]:
        subject = simulator(number, ids[number])
        write_subject(folder, subject)
        sizes = np.bincount(ndimage.label(subject.lesion)[0].ravel())[1:]
        log.info("%d of %d: %s, %.1f ml of lesions", number + 1, num_subjects, ids[number], subject.lesion_ml)
        hospital = subject.hospital
        return ids[number], hospital.name, hospital.head, subject.head, f"{subject.lesion_ml:.3f}", len(sizes)

    with ThreadPoolExecutor(num_threads) as threads:
        rows = list(threads.map(made, range(num_subjects)))
    with replacing(Path(folder) / MANIFEST) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("subject", "hospital", "skull", "label_map", "lesion_ml", "num_lesions"))
        writer.writerows(rows)
    write_hospitals(Path(folder) / HOSPITALS, simulator.hospitals)
    return ids


def scan_names(protocols: Sequence[Protocol]) -> list[str]:
    """What the file of each scan is called after the subject: T1, T2, FLAIR, …; a second T1 is rep2-T1, T2* is GRE."""
    names: list[str] = []
    for protocol in protocols:
        name = FILE_NAMES[protocol.contrast]
        repeated = sum(other == name or other.endswith(f"-{name}") for other in names)
        names.append(f"rep{repeated + 1}-{name}" if repeated else name)
    return names


def write_subject(folder: Path, subject: SimulatedSubject) -> list[Path]:
    """The paths of the files written: `<id>_<scan>.nii.gz` with a sidecar `.json` each, and `<id>_lesion.nii.gz`.

    Scans are stored as int16, with at least 1 where a stripped scan is not 0, so that `> 0` remains the brain; the
    lesion as 0 and 1 (uint8). Sidecars use the words and units of BIDS, seconds and degrees.

    Raises:
        OSError: the folder cannot be written.
    """
    paths = []
    for number, (name, protocol) in enumerate(zip(scan_names(subject.protocols), subject.protocols, strict=True)):
        scan = subject.scans[..., number]
        stored = np.where(scan > 0, np.clip(np.rint(scan), 1, 32767), 0).astype(np.int16)
        paths += [_write_image(folder / f"{subject.subject_id}_{name}.nii.gz", stored, subject.affine)]
        with replacing(folder / f"{subject.subject_id}_{name}.json") as path:
            path.write_text(json.dumps(sidecar(protocol, subject.hospital), indent=1) + "\n", encoding="utf-8")
            paths.append(folder / path.name)
    lesion = subject.lesion.astype(np.uint8)
    return [*paths, _write_image(folder / f"{subject.subject_id}_lesion.nii.gz", lesion, subject.affine)]


def sidecar(protocol: Protocol, hospital: Hospital) -> dict[str, str | float | bool]:
    """A scan's settings in the words of BIDS: times in s, lengths in mm, the field in tesla, the angle in degrees."""
    found: dict[str, str | float | bool] = {
        "Manufacturer": "simulated by pimms-tf",
        "InstitutionName": hospital.name,
        "SeriesDescription": f"{protocol.contrast}, {protocol.sequence}, {protocol.plane}",
        "MagneticFieldStrength": protocol.field_t,
        "MRAcquisitionType": "3D" if protocol.plane == "volume" else "2D",
        "RepetitionTime": round(protocol.tr_ms / 1000, 6),
        "EchoTime": round(protocol.te_ms / 1000, 6),
        "FlipAngle": protocol.flip_deg,
        "SliceThickness": protocol.thickness_mm,
        "SpacingBetweenSlices": round(protocol.thickness_mm + protocol.gap_mm, 3),
        "SkullStripped": "stripped" in hospital.head,
    }
    if protocol.ti_ms:
        found["InversionTime"] = round(protocol.ti_ms / 1000, 6)
    if protocol.contrast == "T1ce":
        found["ContrastBolusIngredient"] = "GADOLINIUM"
    if protocol.b_s_mm2:
        found["DiffusionBValue"] = protocol.b_s_mm2
    return found


def write_hospitals(path: Path, hospitals: Sequence[Hospital]) -> None:
    """Writes hospitals as JSON: a list of objects with the fields of Hospital, protocols with those of Protocol."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps([asdict(hospital) for hospital in hospitals], indent=1) + "\n", "utf-8")


def read_hospitals(path: Path) -> tuple[Hospital, ...]:
    """The hospitals of a file that `write_hospitals` wrote, or that was written by hand after one.

    Raises:
        InputError: the file cannot be read, or something in it is no setting, or has no such value.
    """
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a list of hospitals: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path} holds no list of hospitals")
    return tuple(_hospital(item, f"{path}, hospital {number}") for number, item in enumerate(listed, 1))


def _hospital(item: object, where: str) -> Hospital:
    settings = dict(_settings(item, Hospital, where))
    protocols = settings.pop("protocols", None)
    if not isinstance(protocols, list) or not protocols:
        raise InputError(f"{where}: protocols is no list of one or more scans")
    made = tuple(
        Protocol(**dict(_settings(protocol, Protocol, f"{where}, protocol {number}")))
        for number, protocol in enumerate(protocols, 1)
    )
    grid = settings.pop("grid_mm", (1.0, 1.0, 1.0))
    try:
        hospital = Hospital(**settings, protocols=made, grid_mm=tuple(float(edge) for edge in grid))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: grid_mm = {grid} are no three numbers") from error
    hospital.check(where)
    return hospital


def _settings(item: object, kind: type, where: str) -> Iterator[tuple[str, object]]:
    known = {field.name: field for field in fields(kind)}
    if not isinstance(item, dict):
        raise InputError(f"{where} is no object of settings")
    for name, value in item.items():
        if name not in known:
            raise InputError(f"{where}: {name} is no setting; settings are {', '.join(known)}")
        yield name, value
    needed = {"Protocol": ("contrast", "sequence", "field_t", "tr_ms", "te_ms"), "Hospital": ("name", "protocols")}
    for name in needed[kind.__name__]:
        if name not in item:
            raise InputError(f"{where}: {name} is missing")


def _write_image(path: Path, volume: np.ndarray, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
    return path
