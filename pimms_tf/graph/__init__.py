"""How scans are prepared and put back, once more as a TensorFlow graph of stock operations, for servers.

What `pimms_tf.data` and `pimms_tf.inference` do with arrays is done here with tensors, from the same record and with
the same rounding wherever that decides anything. Tests hold the two together.
"""

from pimms_tf.graph.nifti import Files, mask_files, read_files
from pimms_tf.graph.volume import Answer, VolumeGraph, obstacles

__all__ = ["Answer", "Files", "VolumeGraph", "mask_files", "obstacles", "read_files"]
