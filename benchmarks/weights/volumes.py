"""What the bundled segmenter marks in simulated patients whom no training saw, beside what there is to mark.

python benchmarks/weights/volumes.py draw DATA OUT --count 12 --healthy 8     # segments them; takes minutes
python benchmarks/weights/volumes.py range OUT          # how often the true volume lies in its range
python benchmarks/weights/volumes.py healthy OUT        # what is marked where there is nothing, by rule of marking

Patients are of the two heads and lesion masks that are kept out, each of a hospital of its own whose slices are 5 to
7.5 mm thick; scans are in their slots by label, so that only the segmenter is judged. OUT gets a file of probabilities
for each patient and set of scans.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from pimms_tf.data.images import Image
from pimms_tf.files import replacing
from pimms_tf.inference.preparation import VolumeRange
from pimms_tf.simulation.heads import read_head, read_lesion_masks
from pimms_tf.simulation.hospitals import draw_hospital
from pimms_tf.simulation.subjects import simulate
from pimms_tf.weights import bundled, bundled_preparation

SEED = 2026
SUBSETS = (("T1", "T2", "FLAIR"), ("FLAIR",))


def patients(data: Path, out: Path, sick: int, healthy: int):
    """(name, simulated subject) of held-out heads, half of each group from either head."""
    masks = read_lesion_masks(data / "lesion_masks_mni")[-2:]
    for place, path in enumerate(sorted((data / "labelmaps_synthseg").glob("*.nii.gz"))[-2:]):
        head = read_head(path, out / "heads")
        for kind, count in (("sick", sick), ("healthy", healthy)):
            for number in range(place, count, 2):
                rng = np.random.default_rng((SEED, kind == "healthy", number))
                hospital = draw_hospital(rng, contrasts=("T1", "T2", "FLAIR"))
                edge, thick = round(rng.uniform(0.8, 1.1), 3), round(rng.uniform(5, 7.5), 2)
                hospital = replace(hospital, grid_mm=(edge, edge, thick))
                load = 0.0 if kind == "healthy" else float(np.exp(rng.uniform(np.log(0.5), np.log(40))))
                yield f"{kind}_{number:02d}", simulate(head, hospital, rng, masks=masks, load_ml=load)


def draw(data: Path, out: Path, sick: int, healthy: int) -> None:
    segmenter = bundled()
    known = segmenter.preparation.modalities
    for name, found in patients(data, out, sick, healthy):
        images = {
            contrast: Image(np.ascontiguousarray(found.scans[..., [place]]), found.affine)
            for place, contrast in enumerate(found.contrasts)
        }
        voxel_ml = abs(float(np.linalg.det(found.affine[:3, :3]))) / 1000
        for subset in SUBSETS:
            path = out / f"{name}_{'+'.join(subset)}.npz"
            if path.exists():
                continue
            subject = segmenter.prepare([images[contrast] for contrast in subset])
            scores = np.array([[contrast == each for each in known] for contrast in subset], np.float32)
            image = segmenter(subject, probabilities=True, scores=scores).image
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, open(temporary, "wb") as file:
                lesion = image.data[..., 1].astype(np.float16)
                np.savez_compressed(file, probability=lesion, label=found.lesion, voxel_ml=voxel_ml)
            ml = (lesion >= 0.5).sum() * voxel_ml
            print(f"{path.stem}: {ml:.2f} ml of {found.lesion_ml:.2f}, {found.hospital.head}", flush=True)


def marked(
    probability: np.ndarray, voxel_ml: float, threshold: float, least_ml: float, least_peak: float
) -> np.ndarray:
    """(x, y, z) bool: connected voxels above a threshold, of some volume, with some probability somewhere."""
    lesions, count = ndimage.label(probability >= threshold, np.ones((3, 3, 3)))
    if not count:
        return lesions > 0
    stays = np.bincount(lesions.ravel(), minlength=count + 1) * voxel_ml >= least_ml
    stays &= np.maximum(ndimage.maximum(probability, lesions, np.arange(count + 1)), 0) >= least_peak
    stays[0] = False
    return stays[lesions]


def drawn(out: Path, kind: str):
    for path in sorted(out.glob(f"{kind}_*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            yield path.stem, arrays["probability"].astype(np.float32), arrays["label"], float(arrays["voxel_ml"])


def ranges(out: Path, rule: VolumeRange) -> None:
    """Prints how many true volumes lie in their range: of patients by whom the rule was chosen, and of the others."""
    for kind, text in (("sick", "with lesions"), ("healthy", "healthy")):
        for odd in (0, 1):
            inside, widths = [], []
            for name, probability, label, voxel_ml in drawn(out, kind):
                if int(name.split("_")[1]) // 2 % 2 != odd:  # each head has some of both
                    continue
                volume_ml = marked(probability, voxel_ml, 0.5, 0.02, 0).sum() * voxel_ml
                low, high = rule.of(probability, voxel_ml, volume_ml)
                inside.append(low <= label.sum() * voxel_ml <= high)
                widths.append(f"{name} {low:.1f} to {high:.1f} ({label.sum() * voxel_ml:.1f})")
            which = "others" if odd else "the rule was chosen on"
            print(f"{text}, {which}: {sum(inside)} of {len(inside)} inside; {', '.join(widths)}")


def rules_of_marking(out: Path) -> None:
    """Prints Dice of patients with lesions and the volume marked in healthy ones, by threshold, size and peak."""
    for subset in SUBSETS:
        for threshold, least_ml, peak in (
            (0.5, 0.0, 0.0), (0.5, 0.02, 0.0), (0.5, 0.05, 0.0), (0.6, 0.02, 0.0), (0.7, 0.02, 0.0), (0.5, 0.02, 0.9),
        ):  # fmt: skip
            scores, false_ml = [], []
            for kind, values in (("sick", scores), ("healthy", false_ml)):
                for name, probability, label, voxel_ml in drawn(out, kind):
                    if name.endswith(f"_{'+'.join(subset)}") and name.count("_") == 2:
                        mask = marked(probability, voxel_ml, threshold, least_ml, peak)
                        dice = 2 * (mask & label).sum() / max(mask.sum() + label.sum(), 1)
                        values.append(dice if kind == "sick" else mask.sum() * voxel_ml)
            print(
                f"{'+'.join(subset)}, threshold {threshold}, {least_ml} ml and more, peak {peak}: mean Dice "
                f"{np.mean(scores):.3f} of {len(scores)}; healthy: median {np.median(false_ml):.2f} ml of "
                f"{np.round(np.sort(false_ml), 2).tolist()}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("draw")
    verb.add_argument("data", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("--count", type=int, default=12)
    verb.add_argument("--healthy", type=int, default=8)
    for name in ("range", "healthy"):
        verb = verbs.add_parser(name)
        verb.add_argument("out", type=Path)
        if name == "range":
            verb.add_argument("--rule", type=float, nargs=5, help="certain, possible, less, more, margin_ml")
    a = parser.parse_args()
    if a.verb == "draw":
        draw(a.data, a.out, a.count, a.healthy)
    elif a.verb == "range":
        ranges(a.out, VolumeRange(*a.rule) if a.rule else bundled_preparation().volume_range)
    else:
        rules_of_marking(a.out)


if __name__ == "__main__":
    main()
