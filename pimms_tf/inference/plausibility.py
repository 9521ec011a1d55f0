"""Whether a segmentation looks like white matter lesions at all."""

import numpy as np
from scipy import ndimage

from pimms_tf.data.images import Image

MOST_ML = 60.0
THICKEST_MM = 15.0
MOST_ON_ONE_SIDE, FROM_ML = 0.8, 5.0


def doubts(mask: Image, brain: np.ndarray) -> tuple[str, ...]:
    """Sentences, without a full stop, on what about a mask is unlike white matter lesions; none if nothing is.

    `mask` (x, y, z, 1) holds 0 where there is no lesion, `brain` (x, y, z) bool lies on the same grid; where it is
    empty, sides are not told apart. Asked are three questions: whether there is more than 60 ml, more than in any
    patient that the bundled weights learnt from; whether a ball of 15 mm fits into one lesion; and whether 80 % of 5 ml
    or more lie on one side of the middle of the brain. Of 20 patients with multiple sclerosis or age-related lesions
    one is unlike the others in this way, with an unusually thick lesion; a glioma is, too. It is a hint to look at
    the scans, and its absence says nothing.
    """
    marked = mask.data[..., 0] > 0
    spacing_mm = np.linalg.norm(mask.affine[:3, :3], axis=0)
    volume_ml = float(marked.sum() * np.prod(spacing_mm) / 1000)
    if not marked.any():
        return ()
    found = []
    if volume_ml > MOST_ML:
        found.append(f"{volume_ml:.0f} ml are marked, more than in any patient that the network learnt from")
    # From the middle of a voxel to the edge of the next one is half a voxel less than to its middle.
    thick_mm = 2 * ndimage.distance_transform_edt(np.pad(marked, 1), sampling=spacing_mm).max() - spacing_mm.min()
    if thick_mm > THICKEST_MM:
        found.append(f"one lesion is {thick_mm:.0f} mm thick, which white matter lesions hardly are")
    if brain.any() and volume_ml >= FROM_ML:
        to_right = mask.affine[0]
        inside = np.argwhere(brain) @ to_right[:3] + to_right[3]
        middle = (inside.min() + inside.max()) / 2
        right = float((np.argwhere(marked) @ to_right[:3] + to_right[3] > middle).mean())
        share, side = max((right, "right"), (1 - right, "left"))
        if share > MOST_ON_ONE_SIDE:
            found.append(
                f"{100 * share:.0f} % of what is marked lies in the {side} half of the brain; white matter lesions "
                "are mostly spread over both, so look for a tumour, a stroke or an infection"
            )
    return tuple(found)
