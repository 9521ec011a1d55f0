"""Inference of a cohort: settings → subjects → masks, lists and scores on disk."""

import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from niftynet_compat import Config, ConfigError, SubjectFiles, read_split
from pimms_tf import cohort, journal, settings
from pimms_tf.data.images import Image, write_image
from pimms_tf.data.intensity import LabelMapping, unmap_labels
from pimms_tf.data.subjects import Subject, SubjectLoader, restore
from pimms_tf.data.visits import SubjectCache
from pimms_tf.data.windows import check_border, resize_window
from pimms_tf.evaluation import confusion_matrix, dice, modality_subsets
from pimms_tf.inference import (
    ResultFolder,
    image_name,
    label_scores,
    modality_scores,
    orthogonal_slices,
    segment,
    subset_folder,
    write_class_table,
)
from pimms_tf.models import PIMMS
from pimms_tf.task import Task, border_of, check_arrangement, task_of, window_of
from pimms_tf.trained import trained_model
from pimms_tf.training import Metrics

log = logging.getLogger(__name__)


def inference(config: Config) -> None:
    """Segments subjects with the trained model; writes one file per subject, `inferred.csv` and `modality_scores.csv`.

    With `[PIMMS] subsets` every non-empty subset of the modalities is segmented in turn, each into a folder of its own
    name below `save_seg_dir`. Models that need no labels then get the scans unlabelled and in shuffled order.

    Raises:
        ConfigError, InputError: a mistake in the configuration or the data.
    """
    task = task_of(config)
    settings.prepare_machine(config)
    window = settings.window_of(config, "inference")
    border = settings.border_of(config, window)
    if config.network.window_sampling != "resize":
        check_border([size if size > 0 else 2**31 for size in window], border)
    if config.pimms.subsets and task.modality_image is None and min(task.slot_modality) < 0:
        raise ConfigError(
            f"{config.path}: subsets need to know the modality of every scan; set image_modalities in [PIMMS]"
        )
    if len(task.scans) > 1:
        check_arrangement(config, len(task.scans))
    codes = None
    if task.variant != "classifier" and config.task.label_normalisation:
        settings.require_section(config, task.label, "label")
        codes = cohort.label_codes(config, task.label)
    found = cohort.find_cohort(config, task, needs_label=False)
    subjects = cohort.task_subjects(config, task, False, found)
    chosen = _subjects_to_infer(config, subjects)
    loader = cohort.subject_loader(config, task, needs_label=False)
    cohort.check_subjects(loader, chosen, None)
    loader = cohort.with_mappings(loader, config, task)
    model = trained_model(config, task)
    settings.write_settings(config)
    journal.inference_starts(config, journal.files_by_section(found.files), chosen)
    done = journal.batch_reporter()
    network = Network(model, done)
    subsets = modality_subsets(settings.real_modalities(task)) if config.pimms.subsets else [()]
    outputs = {subset: ResultFolder(subset_folder(config.save_seg_dir, subset), task.modalities) for subset in subsets}
    form = config.pimms.output_names or "niftynet05"
    for number, files in enumerate(chosen, start=1):
        order, subject = arranged(config, loader.load(cohort.scan_files(files, task), files.subject_id))
        if not subject.valid.any():
            log.warning("subject %s has no scan but those of idxs_to_drop and is left out", files.subject_id)
            continue
        for subset, output in outputs.items():
            shown = _shown(subject, subset, task, config.pimms.seed)
            if shown is None:
                continue
            slots, part = shown
            journal.grid_sampling(part.scans.shape, window)
            names = _scan_names(task, files, [order[slot] for slot in slots])
            began = time.perf_counter()
            answer = segmented(
                config,
                task,
                network,
                part,
                window,
                border,
                probabilities=config.task.output_prob,
                order=config.inference.output_interp_order,
                fill=config.inference.fill_constant,
            )
            path = None
            if answer.image is None:
                done(time.perf_counter() - began)
            if answer.image is not None:
                if not subset:
                    _warn_of_doubles(task, part, names, answer.scores)
                path = output.folder / image_name(files.subject_id, config.inference.output_postfix, form)
                write_image(_in_codes(answer.image, None if config.task.output_prob else codes), path)
            elif form == "niftynet06":
                postfix, every = config.inference.output_postfix, config.task.output_prob
                path = write_class_table(output.folder, files.subject_id, postfix, answer.scores, part.valid, every)
            if path is not None:
                journal.say("Saved %s", path)
            output.add(files.subject_id, path, names, answer.scores, part.valid)
        log.info("%d of %d: %s", number, len(chosen), files.subject_id)
    for output in outputs.values():
        if output.num_scans:
            log.info("Saved %s", output.folder)
    journal.say("stopping -- event handler: OutputInterpreter.")


def _subjects_to_infer(config: Config, subjects: Sequence[SubjectFiles]) -> list[SubjectFiles]:
    split = read_split(config.split_file) if config.split_file.is_file() else None
    phase = config.inference.dataset_to_infer
    chosen = cohort.subjects_in_phase(subjects, split, phase, config)
    why = f"dataset_to_infer = {phase}" if phase else "dataset_to_infer is unset"
    origin = config.split_file if split is not None else "no split file"
    log.info("%d of %d subjects (%s; %s)", len(chosen), len(subjects), why, origin)
    return chosen


class Network:
    """The network as functions of arrays, compiled once for each shape."""

    def __init__(self, model: PIMMS, done: Callable[[float], None] = lambda seconds: None) -> None:
        @tf.function(reduce_retracing=True)
        def classify(scans, valid):
            return model.classify(scans, valid)

        @tf.function(reduce_retracing=True)
        def predict(scans, scores, valid):
            return model.segment(scans, model.classify(scans, valid) if scores is None else scores, valid)

        self._classify, self._predict, self._done = classify, predict, done

    def classify(self, scans: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return self._classify(tf.constant(scans), tf.constant(valid)).numpy()

    def predict(self, scans: np.ndarray, scores: np.ndarray | None, valid: np.ndarray) -> np.ndarray:
        given = None if scores is None else tf.constant(scores)
        began = time.perf_counter()
        answer = self._predict(tf.constant(scans), given, tf.constant(valid)).numpy()
        self._done(time.perf_counter() - began)
        return answer


class _Answer(NamedTuple):
    """What the network says of a subject; no image if it only classifies scans."""

    scores: np.ndarray  # (scan, modality)
    image: Image | None


def segmented(
    config: Config,
    task: Task,
    network: Network,
    subject: Subject,
    window: tuple[int, int, int],
    border: Sequence[int],
    *,
    probabilities: bool = False,
    order: int = 0,
    fill: float = 0.0,
) -> _Answer:
    """Scores and segmentation of a subject; with window_sampling = resize of its slices zoomed to the window."""
    resizes, rank = config.network.window_sampling == "resize", config.pimms.spatial_rank
    seen = settings.resized(subject, window) if resizes else subject
    scores = _scores(config, task, network, seen)
    if task.variant == "classifier":
        return _Answer(scores, None)
    per_window = config.pimms.classifier_scope == "window" and task.variant != "hemis"
    given, batch_size = None if per_window else scores, config.network.batch_size
    if not resizes:
        image = segment(
            network.predict,
            subject,
            given,
            window,
            border,
            batch_size,
            spatial_rank=rank,
            probabilities=probabilities,
            order=order,
            fill=fill,
        )
        return _Answer(scores, image)
    # Interpolated labels mean nothing, so above order 0 the best of the interpolated probabilities is taken.
    soft = probabilities or order > 0
    full = (0, 0, 1) if rank == 2 else (0, 0, 0)
    small = segment(network.predict, seen, given, full, (0, 0, 0), batch_size, spatial_rank=rank, probabilities=soft)
    image = restore(subject, resize_window(small.data, subject.scans.shape[:3], order), order)
    if soft and not probabilities:
        image = replace(image, data=np.argmax(image.data, axis=-1)[..., np.newaxis].astype(np.int32))
    return _Answer(scores, image)


def _scores(config: Config, task: Task, network: Network, subject: Subject) -> np.ndarray:
    if task.variant == "hemis":
        return label_scores(subject, len(task.modalities))
    # A million voxels take some hundred megabytes in the widest layer.
    slices = max(1, 2**20 // int(np.prod(subject.scans.shape[:2] + subject.scans.shape[3:])))
    rank = config.pimms.spatial_rank
    return modality_scores(
        network.classify, subject, config.pimms.classifier_slices, spatial_rank=rank, batch_size=slices
    )


def _warn_of_doubles(task: Task, subject: Subject, names: Sequence[str], scores: np.ndarray) -> None:
    """Scans of one modality add up in the paper's mixture, to intensities that no network has seen in training."""
    if task.choices["attention_normalise"] != "none":
        return
    best = {scan: int(np.argmax(scores[scan])) for scan in np.flatnonzero(subject.valid) if scores[scan].any()}
    for modality in sorted(set(best.values()) - ({0} if task.null_class else set())):
        same = [names[scan] for scan in best if best[scan] == modality]
        if len(same) > 1:
            log.warning(
                "subject %s: %s are all taken for %s and add up, which its segmentation may not survive; give one of "
                "them, or train with [PIMMS] attention_normalise = sum",
                subject.subject_id,
                ", ".join(same),
                task.modalities[modality],
            )


def _scan_names(task: Task, files: SubjectFiles, scans: Sequence[int]) -> list[str]:
    """The file names of these scans, "" for absent ones; several scans of one file are numbered."""
    if len(task.scans) == 1 and len(scans) > 1:
        return [f"{files.images[task.scans[0]].name}[{scan}]" for scan in scans]
    return [files.images[task.scans[scan]].name if task.scans[scan] in files.images else "" for scan in scans]


def _in_codes(image: Image, codes: LabelMapping | None) -> Image:
    return image if codes is None else replace(image, data=unmap_labels(image.data, codes))


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


def _shown(subject: Subject, subset: tuple[str, ...], task: Task, seed: int) -> tuple[list[int], Subject] | None:
    """The subject with the scans of these modalities alone, and their slots; None where it has none of them.

    Without a subset it is the subject as it is. A model that needs no labels gets a subset's scans in an order drawn
    per subject, and no labels, so that nothing but the images can tell them apart.
    """
    num_scans = len(subject.valid)
    if not subset:
        return list(range(num_scans)), subject
    wanted = {task.modalities.index(name) for name in subset}
    scans = [scan for scan in range(num_scans) if subject.valid[scan] and subject.modality[scan] in wanted]
    if {int(subject.modality[scan]) for scan in scans} != wanted:
        log.warning("subject %s has not all of %s and is left out there", subject.subject_id, "+".join(subset))
        return None
    if task.variant == "hemis":
        order, modality = scans, subject.modality[scans]
    else:
        rng = np.random.default_rng((seed, zlib.crc32(f"{subject.subject_id}+{'+'.join(subset)}".encode())))
        order = [scans[place] for place in rng.permutation(len(scans))]
        modality = np.full(len(order), -1, np.int32)
    part = replace(subject, scans=subject.scans[..., order], valid=subject.valid[order], modality=modality)
    return order, part


def previewer(config: Config, task: Task, loader: SubjectLoader, model: PIMMS, files: SubjectFiles):
    """What draws one subject's lesions, reference and segmentation, with the weights of the moment."""
    if task.variant == "classifier":
        return lambda: None
    network = Network(model)

    def preview() -> np.ndarray:
        subject = loader.load(files.images, files.subject_id)
        image = segmented(config, task, network, subject, settings.window_of(config, "training"), (0, 0, 0)).image
        scan = restore(subject, subject.scans[..., int(np.argmax(subject.valid))], 1).data[..., 0]
        return orthogonal_slices(scan, restore(subject, subject.label, 0).data[..., 0], image.data[..., 0])

    return preview


def whole_volume_validation(
    config: Config, task: Task, loader: SubjectLoader, model: PIMMS, subjects: Sequence[SubjectFiles]
) -> Callable[[], Metrics | None]:
    """What segments whole validation subjects as inference would, with the weights of the moment → their mean metrics.

    `dice` is the mean over subjects of the Dice of everything but background; the segmentation loss, which chooses the
    best checkpoint, is 1 less that. The modality loss is the cross-entropy of scans whose modality is known.
    """
    network = Network(model)
    window = window_of(config, "inference")
    border = border_of(config, window)
    kept = SubjectCache(subjects, lambda files: loader.load(files.images, files.subject_id), 2 * 2**30)

    def validate() -> Metrics | None:
        scores, losses = [], [0.0]
        confusion = np.zeros((len(task.modalities), len(task.modalities)), np.int64)
        for index in range(len(subjects)):
            subject = kept.get(index)
            answer = segmented(config, task, network, subject, window, border)
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
