"""The bundled segmenter on whole subjects from files: Dice and volumes by the scans given, nameless and shuffled.

python benchmarks/weights/evaluate.py DATA/ms3_106639 DATA/ms_cs_p19 …
python benchmarks/weights/evaluate.py --classify DATA/ms_native_* …            # modality of each scan alone
"""

import argparse
from pathlib import Path

import numpy as np

from pimms_tf.data import read_image
from pimms_tf.weights import bundled

SUBSETS = (("T1", "T2", "FLAIR"), ("T1", "FLAIR"), ("FLAIR",), ("T1",), ("T2",))
LABELS = ("lesion.nii.gz", "lesion_abnormal.nii.gz")
ALSO = {"T1ce": "T1"}


def scans_in(folder: Path) -> dict[str, Path]:
    return {
        path.name.split(".")[0]: path
        for path in sorted(folder.glob("*.nii.gz"))
        if path.name.split(".")[0].split("_")[-1] in ("T1", "T2", "FLAIR", "T1ce")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--classify", action="store_true")
    parser.add_argument("--subsets", default="", help="such as T1+FLAIR,FLAIR")
    a = parser.parse_args()
    subsets = [tuple(text.split("+")) for text in a.subsets.split(",")] if a.subsets else SUBSETS
    segmenter, rng = bundled(), np.random.default_rng(0)
    known = segmenter.preparation.modalities
    wrong = count = 0
    for folder in a.folders:
        scans = scans_in(folder)
        if a.classify:
            for name, path in scans.items():
                scores = segmenter.classify(segmenter.prepare([path]))[0]
                true = name.split("_")[-1]
                right = known[int(scores.argmax())] == ALSO.get(true, true)
                wrong, count = wrong + (not right), count + 1
                told = dict(zip(known, scores.round(3).tolist(), strict=True))
                print(folder.name, name, "right" if right else "WRONG", told, flush=True)
            continue
        truth = next((read_image(folder / n).data[..., 0] > 0 for n in LABELS if (folder / n).exists()), None)
        for subset in subsets:
            if not set(subset) <= set(scans):
                continue
            order = [subset[place] for place in rng.permutation(len(subset))]
            scores, image = segmenter(segmenter.prepare([scans[name] for name in order]))
            found = image.data[..., 0] > 0
            ml = np.abs(np.linalg.det(image.affine[:3, :3])) / 1000
            guess = [known[place] for place in scores.argmax(axis=1)]
            line = f"{folder.name} {'+'.join(subset)}: {found.sum() * ml:.1f} ml"
            if truth is not None:
                dice = 2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1)
                line += f" of {truth.sum() * ml:.1f}, Dice {dice:.2f}"
                hit = (found & truth).sum()
                line += f", {hit / max(truth.sum(), 1):.0%} found, {hit / max(found.sum(), 1):.0%} of it lesion"
            print(line + ("" if guess == order else f"  taken for {guess} instead of {order}"), flush=True)
    if a.classify:
        print(f"{count - wrong} of {count} right")


if __name__ == "__main__":
    main()
