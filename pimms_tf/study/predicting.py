"""A study and a network → what it says of one subject, in inference, validation and pictures of training."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from niftynet_compat import Config, SubjectFiles
from pimms_tf.data.subjects import Subject, restore
from pimms_tf.evaluation import confusion_matrix, dice
from pimms_tf.inference import Preparation, orthogonal_slices
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.models import PIMMS
from pimms_tf.pipeline.batches import Loader
from pimms_tf.pipeline.memory import SubjectCache
from pimms_tf.study.study import Study
from pimms_tf.study.task import check_arrangement
from pimms_tf.training import Metrics


def segmenter_of(study: Study, model: PIMMS, done: Callable[[float], None] = lambda seconds: None) -> Segmenter:
    """The segmenter of a study's network, which is told how to cut volumes by `[PIMMS] inference_mode`."""
    return Segmenter(model, study.preparation, study.config.pimms.inference_mode, done)


def arranged(config: Config, subject: Subject) -> tuple[list[int], Subject]:
    """The subject with the scans of `idxs_to_drop` absent and the others in the order of `permuted_indices`.

    Also which scan lies in each slot. Modalities stay with the slots, so a network that goes by them meets a scan where
    it expects another, which is what the fork's command lines were written to try.

    Raises:
        ConfigError: see `check_arrangement`.
    """
    num_scans = len(subject.valid)
    drop, order = (getattr(config.task, name, ()) for name in ("idxs_to_drop", "permuted_indices"))
    if not drop and not order:
        return list(range(num_scans)), subject
    check_arrangement(config, num_scans)
    order = list(order or range(num_scans))
    valid = subject.valid & ~np.isin(np.arange(num_scans), drop)
    return order, replace(subject, scans=(subject.scans * valid)[..., order], valid=valid[order])


def _leaving_none_out(preparation: Preparation) -> Preparation:
    """Training is not to end because a network of the moment doubts a scan."""
    return replace(preparation, least_score=0.0, least_share=0.0)


def previewer(study: Study, loader: Loader, model: PIMMS, files: SubjectFiles) -> Callable[[], np.ndarray | None]:
    """What draws one subject's lesions, reference and segmentation, with the weights of the moment."""
    if not study.task.segments:
        return lambda: None
    preparation = replace(_leaving_none_out(study.preparation), window=study.window, border=(0, 0, 0))
    segmenter = Segmenter(model, preparation, study.config.pimms.inference_mode)

    def preview() -> np.ndarray:
        subject = loader.load(files.images, files.subject_id)
        image = segmenter(subject).image
        scan = restore(subject, subject.scans[..., int(np.argmax(subject.valid))], 1).data[..., 0]
        return orthogonal_slices(scan, restore(subject, subject.label, 0).data[..., 0], image.data[..., 0])

    return preview


def whole_volume_validation(
    study: Study, loader: Loader, model: PIMMS, subjects: Sequence[SubjectFiles]
) -> Callable[[], Metrics | None]:
    """What segments whole validation subjects as inference would, with the weights of the moment → their mean metrics.

    `dice` is the mean over subjects of the Dice of everything but background; the segmentation loss, which chooses the
    best checkpoint, is 1 less that. The modality loss is the cross-entropy of scans whose modality is known.
    """
    segmenter = Segmenter(model, _leaving_none_out(study.preparation), study.config.pimms.inference_mode)
    task = study.task
    kept = SubjectCache(subjects, lambda files: loader.load(files.images, files.subject_id), 2 * 2**30)

    def validate() -> Metrics | None:
        scores, losses = [], [0.0]
        confusion = np.zeros((len(task.modalities), len(task.modalities)), np.int64)
        for index in range(len(subjects)):
            subject = kept.get(index)
            answer = segmenter(subject)
            known = subject.valid & (subject.modality >= 0)
            if known.any() and task.variant != "hemis":
                true = subject.modality[known]
                losses += (-np.log(np.maximum(answer.scores[known, true], 1e-7))).tolist()
                confusion += confusion_matrix(true, np.argmax(answer.scores[known], axis=-1), len(confusion))
            if answer.image is not None:
                truth = restore(subject, subject.label, 0).data[..., 0]
                scores.append(dice(truth > 0, answer.image.data[..., 0] > 0))
        if not subjects:
            return None
        mean_dice, modality = float(np.mean(scores or [0.0])), float(np.sum(losses) / max(len(losses) - 1, 1))
        loss = 1.0 - mean_dice if scores else 0.0
        return Metrics(*map(np.float32, (loss + modality, loss, modality, 0.0, mean_dice)), confusion)

    return validate
