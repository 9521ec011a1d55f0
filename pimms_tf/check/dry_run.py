"""The dry run of an action: settings, subjects, files, labels, windows, model folder, and what it will cost."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from niftynet_compat import Config, ModelDir, Phase, Remark, SubjectFiles
from niftynet_compat.schema.keys import Verdict
from niftynet_compat.schema.sections import SYSTEM_SECTIONS, TASK_SECTIONS, key_specs
from niftynet_compat.settings.config import inspect_config
from pimms_tf.check.evaluation import check_evaluation
from pimms_tf.check.files import MOST_NAMED, Progress, Wanted, examine, say_files
from pimms_tf.check.labels import check_label_values
from pimms_tf.check.model_folder import check_model_folder
from pimms_tf.check.report import (
    COSTS,
    EXAMPLE,
    FILES,
    LABELS,
    PHASES,
    SETTINGS,
    SUBJECTS,
    WINDOWS,
    Level,
    Report,
    print_bytes,
)
from pimms_tf.check.windows import check_windows
from pimms_tf.data.intensity import LabelMapping, foreground_mask
from pimms_tf.data.subjects import SubjectLoader
from pimms_tf.errors import InputError
from pimms_tf.evaluation.results import some_of
from pimms_tf.study import cohort, mappings
from pimms_tf.study import task as tasks
from pimms_tf.study.task import Task


class _Parts(NamedTuple):
    """The subjects of an action by what they are for."""

    used: list[SubjectFiles]
    training: list[SubjectFiles]
    validation: list[SubjectFiles]


def check_config(
    path: str | Path,
    overrides: Mapping[str, str] | Sequence[str] | None = None,
    application: str | None = None,
    action: str = "training",
    fast: bool = False,
    progress: Progress = lambda done, total: None,
    bring_tensorflow: Callable[[], object] = lambda: None,
) -> Report:
    """What `action` (training, inference or evaluation) would find with this configuration; nothing is written.

    Every file that it would use is read, and two of its steps are taken in memory, unless `fast`: then only headers
    are, and TensorFlow is not needed. A faulty INI file is reported without looking further. `overrides` are
    {key: text} or the words of a command line; `bring_tensorflow` is called before TensorFlow is imported.
    """
    report = Report(Path(path), action)
    with _warnings_into(report), report.collecting(SETTINGS):
        inspection = inspect_config(path, overrides, application, action)
        for mistake in inspection.findings.mistakes:
            report.mistake(SETTINGS, str(mistake))
        if report.exit_code < Level.MISTAKE:
            _check(inspection.config, fast, progress, bring_tensorflow, report)
    return report


def _check(
    config: Config, fast: bool, progress: Progress, bring_tensorflow: Callable[[], object], report: Report
) -> None:
    _say_remarks(config, report)
    task = tasks.task_of(config)
    report.fact(SETTINGS, "network", config.network.name)
    report.fact(SETTINGS, "scans", ", ".join(task.scans))
    report.fact(SETTINGS, "modalities", ", ".join(task.modalities))
    if config.action == "evaluation":
        check_evaluation(config, task, fast, progress, report)
        return
    segments = task.variant != "classifier"
    _check_task(config, task, segments, report)
    needs_label = segments and config.action == "training"
    found = None
    with report.collecting(SUBJECTS):
        found = cohort.find_cohort(config, task, needs_label)
        _say_subjects(config, task, found, report)
    check_model_folder(config, task, report)
    if found is None or not found.subjects:
        return
    parts = None
    with report.collecting(PHASES):
        parts = _phases(config, found.subjects, report)
    if parts is None or not parts.used:
        return
    facts = examine(_wanted(config, task, parts.used, needs_label), fast, max(config.system.num_threads, 4), progress)
    say_files(facts, report, config.network.whitening)
    codes = check_label_values(config, task, facts, {s.subject_id for s in parts.training}, report, LABELS)
    loader = cohort.subject_loader(config, task, needs_label=needs_label)
    shapes = _prepared_shapes(loader, parts.used, report)
    with report.collecting(WINDOWS):
        check_windows(config, task, shapes, report, WINDOWS)
    if fast or report.exit_code == Level.MISTAKE:
        _say_amount_of_work(config, task, parts, shapes, report)
        return
    with report.collecting(EXAMPLE):
        loader = _mapped(loader, config, task, codes, parts)
        _show_one(config, task, loader, parts.used[0], report)
    _say_amount_of_work(config, task, parts, shapes, report)
    if report.exit_code < Level.MISTAKE:
        with report.collecting(COSTS):
            bring_tensorflow()
            _measure(config, task, loader, parts, report)


@contextmanager
def _warnings_into(report: Report) -> Iterator[None]:
    """Warnings of all rooms become remarks instead of lines on the console; other messages are dropped."""

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report.remark(_TOPIC_OF.get(record.name, FILES), record.getMessage())

    collector = _Collector(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("pimms_tf", "niftynet_compat")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(collector)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagates in zip(loggers, before, strict=True):
            logger.removeHandler(collector)
            logger.propagate = propagates


_TOPIC_OF = {
    "niftynet_compat.subjects.discovery": SUBJECTS,
    "niftynet_compat.subjects.partition": PHASES,
    "pimms_tf.study.task": WINDOWS,
    "pimms_tf.data.subjects": EXAMPLE,
}


def _say_remarks(config: Config, report: Report) -> None:
    for remark in config.remarks:
        say = report.note if _is_harmless(remark, config) else report.remark
        say(SETTINGS, str(remark))
    if config.action == "training" and (text := tasks.remark_on_modality_loss(config)):
        report.remark(SETTINGS, text)


def _is_harmless(remark: Remark, config: Config) -> bool:
    kinds = SYSTEM_SECTIONS | {config.task_name: TASK_SECTIONS[config.task_name]}
    spec = key_specs(kinds[remark.section]).get(remark.key) if remark.section in kinds else None
    return spec is not None and spec.ruling.verdict is Verdict.NO_EFFECT


def _check_task(config: Config, task: Task, segments: bool, report: Report) -> None:
    checks: list[Callable[[], object]] = [lambda: tasks.window_of(config, config.action)]
    if segments:
        checks.append(lambda: tasks.check_num_classes(config, task))
    if segments and (config.action == "training" or config.task.label_normalisation):
        checks.append(lambda: tasks.require_section(config, task.label, "label"))
    if config.action == "training":
        checks.append(lambda: tasks.check_sampler(config, task))
        checks.append(lambda: tasks.check_rank(config, tasks.window_of(config, "training")))
    elif len(task.scans) > 1:
        checks.append(lambda: tasks.check_arrangement(config, len(task.scans)))
    for check in checks:
        with report.collecting(SETTINGS):
            check()


def _say_subjects(config: Config, task: Task, found: cohort.Cohort, report: Report) -> None:
    roles = dict.fromkeys(task.scans, "scan") | {
        name: role
        for name, role in ((task.modality_image, "modalities"), (task.label, "label"), (task.sampler, "sampler"))
        if name is not None
    }
    left = cohort.grouped((unmatched.section, unmatched) for unmatched in found.files.unmatched)
    report.table(
        SUBJECTS,
        ("section", "as", "files", "used", "not used"),
        (
            (
                name,
                roles.get(name, ""),
                count + sum(item.file is not None for item in left.get(name, ())),
                sum(name in subject.images for subject in found.subjects),
                count
                - sum(name in subject.images for subject in found.subjects)
                + sum(item.file is not None for item in left.get(name, ())),
            )
            for name, count in found.files.found.items()
        ),
    )
    report.fact(SUBJECTS, "subjects", len(found.subjects))
    for section, items in left.items():
        for reason, files in cohort.grouped((item.reason, item.file) for item in items).items():
            names = [file.name for file in files if file is not None]
            if names:
                report.remark(
                    SUBJECTS, f"[{section}] {len(names)} files have no subject, since {reason}: {some_of(names)}"
                )
            else:
                report.remark(SUBJECTS, f"[{section}] is left aside: {reason}")
    for reason, ids in cohort.grouped((reason, subject_id) for subject_id, reason in found.dropped).items():
        report.remark(SUBJECTS, f"{len(ids)} subjects are left out, each of which {reason}: {some_of(ids)}")
    for names, ids in cohort.lacking_scans(task, found.subjects).items():
        report.note(SUBJECTS, f"{len(ids)} subjects lack {names}: {some_of(ids)}")
    if not found.subjects:
        report.mistake(SUBJECTS, cohort.nobody(config, found))


def _phases(config: Config, subjects: Sequence[SubjectFiles], report: Report) -> _Parts:
    on_file = cohort.has_split(config)
    if on_file:
        origin = f"split file {config.split_file}"
    elif config.action == "inference":
        origin = "no split file, so all subjects"
    else:
        fractions = config.training.exclude_fraction_for_validation, config.training.exclude_fraction_for_inference
        origin = "no split file and no fractions, so all subjects are for training"
        if max(fractions) > 0:
            origin = (
                f"to be drawn with seed {config.pimms.seed}: exclude_fraction_for_validation = {fractions[0]:g}, "
                f"exclude_fraction_for_inference = {fractions[1]:g}"
            )
    report.fact(PHASES, "from", origin)
    if config.action == "inference":
        split = cohort.split_on_file(config)
        wanted = config.inference.dataset_to_infer
        chosen = cohort.subjects_in_phase(subjects, split, wanted, config)
        report.fact(PHASES, f"dataset_to_infer = {wanted or '(unset)'}", len(chosen), f"{len(chosen)} subjects")
        return _Parts(chosen, [], [])
    split = cohort.phases_of(config, subjects)
    parts = {
        phase: cohort.subjects_in_phase(subjects, split, phase, config) if split or phase is Phase.TRAINING else []
        for phase in (Phase.TRAINING, Phase.VALIDATION)
    }
    for phase, part in parts.items():
        report.fact(PHASES, str(phase), len(part), f"{len(part)} subjects")
    every = config.training.validation_every_n
    if every > 0 and not parts[Phase.VALIDATION]:
        report.mistake(
            PHASES,
            f"validation_every_n = {every} needs validation subjects; set exclude_fraction_for_validation, or list "
            "some in dataset_split_file",
        )
    elif every <= 0 and parts[Phase.VALIDATION]:
        report.note(PHASES, "validation_every_n is not set, so the validation subjects are looked at by nobody")
    return _Parts([*parts[Phase.TRAINING], *parts[Phase.VALIDATION]], *parts.values())


def _wanted(config: Config, task: Task, subjects: Sequence[SubjectFiles], needs_label: bool) -> list[Wanted]:
    reads_modalities = cohort.reads_modalities(config, task)
    uses_sampler = needs_label and config.network.window_sampling in ("weighted", "balanced")
    sections = [*task.scans]
    sections += [task.label] if needs_label else []
    sections += [task.sampler] if uses_sampler and task.sampler not in sections else []
    sections += [task.modality_image] if reads_modalities else []
    return [
        Wanted(
            subject.subject_id,
            name,
            subject.images[name],
            config.inputs[name].loader,
            counts_values=name in (task.label, task.modality_image),
        )
        for subject in subjects
        for name in sections
        if name in subject.images
    ]


def _prepared_shapes(
    loader: SubjectLoader, subjects: Sequence[SubjectFiles], report: Report
) -> dict[str, tuple[int, int, int]]:
    shapes: dict[str, tuple[int, int, int]] = {}
    refused: list[str] = []
    for files in subjects:
        try:
            shapes[files.subject_id] = loader.prepared_shape(files.images, files.subject_id)
        except InputError as error:
            refused.append(str(error))
    # What a file itself has been refused for is said already.
    said = [finding.text for finding in report.findings if finding.topic == FILES]
    refused = [text for text in refused if not any(mistake.split(": ", 1)[-1] in text for mistake in said)]
    for text in refused[:MOST_NAMED]:
        report.mistake(FILES, text)
    if len(refused) > MOST_NAMED:
        report.mistake(FILES, f"{len(refused) - MOST_NAMED} more subjects are refused for such reasons")
    return shapes


def _mapped(
    loader: SubjectLoader, config: Config, task: Task, codes: LabelMapping | None, parts: _Parts
) -> SubjectLoader:
    """The loader with landmarks and codes, those that training would learn taken from two subjects; none is kept."""
    if codes is not None and loader.label is not None:
        loader = replace(loader, label_mapping=codes)
    return mappings.with_mappings(loader, config, task, parts.training[:2] or None, store=False)


def _show_one(config: Config, task: Task, loader: SubjectLoader, files: SubjectFiles, report: Report) -> None:
    raw = replace(loader, whitening=False, mapping=None).load(files.images, files.subject_id)
    subject = loader.load(files.images, files.subject_id)
    rows = []
    for slot in np.flatnonzero(subject.valid):
        scan = subject.scans[..., slot]
        mask = foreground_mask(raw.scans[..., slot], config.network.foreground_type)
        name = task.scans[slot] if len(task.scans) > 1 else f"{task.scans[0]}[{slot}]"
        figures = (scan.min(), scan.mean(), scan.max(), scan.std())
        rows.append((name, f"{100 * mask.mean():.0f} %", *(f"{float(value):.3g}" for value in figures)))
        if float(scan.std()) == 0:
            report.mistake(EXAMPLE, f"subject {files.subject_id}: [{name}] is constant once it is prepared")
    report.fact(EXAMPLE, "subject", files.subject_id)
    report.fact(EXAMPLE, "shape", str(subject.scans.shape[:3]))
    report.table(EXAMPLE, ("scan", "foreground", "least", "mean", "most", "deviation"), rows)
    if not (config.network.whitening or config.network.normalisation):
        report.remark(EXAMPLE, "neither whitening nor normalisation is on, so the network sees raw intensities")
    if subject.label is not None:
        share = float((subject.label > 0).mean())
        report.fact(EXAMPLE, "foreground of the label", share, f"{100 * share:.3g} %")


def _say_amount_of_work(
    config: Config, task: Task, parts: _Parts, shapes: Mapping[str, tuple[int, int, int]], report: Report
) -> None:
    if config.action != "training":
        report.fact(COSTS, "subjects", len(parts.used))
        return
    start = max(config.training.starting_iter, 0)
    if config.training.starting_iter < 0:
        start = max(ModelDir(config.model_dir).iterations(), default=0)
    to_go = max(config.training.max_iter - start, 0)
    epoch = len(parts.training) * config.training.sample_per_volume / config.network.batch_size
    report.fact(COSTS, "iterations", to_go, f"{to_go:,} to go, {to_go / epoch:,.1f} epochs of {epoch:,.1f} iterations")
    if not config.cache_is_off:
        arrays = len(task.scans) + sum(name is not None for name in (task.label, task.sampler))
        size = 4 * arrays * sum(x * y * z for x, y, z in shapes.values())
        limit = round(config.pimms.cache_gib * 2**30)
        shown = f"about {print_bytes(size)}" + (f", of which {print_bytes(limit)} are kept" if size > limit else "")
        report.fact(COSTS, "cache of prepared scans", min(size, limit), shown)


def _measure(config: Config, task: Task, loader: SubjectLoader, parts: _Parts, report: Report) -> None:
    from pimms_tf.check import costs  # brings TensorFlow

    if config.action == "training":
        costs.measure_training(config, task, loader, parts.training, report)
    else:
        costs.measure_inference(config, task, loader, parts.used, report)
