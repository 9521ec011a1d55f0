"""Values in label maps: which classes they become, which are none, which classes never come."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from niftynet_compat import Config, read_label_mapping
from pimms_tf.check.files import FileFacts
from pimms_tf.check.report import Report
from pimms_tf.data.intensity import LabelMapping
from pimms_tf.study.mappings import label_rules
from pimms_tf.study.task import Task, real_modalities
from pimms_tf.wording import counted, some_of


class _Value(NamedTuple):
    """Where a value occurs."""

    voxels: int
    subjects: tuple[str, ...]


def check_label_values(
    config: Config, task: Task, facts: Sequence[FileFacts], training: Collection[str], report: Report, topic: str
) -> LabelMapping | None:
    """Reports on the values of label maps and of modality labels; returns the codes that label_normalisation gives.

    Codes are those on file, else those that training would number from its subjects; None where there are none.
    """
    _check_modalities(config, task, [f for f in facts if f.wanted.section == task.modality_image], report, topic)
    maps = [each for each in facts if each.wanted.section == task.label and each.wanted.counts_values]
    for each in maps:
        if each.num_channels > 1:
            text = f"{each.wanted.path} has {each.num_channels} times or components; give a file of one"
            report.mistake(topic, f"{each.wanted.name}: {text}")
    known = [each for each in maps if each.values is not None]
    if not known:
        if any(not each.error for each in maps):
            report.note(topic, "label values are not known from headers; without --fast every label map is read")
        return None
    for each in known:
        if each.has_too_many_values:
            report.mistake(
                topic, f"{each.wanted.name}: {each.wanted.path} has more than 100 different values and is no label map"
            )
    known = [each for each in known if not each.has_too_many_values]
    values = _collected(known)
    codes = None
    if config.task.label_normalisation:
        codes = _codes(config, task, [each for each in known if each.wanted.subject_id in training])
        _check_codes(config, task, codes, values, report, topic)
    else:
        _check_classes(config, task, values, report, topic)
    classes = {value: _class_of(value, codes) for value in values}
    report.table(
        topic,
        ("value", "class", "voxels", "subjects"),
        ((f"{value:g}", classes[value], found.voxels, len(found.subjects)) for value, found in sorted(values.items())),
    )
    never = sorted(set(range(task.num_classes)) - set(classes.values())) if values else []
    if never and config.action == "training":
        report.remark(
            topic, f"no label map has class {', '.join(map(str, never))}, though num_classes = {task.num_classes}"
        )
    empty = [each.wanted.subject_id for each in known if not any(_class_of(v, codes) > 0 for v in each.values)]
    if empty:
        report.note(topic, f"{counted(len(empty), 'subject has', 'subjects have')} no foreground: {some_of(empty)}")
    return codes


def _collected(facts: Sequence[FileFacts]) -> dict[float, _Value]:
    found: dict[float, _Value] = {}
    for each in facts:
        for value, voxels in each.values.items():
            before = found.get(value, _Value(0, ()))
            found[value] = _Value(before.voxels + voxels, (*before.subjects, each.wanted.subject_id))
    return found


def _codes(config: Config, task: Task, training: Sequence[FileFacts]) -> LabelMapping | None:
    path = config.histogram_file
    stored = read_label_mapping(path, "label", task.label) if path is not None and path.is_file() else None
    if stored is not None:
        return LabelMapping(tuple(map(float, stored.source)), tuple(map(int, stored.target)))
    numbers = sorted(_collected(training))
    return LabelMapping(tuple(numbers), tuple(range(len(numbers)))) if numbers else None


def _class_of(value: float, codes: LabelMapping | None) -> int:
    if codes is None:
        return int(np.rint(value))
    return codes.target[codes.source.index(value)] if value in codes.source else 0


def _check_codes(
    config: Config,
    task: Task,
    codes: LabelMapping | None,
    values: Mapping[float, _Value],
    report: Report,
    topic: str,
) -> None:
    if codes is None:
        return
    pairs = ", ".join(f"{source:g} becomes {target}" for source, target in zip(*codes, strict=True))
    report.fact(topic, "label_normalisation", pairs)
    if max(codes.target) >= task.num_classes:
        report.mistake(
            topic,
            f"label_normalisation numbers {counted(len(codes.source), 'value')} up to class {max(codes.target)}, but "
            f"num_classes = {task.num_classes} has 0 to {task.num_classes - 1}; raise num_classes, or merge values in "
            f"histogram_ref_file {config.histogram_file}",
        )
    for value, found in sorted(values.items()):
        if value not in codes.source:
            report.remark(
                topic,
                f"label value {value:g} of {_subjects(found.subjects)} is not among the "
                "codes and becomes 0",
            )


def _check_classes(config: Config, task: Task, values: Mapping[float, _Value], report: Report, topic: str) -> None:
    found = label_rules(config, task, None).judge(values)
    between = "is no whole number; give label maps, or map values by label_normalisation = True"
    outside = (
        f"is outside 0 to {task.num_classes - 1}; correct num_classes = {task.num_classes}, or number the values found "
        "by label_normalisation = True"
    )
    complaints = dict.fromkeys(found.between, between) | dict.fromkeys(found.outside, outside)
    for value, complaint in sorted(complaints.items()):
        subjects = values[value].subjects
        report.mistake(topic, f"label value {value:g} of {_subjects(subjects)} {complaint}")


def _check_modalities(config: Config, task: Task, facts: Sequence[FileFacts], report: Report, topic: str) -> None:
    values = _collected([each for each in facts if each.values is not None and not each.has_too_many_values])
    if not values:
        return
    count = len(real_modalities(task))
    least, most = 0, count if config.task_name == "MULTITASK" else count - 1
    report.table(
        topic,
        ("modality label", "scans", "subjects"),
        ((f"{value:g}", found.voxels, len(found.subjects)) for value, found in sorted(values.items())),
    )
    if config.task_name == "CLASSIFICATION" and config.task.label_normalisation:
        if len(values) > count:
            has = counted(len(values), "value")
            report.mistake(topic, f"[{task.modality_image}] has {has} for {count} modality classes")
        return
    for value, found in sorted(values.items()):
        if not least <= value <= most or value != round(value):
            report.mistake(
                topic,
                f"modality label {value:g} in [{task.modality_image}] of {_subjects(found.subjects)} "
                f"is none of {least} to {most}",
            )
    if len(task.scans) > 1:
        for each in facts:
            labels = sum((each.values or {}).values())
            if each.values and labels != len(task.scans):
                report.mistake(
                    topic,
                    f"{each.wanted.name}: {each.wanted.path} has {counted(labels, 'modality label')} for "
                    f"{len(task.scans)} scans",
                )


def _subjects(ids: Collection[str]) -> str:
    return f"{counted(len(ids), 'subject')} ({some_of(ids)})"
