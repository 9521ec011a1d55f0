"""Permutation invariant multi-modal segmentation of brain MRI (Varsavsky et al. 2018) on TensorFlow and Keras 3."""

import importlib
import os

__version__ = "0.1.0"

# Training and export need TensorFlow; layers and losses run on any backend that the user has asked for.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

_OF_A_PATIENT = ("PatientResult", "ScanResult", "segment_patient")  # fetched on first use: importing this is light


def __getattr__(name: str):
    if name in _OF_A_PATIENT:
        return getattr(importlib.import_module("pimms_tf.clinic.patient"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
