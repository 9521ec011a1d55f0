"""A trained model as a SavedModel that answers without this package, and the proof that it does."""

from pimms_tf.serving.export import export_saved_model, exported_preparation
from pimms_tf.serving.proof import verified
from pimms_tf.serving.verification import ExportReport, verify_export, verify_volumes

__all__ = [
    "ExportReport",
    "export_saved_model",
    "exported_preparation",
    "verified",
    "verify_export",
    "verify_volumes",
]
