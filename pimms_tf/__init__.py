"""Permutation invariant multi-modal segmentation of brain MRI (Varsavsky et al. 2018) on TensorFlow and Keras 3."""

import os

__version__ = "0.1.0"

# Training and export need TensorFlow; layers and losses run on any backend that the user has asked for.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
