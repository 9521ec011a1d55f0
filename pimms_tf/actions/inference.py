"""Inference of a study: its subjects → masks, lists and scores on disk, all at once or in shards."""

import hashlib
import logging
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from niftynet_compat import SubjectFiles
from pimms_tf import __version__
from pimms_tf.actions.failures import raise_failure, sentence
from pimms_tf.actions.sharding import Shard, shards_of
from pimms_tf.actions.waiting import Waits
from pimms_tf.data.images import Image, write_image
from pimms_tf.data.intensity import LabelMapping, unmap_labels
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError
from pimms_tf.evaluation import modality_subsets
from pimms_tf.files import sweep
from pimms_tf.inference import ResultFolder, image_name, subset_folder, write_class_table
from pimms_tf.inference.overlap import overlapped
from pimms_tf.inference.records import Record, Records
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.models import PIMMS
from pimms_tf.pipeline.cache import PreparesSubjects
from pimms_tf.pipeline.keys import settings_key, subject_key
from pimms_tf.study import cohort, journal
from pimms_tf.study.predicting import arranged, segmenter_of
from pimms_tf.study.study import Study
from pimms_tf.study.task import Task, notes, real_modalities, write_settings
from pimms_tf.study.trained import trained_model
from pimms_tf.training import devices
from pimms_tf.wording import counted, some_of

log = logging.getLogger(__name__)

Subset = tuple[str, ...]


def inference(
    study: Study, shard: Shard | None = None, resume: bool = False, loader: PreparesSubjects | None = None
) -> None:
    """Segments subjects with the trained model; writes one file per subject, `inferred.csv` and `modality_scores.csv`.

    With `[PIMMS] subsets` every non-empty subset of the modalities is segmented in turn, each into a folder of its own
    name below `save_seg_dir`. Models that need no labels then get the scans unlabelled and in shuffled order.

    Whatever goes wrong with one subject, it is named and the others go on. With `shard` only a part of the subjects is
    segmented, and listed in files of the shard's own, from which nothing but their rows is missing; see `merge`. With
    `resume` subjects are passed over whose results are there, from the same files, weights and settings. `loader`
    prepares the scans, by default the study's behind its cache; see `ahead.reading_ahead`.

    Raises:
        ConfigError, InputError: a mistake in the configuration, or in the data of one or more subjects.
    """
    config, task = study.config, study.task
    devices.prepare_machine(config.pimms.device_threads)
    if study.whole_slices:
        log.info("segmenting whole slices; windows and borders would be used with [PIMMS] inference_mode = windows")
    chosen, place = study.used, ""
    if shard is not None:
        chosen, place = shard.part_of(chosen), f"shard {shard.number} of {shard.count}, "
        log.info("%s%s", place, counted(len(chosen), "subject"))
    with Waits() as waits, waits.on(f"{place}building the network and reading its weights"):
        model = trained_model(config, task)
        devices.check_precision(config.pimms.inference_precision)
        devices.set_precision(model, config.pimms.inference_precision)
    writes_lists = shard is None or shard.number == 1  # all would write the same
    if writes_lists:
        write_settings(config)
    journal.inference_starts(config, journal.files_by_section(study.cohort.files), chosen, writes_lists)
    outputs = _outputs(study, shard)
    for output in outputs.values():
        sweep(output.folder.folder)
        sweep(output.records.folder)
    done = _Batches(journal.batch_reporter())
    opened = cohort.caching(study.loader, config, len(chosen)) if loader is None else nullcontext(loader)
    with opened as cached:
        run = _Run(
            study=study,
            cached=cached,
            segmenter=segmenter_of(study, model, done),
            outputs=outputs,
            key=_key_of(study, model),
            resume=resume,
            done=done,
        )
        failed = _segment_all(run, chosen, place)
    for output in run.outputs.values():
        if output.folder.num_scans:
            log.info("Saved %s", output.folder.folder)
    journal.say("stopping -- event handler: OutputInterpreter.")
    if failed:
        raise_failure(failed, len(chosen))


def _segment_all(run: "_Run", chosen: Sequence[SubjectFiles], place: str) -> dict[str, Exception]:
    """Reads, segments and writes all subjects, whatever becomes of single ones; returns the mistakes of these.

    `place` stands before what is said of a subject.
    """
    failed: dict[str, Exception] = {}
    waits = Waits()

    def compute(files: SubjectFiles, content: "_Prepared | list[Record]") -> "list[Record | _Result]":
        run.done.num = 0
        text = f"{place}segmenting {files.subject_id}"
        with waits.on(lambda: f"{text}: {counted(run.done.num, 'batch', 'batches')} done"):
            return run.compute(files, content)

    with waits, waits.on(f"{place}reading scans"):
        for number, (files, mistake) in enumerate(overlapped(chosen, run.read, compute, run.write), start=1):
            if mistake is None:
                log.info("%s%d of %d: %s", place, number, len(chosen), files.subject_id)
            else:
                failed[files.subject_id] = mistake
                log.error("%s%d of %d: %s failed: %s", place, number, len(chosen), files.subject_id, sentence(mistake))
    return failed


def merge(study: Study, count: int) -> None:
    """Writes `inferred.csv` and `modality_scores.csv` of a cohort that was segmented in `count` shards.

    Raises:
        ConfigError: a mistake in the configuration.
        InputError: subjects without a result, or whose files have changed since; results of different weights or
            settings. All are named with their shards, and nothing is written.
    """
    if count < 1:
        raise InputError(f"--merge {count}: a cohort is segmented in 1 shard or more")
    chosen = study.used
    shards = shards_of([files.subject_id for files in chosen], count)
    for folder, records in _outputs(study, None).values():
        done = {files.subject_id: records.read(files.subject_id) for files in chosen}
        missing = [
            files.subject_id
            for files in chosen
            if done[files.subject_id] is None or _has_changed(files, study, records, done[files.subject_id])
        ]
        if missing:
            numbers = sorted({shards[name].number for name in missing})
            again = ",".join(map(str, numbers))
            named = some_of(f"{name} (shard {shards[name].number} of {count})" for name in missing)
            raise InputError(
                f"{len(missing)} of {len(chosen)} subjects have no result of their present files in {folder.folder}: "
                f"{named}; run shard{'s' * (len(numbers) > 1)} {again} again with --resume, on Slurm by "
                f"sbatch --array={again}"
            )
        by_run: dict[str, list[str]] = {}
        for subject_id, record in done.items():
            by_run.setdefault(record.run, []).append(subject_id)
        if len(by_run) > 1:
            fewest = min(by_run.values(), key=len)
            raise InputError(
                f"the results in {folder.folder} come from {len(by_run)} runs with different weights or settings; that "
                f"of {some_of(fewest)} is not that of the others, so run all shards again with --resume"
            )
        for record in done.values():
            folder.take(record)
        folder.write()
        log.info("Saved %s", folder.folder)


class _Output(NamedTuple):
    """Where the results of a subset of the scans go, and the records of those that are done."""

    folder: ResultFolder
    records: Records


class _Prepared(NamedTuple):
    """What was read of a subject."""

    key: str  # of its files and how they are prepared
    order: list[int]  # which scan lies in each slot
    subject: Subject


class _Result(NamedTuple):
    """What is to be written of a subject, or of a subset of its scans; only a record where it has none of them."""

    key: str
    image: Image | None = None
    scores: np.ndarray | None = None  # (scan, modality)
    valid: np.ndarray | None = None
    names: Sequence[str] = ()  # of the scans' files


class _Batches:
    """Counts batches as they are computed, and hands on how many seconds each took."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self.num, self._report = 0, report

    def __call__(self, seconds: float) -> None:
        self.num += 1
        self._report(seconds)


@dataclass(frozen=True)
class _Run:
    """What is the same for all subjects, and the three steps of each: read, compute, write."""

    study: Study
    cached: PreparesSubjects
    segmenter: Segmenter
    outputs: Mapping[Subset, _Output]
    key: str  # of weights and settings
    resume: bool
    done: _Batches  # told how many seconds each batch took

    def read(self, files: SubjectFiles) -> _Prepared | list[Record]:
        """The prepared subject, or its records if it is done already."""
        scans = cohort.scan_files(files, self.study.task)
        key = _content_of(self.study.loader, scans, files.subject_id)
        if self.resume:
            records = [output.records.read(files.subject_id) for output in self.outputs.values()]
            if all(_is_of(record, self.key, key) for record in records):
                return records
        for output in self.outputs.values():
            output.records.forget(files.subject_id)
        subject = self.cached.load(scans, files.subject_id)
        _name_blank_scans(self.study.task, files, subject)
        return _Prepared(key, *arranged(self.study.config, subject))

    def compute(self, files: SubjectFiles, content: _Prepared | list[Record]) -> list[Record | _Result]:
        if isinstance(content, list):
            return content
        if not content.subject.valid.any():
            log.warning("subject %s has no scan but those of idxs_to_drop and is left out", files.subject_id)
            return [_Result(content.key) for subset in self.outputs]
        return [self._answer(files, subset, content) for subset in self.outputs]

    def _answer(self, files: SubjectFiles, subset: Subset, content: _Prepared) -> _Result:
        shown = _shown(content.subject, subset, self.study.task, self.study.config.pimms.seed)
        if shown is None:
            return _Result(content.key)
        slots, part = shown
        journal.grid_sampling(part.scans.shape, self.study.window)
        names = _scan_names(self.study.task, files, [content.order[slot] for slot in slots])
        inference, began = self.study.config.inference, time.perf_counter()
        scores, image = self.segmenter(
            part,
            probabilities=self.study.config.task.output_prob,
            order=inference.output_interp_order,
            fill=inference.fill_constant,
        )
        if image is None:
            self.done(time.perf_counter() - began)
        elif not subset:
            _warn_of_doubles(self.study.task, part, names, scores)
        return _Result(content.key, image, scores, part.valid, names)

    def write(self, files: SubjectFiles, results: list[Record | _Result]) -> None:
        for (folder, records), result in zip(self.outputs.values(), results, strict=True):
            record = result
            if isinstance(result, _Result):
                record = self._written(files.subject_id, folder, result)
                records.write(record)
            folder.take(record)
            folder.write()

    def _written(self, subject_id: str, folder: ResultFolder, result: _Result) -> Record:
        record = Record(subject_id, self.key, result.key)
        if result.scores is None:
            return record
        path = self._write_result(subject_id, folder.folder, result)
        rows = folder.rows(subject_id, result.names, result.scores, result.valid)
        return replace(record, result="" if path is None else path.name, scores=rows)

    def _write_result(self, subject_id: str, folder: Path, result: _Result) -> Path | None:
        form, postfix = self.study.config.pimms.output_names, self.study.config.inference.output_postfix
        every = self.study.config.task.output_prob
        path = None
        if result.image is not None:
            path = folder / image_name(subject_id, postfix, form)
            write_image(_in_codes(result.image, None if every else self.study.codes), path)
        elif form == "niftynet06":
            path = write_class_table(folder, subject_id, postfix, result.scores, result.valid, every)
        if path is not None:
            journal.say("Saved %s", path)
        return path


def _outputs(study: Study, shard: Shard | None) -> dict[Subset, _Output]:
    config, task = study.config, study.task
    # Records lie in the model folder, since folders of results are read by programs that expect results.
    root, part = notes(config).root / "records", "" if shard is None else shard.suffix
    outputs = {}
    for subset in modality_subsets(real_modalities(task)) if config.pimms.subsets else [()]:
        folder = subset_folder(config.save_seg_dir, subset)
        outputs[subset] = _Output(ResultFolder(folder, task.modalities, part), Records.below(root, folder))
    return outputs


def _key_of(study: Study, model: PIMMS) -> str:
    """A hash of everything but the subject that decides what a result looks like, and of some things that do not."""
    config = study.config
    # Shards may keep prepared scans on a disk of their own, and be followed by those of another phase.
    pimms = replace(config.pimms, cache="", cache_gib=0.0, resume=False)
    inference, prepared = replace(config.inference, dataset_to_infer=""), settings_key(study.loader)
    told = (__version__, study.task, config.network, inference, config.task, pimms, prepared, study.codes)
    key = hashlib.blake2b(repr(told).encode(), digest_size=16)
    for variable in model.variables:
        key.update(variable.path.encode())
        key.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return key.hexdigest()


def _is_of(record: Record | None, run: str, content: str) -> bool:
    # Files whose content cannot be pinned down have no key.
    return record is not None and content != "" and (record.run, record.content) == (run, content)


def _content_of(loader: SubjectLoader, scans: Mapping[str, Path], subject_id: str) -> str:
    """A hash of a subject's files and of how they are prepared, "" if their content cannot be pinned down."""
    try:
        return subject_key(loader, scans, subject_id) or ""
    except OSError:  # the loader says it better
        return ""


def _has_changed(files: SubjectFiles, study: Study, records: Records, record: Record) -> bool:
    """Whether a scan is another than that of the recorded result; those not touched since are not read."""
    scans = cohort.scan_files(files, study.task)
    recorded = records.path(files.subject_id).stat().st_mtime_ns
    # The time of change also shows that a time of modification was set back.
    try:
        found = [os.stat(path) for path in scans.values()]
    except OSError:
        return True
    if all(max(each.st_mtime_ns, each.st_ctime_ns) <= recorded for each in found):
        return False
    return not _is_of(record, record.run, _content_of(study.loader, scans, files.subject_id))


def _name_blank_scans(task: Task, files: SubjectFiles, subject: Subject) -> None:
    if len(task.scans) == len(subject.valid):
        blank = [
            name for name, valid in zip(task.scans, subject.valid, strict=True) if not valid and name in files.images
        ]
        if blank:
            named = ", ".join(f"[{name}] {files.images[name]}" for name in blank)
            log.warning("subject %s: 0 in every voxel, and so absent: %s", files.subject_id, named)


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
