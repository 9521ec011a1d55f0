"""The dry run of an action: settings, subjects, files, labels, windows, model folder, and what it will cost."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from niftynet_compat import Config, Phase, Remark
from niftynet_compat.schema.keys import Verdict
from niftynet_compat.schema.sections import SYSTEM_SECTIONS, TASK_SECTIONS, key_specs
from niftynet_compat.settings.config import inspect_config
from pimms_tf.check.evaluation import check_evaluation
from pimms_tf.check.files import MOST_NAMED, FileFacts, Progress, Wanted, examine, say_files
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
from pimms_tf.data.intensity import LabelMapping
from pimms_tf.errors import InputError, Mistake
from pimms_tf.study import cohort
from pimms_tf.study import task as tasks
from pimms_tf.study.study import Study, inference_study, training_study, with_learnt
from pimms_tf.wording import counted, some_of


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
            _check(tasks.resumed(inspection.config), fast, progress, bring_tensorflow, report)
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
        check_evaluation(config, fast, progress, report)
        return
    study = (training_study if config.action == "training" else inference_study)(config, report.collecting)
    _say_subjects(study, report)
    check_model_folder(study, report)
    _say_phases(study, report)
    if not study.used:
        return
    facts = examine(_wanted(study), fast, max(config.system.num_threads, 4), progress)
    say_files(facts, report, config.network.whitening, study.loader.takes_what_lies_above_0)
    codes = check_label_values(config, task, facts, {s.subject_id for s in study.training}, report, LABELS)
    shapes = _prepared_shapes(study, facts, report)
    if study.window is not None:
        check_windows(study, shapes, report, WINDOWS)
    if fast or report.exit_code == Level.MISTAKE:
        _say_amount_of_work(study, shapes, report)
        return
    with report.collecting(EXAMPLE):
        study = _learnt(study, codes)
        _show_one(study, report)
    _say_amount_of_work(study, shapes, report)
    if report.exit_code < Level.MISTAKE:
        with report.collecting(COSTS):
            bring_tensorflow()
            _measure(study, report)


@contextmanager
def _warnings_into(report: Report) -> Iterator[None]:
    """Warnings of all rooms become remarks on the topic looked at, not lines on the console; others are dropped."""

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report.remark(report.topic, record.getMessage())

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


def _say_subjects(study: Study, report: Report) -> None:
    task, found = study.task, study.cohort
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
    for names, ids in cohort.lacking_scans(task, found.subjects).items():
        report.note(SUBJECTS, f"{counted(len(ids), 'subject lacks', 'subjects lack')} {names}: {some_of(ids)}")


def _say_phases(study: Study, report: Report) -> None:
    config = study.config
    if not study.phases:
        return
    if study.split is not None and config.split_file.is_file():
        origin = f"split file {config.split_file}"
    elif config.action == "inference":
        origin = "no split file, so all subjects"
    elif study.split is None:
        origin = "no split file and no fractions, so all subjects are for training"
    else:
        origin = (
            f"to be drawn with seed {config.pimms.seed}: exclude_fraction_for_validation = "
            f"{config.training.exclude_fraction_for_validation:g}, exclude_fraction_for_inference = "
            f"{config.training.exclude_fraction_for_inference:g}"
        )
    report.fact(PHASES, "from", origin)
    for phase, part in study.phases.items():
        wanted = config.inference.dataset_to_infer or "(unset)"
        name = f"dataset_to_infer = {wanted}" if phase is Phase.INFERENCE else str(phase)
        report.fact(PHASES, name, len(part), counted(len(part), "subject"))
    if study.validation and config.training.validation_every_n <= 0:
        report.note(PHASES, "validation_every_n is not set, so the validation subjects are not used")


def _wanted(study: Study) -> list[Wanted]:
    loader = study.loader
    roles = (*loader.scans, loader.label, loader.weight, loader.modality_image)
    sections = list(dict.fromkeys(name for name in roles if name is not None))
    return [
        Wanted(
            subject.subject_id,
            name,
            subject.images[name],
            study.config.inputs[name].loader,
            counts_values=name in (study.task.label, study.task.modality_image),
        )
        for subject in study.used
        for name in sections
        if name in subject.images
    ]


def _prepared_shapes(study: Study, facts: Sequence[FileFacts], report: Report) -> dict[str, tuple[int, int, int]]:
    """The shape of each subject once it is prepared; a file that was refused by itself is not refused once more."""
    shapes: dict[str, tuple[int, int, int]] = {}
    broken = {(each.wanted.subject_id, each.wanted.section) for each in facts if each.error}
    refused: list[Mistake] = []
    for files in study.used:
        try:
            shapes[files.subject_id] = study.loader.prepared_shape(files.images, files.subject_id)
        except InputError as error:
            refused += [mistake for mistake in error.mistakes if (mistake.subject, mistake.section) not in broken]
    kinds = cohort.grouped((replace(mistake, subject="", path=None), mistake) for mistake in refused)
    for alike, mistakes in list(kinds.items())[:MOST_NAMED]:
        who = some_of(mistake.subject for mistake in mistakes)
        text = mistakes[0] if len(mistakes) == 1 else f"{len(mistakes)} subjects ({who}), {alike}"
        report.mistake(FILES, str(text))
    if len(kinds) > MOST_NAMED:
        left = sum(map(len, list(kinds.values())[MOST_NAMED:]))
        report.mistake(FILES, f"{counted(left, 'more file is', 'more files are')} refused for such reasons")
    return shapes


def _learnt(study: Study, codes: LabelMapping | None) -> Study:
    """The study with what training would learn, label codes from all its subjects and landmarks from two; none kept."""
    if not study.training:
        return study
    if codes is not None and study.loader.label is not None:
        study = replace(study, loader=replace(study.loader, label_mapping=codes))
    return with_learnt(study, store=False, landmarks_from=study.training[:2])


def _show_one(study: Study, report: Report) -> None:
    config, task, loader, files = study.config, study.task, study.loader, study.used[0]
    raw = replace(loader, whitening=False, mapping=None).load(files.images, files.subject_id)
    subject = loader.load(files.images, files.subject_id)
    rows = []
    looks = replace(loader, foreground=config.network.foreground_type, fusion="multi")
    masks = looks.foreground_of(raw.scans, raw.affine)
    for slot in np.flatnonzero(subject.valid):
        scan, mask = subject.scans[..., slot], masks[..., slot]
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


def _say_amount_of_work(study: Study, shapes: Mapping[str, tuple[int, int, int]], report: Report) -> None:
    config, task = study.config, study.task
    if config.action != "training":
        report.fact(COSTS, "subjects", len(study.used))
        return
    to_go = max(config.training.max_iter - study.start, 0)
    epoch = len(study.training) * config.training.sample_per_volume / config.network.batch_size
    report.fact(COSTS, "iterations", to_go, f"{to_go:,} to go, {to_go / epoch:,.1f} epochs of {epoch:,.1f} iterations")
    if not config.cache_is_off:
        arrays = len(task.scans) + sum(name is not None for name in (task.label, task.sampler))
        size = 4 * arrays * sum(x * y * z for x, y, z in shapes.values())
        limit = round(config.pimms.cache_gib * 2**30)
        shown = f"about {print_bytes(size)}" + (f", of which {print_bytes(limit)} are kept" if size > limit else "")
        report.fact(COSTS, "cache of prepared scans", min(size, limit), shown)


def _measure(study: Study, report: Report) -> None:
    from pimms_tf.check import costs  # brings TensorFlow

    (costs.measure_training if study.config.action == "training" else costs.measure_inference)(study, report)
