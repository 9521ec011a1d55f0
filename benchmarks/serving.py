"""How much of a processor `serving_volume` takes, next to inference with the same network on the same scans.

    python benchmarks/serving.py EXPORT SCAN.nii.gz [SCAN.nii.gz ...]

Prints processor seconds, which other programs on the machine do not change: of the network inside inference, of
inference as a whole with reading, and of each signature; each the least of three, with one thread for TensorFlow.
"""

import os
import sys
import time
from pathlib import Path

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}

import nibabel as nib
import numpy as np
import tensorflow as tf

from pimms_tf.inference import load_segmenter


def seconds(call, times=3):
    """The least processor time of some calls, the first of which does not count."""
    call()
    took = []
    for _ in range(times):
        began = time.process_time()
        call()
        took.append(time.process_time() - began)
    return min(took)


def main(export, *names):
    """Prints the table."""
    segmenter = load_segmenter(export)
    spent = []

    def counted(predict):
        def call(*arguments):
            began = time.process_time()
            answer = predict(*arguments)
            spent.append(time.process_time() - began)
            return answer

        return call

    network = segmenter._network
    network._beyond, network.classify = counted(network._beyond), counted(network.classify)
    subject = segmenter.prepare(names)
    segmenter(subject)
    spent.clear()
    segmenter(subject)
    in_network = sum(spent)
    print(f"network inside inference  {in_network:8.2f}")
    print(f"inference, from files     {seconds(lambda: segmenter(segmenter.prepare(names)), 1):8.2f}")
    signatures = tf.saved_model.load(export).signatures
    scans = tf.constant(np.stack([nib.load(name).get_fdata(dtype=np.float32).T for name in names]))
    affine = tf.constant(nib.load(names[0]).affine, tf.float32)
    files = tf.constant([Path(name).read_bytes() for name in names])
    for name, given in (("serving_volume", {"scans": scans, "affine": affine}), ("serving_nifti", {"files": files})):
        took = seconds(lambda name=name, given=given: signatures[name](**given), 2)
        print(f"{name:25} {took:8.2f}  {took / in_network:.2f} times the network")


if __name__ == "__main__":
    main(*sys.argv[1:])
