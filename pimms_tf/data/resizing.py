"""Subjects zoomed to a window instead of being cut into windows: NiftyNet's resize sampler."""

from dataclasses import replace

import numpy as np

from pimms_tf.data.grids import Grid
from pimms_tf.data.subjects import Subject
from pimms_tf.data.windows import resize_window


def resized(subject: Subject, window: tuple[int, int, int]) -> Subject:
    """The subject zoomed in plane to the window, all its slices kept: NiftyNet's resize sampler on single slices.

    A window that is thick or full along z zooms that axis too. The result lies on a grid of its own, without padding.
    """
    shape = subject.scans.shape[:3]
    size = (window[0], window[1], window[2] if window[2] != 1 else shape[2])
    volumes = np.moveaxis(np.asarray(subject.scans), -1, 0)
    scans = np.stack([resize_window(scan, size, 3, subject.far_plane) for scan in volumes], axis=-1)
    label = None if subject.label is None else resize_window(np.asarray(subject.label), size, 0, subject.far_plane)
    affine = subject.affine.copy()
    steps = [(max(n - 1, 1), max(m - 1, 1)) for n, m in zip(shape, scans.shape[:3], strict=True)]
    affine[:3, :3] *= [before / after for before, after in steps]
    grid = Grid(scans.shape[:3], affine)
    return replace(
        subject,
        scans=scans * subject.valid,
        label=label,
        affine=affine,
        original=grid,
        weight=None,
        coefficients=None,
        padding=((0, 0),) * 3,
    )
