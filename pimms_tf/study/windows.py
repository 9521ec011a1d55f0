"""Settings → windows: where training and validation cut them, and how they are augmented."""

from collections.abc import Callable, Iterable

import numpy as np

from pimms_tf.data.augmentation import Augmentation
from pimms_tf.data.resizing import resized
from pimms_tf.data.subjects import Subject
from pimms_tf.data.windows import (
    balanced_locations,
    foreground_locations,
    uniform_locations,
    weighted_locations,
)
from pimms_tf.pipeline.batches import BatchDataset, Loader, training_batches, validation_batches
from pimms_tf.pipeline.trays import Batch
from pimms_tf.study.preparing import augmentation_of
from pimms_tf.study.study import Study


def training_windows(study: Study, loader: Loader, start: int = 0, batch_size: int | None = None) -> BatchDataset:
    """The endless windows of training from batch `start` on: augmented, scans hidden and shuffled.

    Args:
        loader: prepares the subjects; the study's own, or that behind a cache.
        batch_size: windows in a batch; as the configuration says if None.
    """
    config = study.config
    return training_batches(
        study.training,
        loader,
        _augment(study, augmentation_of(config)),
        _locate(study),
        batch_size or config.network.batch_size,
        config.pimms.seed,
        max(config.system.num_threads, 1),
        start=start,
        queue_length=config.network.queue_length,
        # A classifier looks at each scan alone; hiding others teaches it nothing.
        curriculum=config.pimms.curriculum if study.task.segments else "none",
        warmup=config.pimms.curriculum_warmup_iters,
        permute=study.task.permute,
        **_slots(study),
    )


def validation_windows(study: Study, loader: Loader, batch_size: int | None = None) -> Iterable[Batch]:
    """The same windows at every pass, none of them augmented and no scan hidden; () without subjects.

    Arguments are those of `training_windows`.
    """
    config = study.config
    if not study.validation:
        return ()
    return validation_batches(
        study.validation,
        loader,
        _augment(study, None),
        _locate(study),
        batch_size or config.network.batch_size,
        config.pimms.seed,
        max(config.system.num_threads, 1),
        config.training.validation_max_iter,
        permute=study.task.permute,
        **_slots(study),
    )


def _locate(study: Study) -> Callable[[Subject, np.random.Generator], np.ndarray]:
    window, num = study.window, study.config.training.sample_per_volume
    kind, area = study.config.network.window_sampling, study.config.pimms.sampling_area

    def locate(subject: Subject, rng: np.random.Generator) -> np.ndarray:
        shape = subject.scans.shape[:3]
        if kind in ("weighted", "balanced"):
            cut = weighted_locations if kind == "weighted" else balanced_locations
            return cut(shape, window, num, subject.weight, rng)
        if area == "foreground":
            return foreground_locations(shape, window, num, subject.scans, rng)
        return uniform_locations(shape, window, num, rng)

    return locate


def _augment(study: Study, augmentation: Augmentation | None):
    if study.config.network.window_sampling != "resize":
        return augmentation

    def augment(subject: Subject, rng: np.random.Generator) -> Subject:
        return resized(subject if augmentation is None else augmentation(subject, rng), study.window)

    return augment


def _slots(study: Study) -> dict:
    return {
        "max_slots": study.config.pimms.max_slots or None,
        "empty_modality": 0 if study.task.null_class else -1,
        "label_required": study.task.segments,
    }
