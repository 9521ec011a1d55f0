"""Simulated subjects: how long they take, and the picture of the documentation.

python benchmarks/simulation.py LABELMAPS LESION_MASKS [--cache DIR] [--picture docs/simulation.png]

Times are those of the processor, on one thread; set OMP_NUM_THREADS=1 for NumPy's own. A window is 100 x 100 voxels of
a slice with three scans; a slab gives as many as fit side by side in the brain, times its slices.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pimms_tf.simulation import SimulatedSubject, draw_hospital, read_heads, read_lesion_masks, simulate

CONTRASTS = ("T1", "T2", "FLAIR")
HEADS = ("stripped", "kept", "kept", "stripped", "defaced", "badly stripped")
WINDOW = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label_maps", type=Path)
    parser.add_argument("lesion_masks", type=Path)
    parser.add_argument("--cache", type=Path, help="folder that keeps registrations")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--maps", type=int, default=6, help="how many of the label maps")
    a = parser.parse_args()
    heads, masks = read_heads(a.label_maps, a.cache, a.maps), read_lesion_masks(a.lesion_masks)
    shown = []
    for number in range(6):
        rng = np.random.default_rng((7, number))
        hospital = replace(draw_hospital(rng, contrasts=CONTRASTS), head=HEADS[number])
        start = time.process_time()
        subject = simulate(heads[number % len(heads)], hospital, rng, masks=masks, load_ml=6.0 * 1.6**number)
        seconds = time.process_time() - start
        print(f"subject {number}: {subject.scans.shape}, {subject.lesion_ml:.1f} ml, {seconds:.1f} s of processor time")
        shown.append(subject)
    for slices in (8, 24):
        hospital = replace(draw_hospital(np.random.default_rng(1), contrasts=CONTRASTS), grid_mm=(1.0, 1.0, 1.0))
        start, windows = time.process_time(), 0
        for number in range(4):
            rng = np.random.default_rng((8, number))
            subject = simulate(heads[number % len(heads)], hospital, rng, masks=masks, num_slices=slices)
            x, y, z = subject.lesion.shape
            windows += z * int(np.ceil(x / WINDOW) * np.ceil(y / WINDOW))
        seconds = time.process_time() - start
        print(f"slabs of {slices}: {windows / seconds:.0f} windows of three scans per second and core")
    if a.picture is not None:
        draw(shown, a.picture)


def draw(subjects: list[SimulatedSubject], path: Path) -> None:
    figure = Figure(figsize=(10, 2.6 * len(subjects)), layout="constrained")
    for row, subject in zip(figure.subplots(len(subjects), 4), subjects, strict=True):
        level = int(np.argmax(subject.lesion.sum((0, 1))))
        for axes, number in zip(row, (0, 1, 2, 2), strict=True):
            scan, protocol = subject.scans[:, :, level, number], subject.protocols[number]
            axes.imshow(scan.T, cmap="gray", origin="lower", vmin=0, vmax=np.percentile(scan[scan > 0], 99.5))
            axes.set_title(f"{protocol.contrast}, {protocol.sequence}, {protocol.plane}", fontsize=8)
            axes.invert_xaxis()  # seen from below: the patient's right is on the left
            axes.axis("off")
        row[3].contour(subject.lesion[:, :, level].T.astype(float), [0.5], colors="#00c8ff", linewidths=0.8)
        row[3].set_title("outline of the lesions", fontsize=8)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
