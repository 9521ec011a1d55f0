"""Slow changes of brightness over a scan, as coils leave them, estimated by N4 within the brain and divided out.

Source: Tustison et al., N4ITK: improved N3 bias correction, IEEE Trans Med Imaging 2010;29:1310, as in SimpleITK.
"""

from dataclasses import replace

import numpy as np
import SimpleITK as sitk  # noqa: N813

from pimms_tf.clinic.registration import WORK_UNITS, to_sitk
from pimms_tf.data.images import Image

_SPACING_MM = 4.0  # of the voxels that are looked at: the field is smoother than anything in the brain
_ITERATIONS = (50, 50, 30)  # at most, coarse to fine


def without_bias(image: Image, brain: np.ndarray) -> Image:
    """Returns a scan with one channel divided by its bias field, which is 1 on average over the brain.

    `brain` (x, y, z) bool is where the field is estimated; outside, it is no weaker and no stronger than within. A scan
    without positive voxels there stays as it is.
    """
    data = image.data[..., 0]
    inside = brain & (data > 0)
    if not inside.any():
        return image
    whole = to_sitk(image)
    mask = to_sitk(replace(image, data=inside[..., np.newaxis]), sitk.sitkUInt8)
    factors = [max(1, int(_SPACING_MM / step)) for step in image.spacing_mm]
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetNumberOfWorkUnits(WORK_UNITS)
    method.SetMaximumNumberOfIterations(_ITERATIONS)
    method.Execute(sitk.Shrink(whole, factors), sitk.Shrink(mask, factors))
    field = sitk.GetArrayFromImage(method.GetLogBiasFieldAsImage(whole)).T
    # Where nothing was seen, its splines may go anywhere.
    field = np.clip(field, field[inside].min(), field[inside].max()) - field[inside].mean(dtype=np.float64)
    return replace(image, data=(data / np.exp(field)).astype(np.float32)[..., np.newaxis])
