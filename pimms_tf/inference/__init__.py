"""From a trained model to segmentations on the files' own grids, and to an export that serves any number of scans."""

from pimms_tf.inference.export import ExportInfo, ExportReport, export_saved_model, read_export_info, verify_export
from pimms_tf.inference.outputs import ResultFolder, image_name, orthogonal_slices, subset_folder, write_class_table
from pimms_tf.inference.segmentation import label_scores, modality_scores, segment

__all__ = [
    "ExportInfo",
    "ExportReport",
    "ResultFolder",
    "export_saved_model",
    "image_name",
    "label_scores",
    "modality_scores",
    "orthogonal_slices",
    "read_export_info",
    "segment",
    "subset_folder",
    "verify_export",
    "write_class_table",
]
