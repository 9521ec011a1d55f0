"""Real patients whose licence lets trained weights be given away → a pool.

python benchmarks/weights/real.py DATA POOL/real ms3_101627 …          # with masks of lesions
python benchmarks/weights/real.py DATA POOL/native ms_native_p03 … --alone    # for the classifier
"""

import argparse
from pathlib import Path

import numpy as np
from pool import MODALITIES, prepared, slices_of, write_slices

from pimms_tf.data.brain import brain_mask


def subject(folder: Path):
    scans = {
        name: prepared(folder / f"{name}.nii.gz", 3).data[..., 0]
        for name in MODALITIES
        if (folder / f"{name}.nii.gz").exists()
    }
    label = next(folder / n for n in ("lesion.nii.gz", "lesion_abnormal.nii.gz") if (folder / n).exists())
    label = prepared(label, 1).data[..., 0] >= 0.5
    affine = prepared(next(folder.glob("FLAIR.nii.gz")), 3).affine
    return slices_of(scans, brain_mask(np.stack(list(scans.values()), axis=-1), affine), label)


def scans_alone(folder: Path):
    """(name, slices) of each scan of a folder, on its own grid and without a label: for the classifier."""
    for path in sorted(folder.glob("*.nii.gz")):
        modality = path.name.split(".")[0].split("_")[-1]
        if modality in MODALITIES:
            image = prepared(path, 3)
            brain = brain_mask(image.data, image.affine)
            yield path.name.split(".")[0], slices_of({modality: image.data[..., 0]}, brain, np.zeros_like(brain))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--alone", action="store_true", help="each scan by itself, without labels")
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    for name in arguments.names:
        folder = arguments.data / name
        found = scans_alone(folder) if arguments.alone else [("", subject(folder))]
        for scan, slices in found:
            write_slices(arguments.pool / f"{'_'.join(filter(None, (name, scan)))}.npz", slices)
            print(name, scan, slices.scans.shape, slices.valid, slices.label.sum(), slices.brain.mean(), flush=True)


if __name__ == "__main__":
    main()
