"""Settings → subjects and how they are prepared: files, split, loader, landmarks, label codes."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from niftynet_compat import (
    Config,
    ConfigError,
    Discovery,
    Dropped,
    InputSection,
    Phase,
    SubjectFiles,
    discover,
    phase_subjects,
    read_split,
    select_subjects,
    split_subjects,
)
from niftynet_compat.paths import expanded, first_file
from niftynet_compat.subjects.lists import distinct_values, read_value_list
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.pipeline.cache import CachedLoader, Prepared, default_folder
from pimms_tf.study.preparing import scans_of
from pimms_tf.study.task import Task, real_modalities
from pimms_tf.wording import counted, some_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cohort:
    """The subjects that an action can use, those that it cannot, and the files of all sections it reads."""

    subjects: tuple[SubjectFiles, ...]
    dropped: tuple[Dropped, ...]
    files: Discovery


EMPTY = Cohort((), (), Discovery((), {}, ()))


def say_cohort(task: Task, cohort: Cohort) -> None:
    """Logs how many files and subjects are left aside and which, with the reason."""
    unused = ((u.section, u.reason, u.file.name) for u in cohort.files.unmatched if u.file is not None)
    for (section, reason), files in grouped(((section, reason), name) for section, reason, name in unused).items():
        number = counted(len(files), "file is", "files are")
        log.warning("[%s] %s not used, since %s: %s", section, number, reason, some_of(files))
    for reason, ids in grouped((reason, subject_id) for subject_id, reason in cohort.dropped).items():
        number = counted(len(ids), "subject is left out, which", "subjects are left out, each of which")
        log.warning("%s %s: %s", number, reason, some_of(ids))
    for names, ids in lacking_scans(task, cohort.subjects).items():
        log.info("%s %s: %s", counted(len(ids), "subject lacks", "subjects lack"), names, some_of(ids))


def find_cohort(config: Config, task: Task, needs_label: bool) -> Cohort:
    """All subjects that have a file in any section that the action reads, kept or dropped.

    Raises:
        ConfigError: a section finds nothing, a list is faulty, or no subject has a row in a list of values.
    """
    required = [task.label] if needs_label else []
    if task.modality_image is not None and reads_modalities(config, task):
        required.append(task.modality_image)
    if config.action == "training" and task.sampler is not None:
        required.append(task.sampler)
    needed = {*task.scans, *required}
    inputs = {name: section for name, section in config.inputs.items() if name in needed}
    _refuse_values(config, inputs)
    _refuse_old_lists(config, inputs)
    # A cohort to be segmented may lack a modality altogether; a folder that is not there is still a mistake.
    may_lack = task.scans if config.action == "inference" and config.pimms.keep_incomplete else ()
    found = discover(inputs, may_lack)
    any_of: Sequence[str] = task.scans
    if not config.pimms.keep_incomplete:
        required, any_of = [*task.scans, *required], ()
    kept, dropped = select_subjects(found.subjects, required, any_of)
    if kept and task.modality_values is not None and reads_modalities(config, task):
        rows = value_rows(config, task.modality_values)
        without = [subject.subject_id for subject in kept if subject.subject_id not in rows]
        if len(without) == len(kept):
            raise ConfigError(
                f"[{task.modality_values}] csv_data_file lists {counted(len(rows), 'subject')} such as "
                f"{next(iter(rows))}, but the data has {len(kept)} such as {without[0]} and none are in common; "
                "correct the ids"
            )
        kept = [subject for subject in kept if subject.subject_id in rows]
        dropped += [Dropped(subject_id, f"has no row in [{task.modality_values}]") for subject_id in without]
    return Cohort(tuple(kept), tuple(dropped), found)


def lacking_scans(task: Task, subjects: Iterable[SubjectFiles]) -> dict[str, list[str]]:
    """The subjects without a file for some scans, by the names of these."""
    lacking = (
        (", ".join(name for name in task.scans if name not in subject.images), subject.subject_id)
        for subject in subjects
    )
    return grouped(pair for pair in lacking if pair[0])


def none_found(config: Config, cohort: Cohort) -> str:
    """The sentence about a cohort without a subject."""
    counts = ", ".join(f"{count} in [{name}]" for name, count in cohort.files.found.items())
    reasons = grouped((reason, subject_id) for subject_id, reason in cohort.dropped)
    left = "".join(
        f"; {len(ids)} have a file, but each of them {reason}: {some_of(ids)}" for reason, ids in reasons.items()
    )
    return (
        f"{config.path}: no subject has the files that are needed ({counts}): files of one subject must leave the "
        f"same id when filename_contains is cut from their names{left}"
    )


def reads_modalities(config: Config, task: Task) -> bool:
    """Whether it is read which modality each scan has: that is the answer, not the question."""
    is_given = task.modality_image is not None or task.modality_values is not None
    return is_given and (config.action == "training" or task.variant == "hemis" or config.pimms.subsets)


def value_rows(config: Config, section: str) -> dict[str, tuple[str, ...]]:
    """The rows of a section's csv_data_file, as text; relative names start from the working folder or the INI's."""
    given = expanded(config.inputs[section].csv_data_file)
    candidates = [config.working_folder / given, config.path.parent / given]
    return read_value_list(first_file(candidates) or candidates[0], section)


def _refuse_values(config: Config, inputs: Mapping[str, InputSection]) -> None:
    for name, section in inputs.items():
        if section.csv_data_file:
            raise ConfigError(
                f"{config.path}: [{name}] has csv_data_file, a list of values, where images are needed; name images by "
                "path_to_search or csv_file"
            )


def _refuse_old_lists(config: Config, inputs: Mapping[str, InputSection]) -> None:
    """NiftyNet silently takes the list that an earlier run left where a section says nothing; here it must be named."""
    for name, section in inputs.items():
        path = config.split_file.parent / f"{name}.csv"
        if not section.csv_file and not section.path_to_search.strip() and path.is_file():
            raise ConfigError(
                f"{config.path}: [{name}] says neither path_to_search nor csv_file; the list that an earlier run left "
                f"is taken if you write csv_file = {path}"
            )


def grouped(pairs: Iterable[tuple]) -> dict:
    """{key: its values in order} of (key, value) pairs."""
    groups: dict = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def has_split(config: Config) -> bool:
    """Whether the split file is there.

    Raises:
        ConfigError: a folder is where it should be.
    """
    if config.split_file.is_dir():
        raise ConfigError(
            f"{config.path}: dataset_split_file = {config.split_file} is a folder; give the name of a list of "
            "subject,phase, which training makes if it is not there"
        )
    return config.split_file.is_file()


def split_on_file(config: Config) -> dict[str, Phase] | None:
    """The phases on file; None without a file.

    Raises:
        ConfigError: as `has_split`, or the file is no such list.
    """
    return read_split(config.split_file) if has_split(config) else None


def phases_of(config: Config, subjects: Sequence[SubjectFiles]) -> dict[str, Phase] | None:
    """The phases on file; without a file, drawn ones if the configuration gives fractions, else None."""
    split = split_on_file(config)
    if split is not None:
        log.info("Loading from existing partitioning file %s", config.split_file)
        return split
    training = config.training
    fractions = (training.exclude_fraction_for_validation, training.exclude_fraction_for_inference)
    if max(fractions) <= 0:
        return None
    return split_subjects([subject.subject_id for subject in subjects], *fractions, config.pimms.seed)


def subjects_in_phase(
    subjects: Sequence[SubjectFiles], split: dict[str, Phase] | None, phase: str | Phase, config: Config
) -> list[SubjectFiles]:
    """Those of the subjects that are for a phase, or for `dataset_to_infer`; none is for validation unless named.

    Raises:
        ConfigError: see `phase_subjects`.
    """
    ids = [subject.subject_id for subject in subjects]
    if phase is Phase.VALIDATION and (split is None or Phase.VALIDATION not in split.values()):
        return []
    wanted = set(phase_subjects(ids, split, phase, f"dataset_split_file {config.split_file}"))
    return [subject for subject in subjects if subject.subject_id in wanted]


def expected_subjects(config: Config, references: Mapping[str, Path]) -> set[str]:
    """Those of the subjects with a reference that inference was meant to segment."""
    split = split_on_file(config)
    if split is None:
        return set(references)
    subjects = [SubjectFiles(subject_id, {}) for subject_id in references]
    chosen = subjects_in_phase(subjects, split, config.inference.dataset_to_infer, config)
    return {subject.subject_id for subject in chosen}


def subject_loader(config: Config, task: Task, needs_label: bool, interpolates: bool = False) -> SubjectLoader:
    """What prepares subjects, but for that which is learnt from the training subjects; see `with_mappings`.

    `interpolates` prepares them for augmentation that does; see `Augmentation.interpolates_scans`.

    Scans are prepared as the record in the model folder says; the rest is what only a configuration speaks of.
    """
    sections = {name: config.inputs[name] for name in (*task.scans, task.label, task.sampler) if name is not None}
    weighs = needs_label and config.network.window_sampling in ("weighted", "balanced")
    return replace(
        scans_of(config, task).subject_loader(),
        axcodes={name: tuple(section.axcodes) or None for name, section in sections.items()},
        pixdim_mm={name: tuple(section.pixdim[:3]) or None for name, section in sections.items()},
        orders={name: section.interp_order for name, section in sections.items()},
        loader={name: section.loader for name, section in sections.items()},
        reference=config.pimms.reference or None,
        modality=task.slot_modality,
        modality_image=task.modality_image if reads_modalities(config, task) else None,
        label=task.label if needs_label else None,
        num_classes=task.num_classes if needs_label else None,
        require_label=needs_label,
        weight=task.sampler if weighs else None,
        coefficients=interpolates,
    )


@contextmanager
def caching(
    loader: SubjectLoader,
    config: Config,
    num_subjects: int = 0,
    report: Callable[[Prepared], None] | None = None,
) -> Iterator[SubjectLoader | CachedLoader]:
    """The loader behind the cache that `[PIMMS] cache` names, closed in the end; the loader itself if that is off."""
    if config.cache_is_off:
        yield loader
        return
    cached = CachedLoader(
        loader,
        config.cache_dir or default_folder(),
        round(config.pimms.cache_gib * 2**30),
        num_processes=max(config.system.num_threads, 1),
        num_subjects=num_subjects,
        report=report,
    )
    with closing(cached):
        yield cached


def modality_classes(config: Config, task: Task) -> dict[str, tuple[int, ...]]:
    """The modality class of each scan of each subject in the list of `modality_values`.

    Names of modalities, and numbers as they stand in files of modality labels, mean themselves; other words are
    numbered. With `[PIMMS] value_order` all values of a list of one per subject are: "sorted" as in NiftyNet's reader,
    "appearance" as in the fork's. A row may repeat the label of each scan, as the fork's lists of slices do.

    Raises:
        ConfigError: a word that means nothing, or is unlike all others, or more words than modalities.
    """
    section, order = task.modality_values, config.pimms.value_order
    rows = value_rows(config, section)
    is_single = all(len(row) == 1 for row in rows.values())
    count, first = len(real_modalities(task)), int(task.null_class)
    values = distinct_values((value for row in rows.values() for value in row), order or "sorted")
    numbers = {str(number): number + first for number in range(count)}
    if config.task_name == "MULTITASK":  # as in files of modality labels, where 0 is an empty slot
        numbers = {"0": 0 if task.null_class else -1} | {str(n + 1): n + first for n in range(count)}
    names = {name: task.modalities.index(name) for name in real_modalities(task)}
    if not order:
        _refuse_strangers(section, rows, values, names)
    codes = names if set(values) <= set(names) else numbers
    if codes is numbers and ((order and is_single) or not set(values) <= set(numbers)):
        codes = {value: first + place for place, value in enumerate(values)}
    if len(values) > count and codes is not numbers:
        raise ConfigError(
            f"[{section}] csv_data_file has {len(values)} different values, {some_of(values)}, but there are {count} "
            f"modalities, {', '.join(real_modalities(task))}; correct the list or the number of classes"
        )
    log.info("[%s] %s", section, ", ".join(f"{value} is class {codes[value]}" for value in values))
    return {
        subject_id: tuple(codes[value] for value in _one_per_scan(row, len(task.scans)))
        for subject_id, row in rows.items()
    }


def _refuse_strangers(
    section: str, rows: Mapping[str, Sequence[str]], values: Sequence[str], names: Iterable[str]
) -> None:
    """A word that is unlike all others would give them other numbers, and so the subjects of all other rows."""
    for what, known in (("modalities", set(names)), ("numbers", set(filter(str.isdecimal, values)))):
        strangers = [value for value in values if value not in known]
        if strangers and len(strangers) < len(values):
            who = [subject_id for subject_id, row in rows.items() if set(row) & set(strangers)]
            raise ConfigError(
                f"[{section}] csv_data_file has {some_of(strangers)} for {some_of(who)}, where other values are "
                f"{what}; correct it, or say by [PIMMS] value_order that all are words to be numbered"
            )


def _one_per_scan(row: Sequence[str], num_scans: int) -> Sequence[str]:
    """The row without repetitions: one value per scan of rows like 1,1,2,2 or 1,2,1,2."""
    if num_scans < 2 or len(row) <= num_scans or len(row) % num_scans:
        return row
    times = len(row) // num_scans
    for short in (row[::times], row[:num_scans]):
        if tuple(row) in (tuple(short) * times, tuple(value for value in short for _ in range(times))):
            return short
    return row


def scan_files(files: SubjectFiles, task: Task) -> dict[str, Path]:
    """The files of a subject without those that hold an answer, which inference has no use for."""
    return {name: path for name, path in files.images.items() if name in (*task.scans, task.modality_image)}


def files_of_section(config: Config, section: str) -> dict[str, Path]:
    _refuse_values(config, {section: config.inputs[section]})
    found = discover({section: config.inputs[section]})
    return {subject.subject_id: subject.images[section] for subject in found.subjects}
