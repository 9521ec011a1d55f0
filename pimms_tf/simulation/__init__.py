"""Simulated subjects with lesions, as any hospital might have scanned them; no TensorFlow.

heads = read_heads(Path("labelmaps"), cache=Path("cache"))     # or [packaged_head(rng)]
masks = read_lesion_masks(Path("lesion_masks_mni"))            # real lesions in MNI space; or ()
rng = np.random.default_rng(seed)
one = simulate(heads[0], draw_hospital(rng), rng, masks=masks)  # num_slices=24: a slab, faster
subject = one.subject()                                        # LPS, whitened, modality T1 0, T2 1, FLAIR 2
"""

from pimms_tf.simulation.cohort import (
    Simulator,
    read_hospitals,
    scan_names,
    sidecar,
    write_cohort,
    write_hospitals,
    write_subject,
)
from pimms_tf.simulation.heads import Head, LesionMask, packaged_head, read_head, read_heads, read_lesion_masks
from pimms_tf.simulation.hospitals import draw_hospital, draw_protocol
from pimms_tf.simulation.lesions import Lesions, draw_lesions
from pimms_tf.simulation.protocols import CONTRASTS, Hospital, Protocol
from pimms_tf.simulation.subjects import MODALITY, SimulatedSubject, simulate

__all__ = [
    "CONTRASTS",
    "MODALITY",
    "Head",
    "Hospital",
    "LesionMask",
    "Lesions",
    "Protocol",
    "SimulatedSubject",
    "Simulator",
    "draw_hospital",
    "draw_lesions",
    "draw_protocol",
    "packaged_head",
    "read_head",
    "read_heads",
    "read_hospitals",
    "read_lesion_masks",
    "scan_names",
    "sidecar",
    "simulate",
    "write_cohort",
    "write_hospitals",
    "write_subject",
]
