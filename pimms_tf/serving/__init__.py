"""A trained model as a SavedModel that answers without this package, and the proof that it does."""

from pimms_tf.serving.export import ExportInfo, ExportReport, export_saved_model, read_export_info, verify_export

__all__ = ["ExportInfo", "ExportReport", "export_saved_model", "read_export_info", "verify_export"]
