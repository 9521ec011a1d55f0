"""Draws the pictures of docs/report.md: one simulated patient, segmented as it should be and in two ways that fail.

`python benchmarks/report_pictures.py docs` takes some minutes on two cores and prints volumes and scores.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image as Picture

from pimms_tf.clinic.lesions import lesions_of
from pimms_tf.clinic.patient import segment_patient
from pimms_tf.clinic.report import Show, doubts_of
from pimms_tf.data.images import Image, write_image
from pimms_tf.evaluation import dice
from pimms_tf.files import replacing
from pimms_tf.simulation.phantom import draw_phantom
from pimms_tf.weights import bundled

SPECK_VOXELS = 5
SHIFT = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=np.deg2rad(7)), (14, -9, 0))


def main(folder: Path) -> None:
    subject = draw_phantom(np.random.default_rng((1, 5)), (1.0, 1.0, 4.0), (-18.0, 62.0), (12.0, 25.0))
    true_ml = subject.lesion.sum() * 0.004
    scans, segmenter = {"T1": subject.t1, "T2": subject.t2, "FLAIR": subject.flair}, bundled()
    print(f"true volume {true_ml:.1f} ml")
    for name, used, moved in (
        ("good", ("T1", "T2", "FLAIR"), ()),
        ("moved", ("T1", "FLAIR"), ("T1",)),
        ("t1", ("T1",), ()),
    ):
        files = []
        for contrast in used:
            affine = SHIFT @ subject.affine if contrast in moved else subject.affine
            files.append(folder / f"scan_{contrast}.nii.gz")
            write_image(Image(scans[contrast][..., np.newaxis].astype(np.float32), affine), files[-1])
        result = segment_patient(files, segmenter, register=False)
        for path in files:
            path.unlink()
        show = Show(result)
        rows = [show.mosaic()]
        for number in range(1, len(show.scans)):
            board = np.repeat(show.boards(number)[..., np.newaxis], 3, axis=2)
            rows.append(np.pad(board, ((8, 0), (0, rows[0].shape[1] - board.shape[1]), (0, 0))))
        with replacing(folder / f"report-{name}.png") as temporary:
            Picture.fromarray(np.concatenate(rows)).quantize(64).save(temporary, optimize=True)
        low, high = result.volume_range_ml
        overlap = dice(subject.lesion, result.mask.data[..., 0] > 0)
        volume = f"{result.volume_ml:.1f} ml ({low:.1f} to {high:.1f})"
        lesions = lesions_of(result)
        specks = [lesion.mean_probability for lesion in lesions if lesion.voxels <= SPECK_VOXELS]
        print(f"{name}: {volume}, {len(lesions)} lesions, Dice {overlap:.2f}")
        print(f"  {len(specks)} of at most {SPECK_VOXELS} voxels, of mean probability {np.mean(specks or np.nan):.2f}")
        for scan in result.scans:
            print(f"  {scan.name}: {scan.taken_for} {max(scan.scores):.2f}, share {scan.contribution:.2f}")
        print("".join(f"  {doubt}\n" for doubt in doubts_of(result)), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    main(parser.parse_args().folder)
