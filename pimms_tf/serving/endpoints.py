"""What an export answers: each signature as a function of tensors, with the types of its inputs."""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import ops

from pimms_tf.graph import VolumeGraph, mask_files, obstacles, read_files
from pimms_tf.inference.preparation import Preparation
from pimms_tf.models import PIMMS

Endpoint = tuple[Callable, list[tf.TensorSpec]]


def window_endpoints(model: keras.Model) -> dict[str, Endpoint]:
    """The signatures that take windows prepared as in training, [batch, scan, *space]."""
    space = (None,) * model.spatial_rank
    scans_spec = tf.TensorSpec((None, None, *space), tf.float32, name="scans")
    scores_spec = tf.TensorSpec((None, None, model.num_modalities), tf.float32, name="scores")
    modality_spec = tf.TensorSpec((None, None), tf.int32, name="modality")

    def windows(scans):  # as Keras casts what a model is called with
        return ops.cast(ops.moveaxis(scans, 1, -1), model.compute_dtype)

    def probabilities(scans, scores, valid):
        logits = model.segment(windows(scans), scores, valid)
        found = ops.softmax(ops.cast(logits, "float32"), axis=-1)
        return {"probabilities": found, "segmentation": found}  # the name in the first release

    def scores_of(scans, valid):
        return ops.cast(model.classify(windows(scans), valid), "float32")

    def classify_windows(scans):
        return {"modality_scores": scores_of(scans, is_present(scans))}

    def segment_with_scores(scans, scores):
        return probabilities(scans, scores, is_present(scans))

    def serving_default(scans):
        valid = is_present(scans)
        scores = scores_of(scans, valid)
        return probabilities(scans, scores, valid) | {"modality_scores": scores}

    def serving_labelled(scans, modality):
        valid = ops.logical_and(is_present(scans), modality >= 0)
        scores = ops.einsum("bn,bnm->bnm", ops.cast(valid, "float32"), ops.one_hot(modality, model.num_modalities))
        return probabilities(scans, scores, valid) | {"modality_scores": scores}

    with_scores = {"segment_with_scores": (segment_with_scores, [scans_spec, scores_spec])}
    if model.needs_labels:
        return {"serving_default": (serving_labelled, [scans_spec, modality_spec])} | with_scores
    unlabelled = {
        "serving_default": (serving_default, [scans_spec]),
        "classify_windows": (classify_windows, [scans_spec]),
    }
    return unlabelled | with_scores


def volume_endpoints(model: PIMMS, preparation: Preparation) -> dict[str, Endpoint]:
    """The signatures that take raw volumes or files; none if `graph.obstacles` names what is in the way."""
    if obstacles(preparation):
        return {}
    graph = VolumeGraph(model, preparation)
    scans_spec = tf.TensorSpec((None, None, None, None), tf.float32, name="scans")
    affine_spec = tf.TensorSpec((4, 4), tf.float32, name="affine")
    files_spec = tf.TensorSpec((None,), tf.string, name="files")
    names_spec = [tf.TensorSpec((None,), tf.string, name="names")] if graph.needs_names else []
    straight = tf.constant(graph.default_affine(), tf.float32)
    in_mm = [scans_spec, tf.TensorSpec((4, 4), tf.float64), *names_spec]

    # Functions of their own, so that all signatures share one graph.
    read = tf.function(read_files, input_signature=[files_spec], autograph=False)
    prepare = tf.function(graph.prepare, input_signature=in_mm, autograph=False)
    classify = tf.function(graph.classify, autograph=False)
    segment = tf.function(graph.segment, autograph=False)

    def answered(scans, affine, *names):
        prepared = prepare(scans, affine, *names)
        return segment(prepared, affine, classify(prepared, *names))

    def scored(scans, affine):
        return {"modality_scores": classify(prepare(scans, affine))}

    def as_in_files(scans, affine):
        return tf.transpose(scans, (0, 3, 2, 1)), tf.cast(affine, tf.float64)

    def serving_volume(scans, affine, *names):
        answer = answered(*as_in_files(scans, affine), *names)
        return {
            "probability": tf.transpose(answer.probability),
            "mask": tf.transpose(answer.mask),
            "modality_scores": answer.modality_scores,
        }

    def serving_nifti(files, *names):
        found = read(files)
        answer = answered(found.scans, found.affine, *names)
        voxels = tf.cast(tf.math.count_nonzero(answer.mask), tf.float64)
        return {
            "mask_bytes": mask_files(answer.mask, found),
            "modality_scores": answer.modality_scores,
            "volume_ml": tf.cast(voxels * tf.abs(tf.linalg.det(found.affine[:3, :3])) / 1000, tf.float32),
        }

    if graph.needs_names:
        return {
            "serving_volume": (
                lambda scans, affine, names: serving_volume(scans, affine, names),
                [scans_spec, affine_spec, *names_spec],
            ),
            "serving_nifti": (lambda files, names: serving_nifti(files, names), [files_spec, *names_spec]),
        }

    def classify_nifti(files):
        found = read(files)
        return scored(found.scans, found.affine)

    # Where voxels lie may be left out, but not of what is loaded in Python, which knows no inputs with defaults.
    return {
        "serving_volume": (lambda scans, affine=straight: serving_volume(scans, affine), [scans_spec, affine_spec]),
        "serving_nifti": (lambda files: serving_nifti(files), [files_spec]),
        "classify": (
            lambda scans, affine=straight: scored(*as_in_files(scans, affine)),
            [scans_spec, affine_spec],
        ),
        "classify_nifti": (classify_nifti, [files_spec]),
    }


def is_present(scans):
    """(batch, scan) bool: which scans [batch, scan, *space] are not zero throughout."""
    return ops.any(ops.not_equal(scans, 0), axis=tuple(range(2, len(scans.shape))))
