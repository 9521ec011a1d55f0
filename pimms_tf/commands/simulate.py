"""`pimms-tf simulate`: a folder of simulated subjects, and configurations beside it that train on them as they are."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pimms_tf.commands.demo import shipped_config
from pimms_tf.errors import InputError
from pimms_tf.files import replacing
from pimms_tf.simulation import (
    CONTRASTS,
    Hospital,
    Simulator,
    draw_hospital,
    read_heads,
    read_hospitals,
    read_lesion_masks,
    scan_names,
    write_cohort,
)
from pimms_tf.simulation.protocols import Contrast, Treatment

CONFIGS = ("pimms_online.ini", "hemis.ini", "modality_classifier.ini", "pimms_hard.ini", "pimms_soft.ini")
DATA = "data"  # where the shipped configurations look
HEADS: tuple[Treatment, ...] = ("kept", "defaced", "stripped", "badly stripped")
USUAL = "usual"  # instead of contrasts: the hospital decides
OTHER = "other"  # the modality of a scan that is none of T1, T2 and FLAIR


def simulated_hospitals(
    wish: str,
    seed: int,
    contrasts: Sequence[str] = ("T1", "T2", "FLAIR"),
    head: str | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> tuple[Hospital, ...]:
    """The hospitals of a cohort: as many as `wish` says, drawn from the seed, or those of the file that it names.

    `contrasts` are the scans that drawn hospitals take; `usual` alone leaves them to a draw among usual sets. `head`
    and `spacing_mm` (one edge of the voxels, or three) change what the hospitals say themselves.

    Raises:
        InputError: a number below 1, a file that cannot be read, an unknown contrast or treatment, or a spacing outside
            0.5 to 10 mm.
    """
    for contrast in contrasts:
        if contrast not in CONTRASTS and tuple(contrasts) != (USUAL,):
            raise InputError(f"--contrasts: {contrast} is none of {', '.join(CONTRASTS)}")
    if head is not None and head not in HEADS:
        raise InputError(f"--head: {head} is none of {', '.join(HEADS)}")
    edges = [float(edge) for edge in spacing_mm or ()]
    if len(edges) not in (0, 1, 3):
        raise InputError(f"--spacing_mm: {len(edges)} numbers; give one edge for all axes, or three")
    for edge in edges:
        if not 0.5 <= edge <= 10:
            raise InputError(f"--spacing_mm: {edge:g} is not between 0.5 and 10")
    if wish.isdigit():
        if int(wish) < 1:
            raise InputError("--hospitals: give 1 or more, or a file of hospitals")
        wanted: tuple[Contrast, ...] | None = None if tuple(contrasts) == (USUAL,) else tuple(contrasts)
        # Subjects draw from (seed, 1), (seed, 2), …; nothing else may.
        hospitals = tuple(
            draw_hospital(np.random.default_rng((seed, 0, number)), f"hospital {number}", wanted)
            for number in range(1, int(wish) + 1)
        )
    else:
        hospitals = read_hospitals(Path(wish))
    if head is not None:
        hospitals = tuple(replace(hospital, head=head) for hospital in hospitals)
    if edges:
        grid_mm = tuple(edges * (3 // len(edges)))
        hospitals = tuple(replace(hospital, grid_mm=grid_mm) for hospital in hospitals)
    return hospitals


def write_simulation(
    folder: Path,
    num_subjects: int,
    hospitals: Sequence[Hospital],
    *,
    seed: int = 0,
    label_maps: Path | None = None,
    lesion_masks: Path | None = None,
    load_ml: tuple[float, float] | None = None,
    num_threads: int = 1,
) -> None:
    """Writes `data/` with the subjects and their description, and INI files that train on it, into a new folder.

    `label_maps` is a folder of whole-head label maps in FreeSurfer codes (None: the packaged ICBM152 atlas, without a
    skull); `lesion_masks` one of masks in MNI space (None: lesions are grown). Both are read before anything is
    written.

    Raises:
        InputError: the folder holds something, or an option has no possible value.
    """
    folder = Path(folder)
    if num_subjects < 1:
        raise InputError(f"{num_subjects} subjects: give 1 or more")
    if num_threads < 1:
        raise InputError(f"--num_threads: {num_threads} is less than 1")
    if (folder / DATA).is_dir() and not any((folder / name).exists() for name in CONFIGS):
        raise InputError(
            f"{folder} holds {DATA}/ and no configuration, as after a simulation that was stopped; give another "
            "folder, or empty this one"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; give another one")
    simulator = Simulator(tuple(hospitals), seed=seed, load_ml=load_ml)
    if lesion_masks is not None:
        simulator = replace(simulator, masks=tuple(read_lesion_masks(lesion_masks)))
    if label_maps is not None:
        simulator = replace(simulator, heads=tuple(read_heads(label_maps)))
    write_cohort(folder / DATA, simulator, num_subjects, num_threads)
    used = hospitals[: min(num_subjects, len(hospitals))]
    for name in CONFIGS:
        with replacing(folder / name) as path:
            path.write_text(config_for(shipped_config(name), used), encoding="utf-8")


def config_for(text: str, hospitals: Sequence[Hospital]) -> str:
    """A shipped configuration for the scans that these hospitals take: each kind of file is a section of `image`.

    Scans after contrast agent count as T1; those that are none of T1, T2 and FLAIR as a fourth modality, `other`.
    Sections of scans that no hospital takes are left out of `image`, and no section reads sidecars.
    """
    contrast_of: dict[str, Contrast] = {}
    for hospital in hospitals:
        for name, protocol in zip(scan_names(hospital.protocols), hospital.protocols, strict=True):
            contrast_of[name] = protocol.contrast
    names = sorted(contrast_of, key=lambda name: (CONTRASTS.index(contrast_of[name]), name))
    modality = {name: {"T1ce": "T1"}.get(contrast_of[name], contrast_of[name]) for name in names}
    modality = {name: word if word in ("T1", "T2", "FLAIR") else OTHER for name, word in modality.items()}
    if names != ["T1", "T2", "FLAIR"]:
        classes = [word for word in ("T1", "T2", "FLAIR", OTHER) if word in modality.values()]
        text = re.sub(r"(?m)^image = .*$", f"image = {','.join(names)}", text)
        lines = f"modalities = {','.join(classes)}\nimage_modalities = {','.join(modality[name] for name in names)}"
        text = re.sub(r"(?m)^modalities = .*$", lines, text)
        template = re.search(r"(?ms)^\[T2\]\n.*?(?=^\[|\Z)", text)
        if template is None:
            raise ValueError("the configuration has no section [T2]")
        for name in names:
            if f"[{name}]" not in text:
                section = template.group().replace("[T2]", f"[{name}]").replace("= _T2\n", f"= _{name}\n")
                text = f"{text.rstrip()}\n\n{section.rstrip()}\n"
    # Sidecars are called like the scans that they describe.
    text = re.sub(r"(?m)^(filename_not_contains = .*)$", r"\1,.json", text)
    return re.sub(
        r"(?m)^(filename_contains = .*\n)(?!filename_not_contains)", r"\1filename_not_contains = .json\n", text
    )
