"""A trained model as a SavedModel that answers without this package, and the proof that it does."""

from pimms_tf.serving.export import ExportReport, export_saved_model, exported_preparation, verify_export

__all__ = ["ExportReport", "export_saved_model", "exported_preparation", "verify_export"]
