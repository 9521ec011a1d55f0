"""What joining the input sections of a file will find, where the data are at hand."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from niftynet_compat.paths import search_folders
from niftynet_compat.settings.config import Config
from niftynet_compat.subjects.discovery import Discovery, discover, select_subjects, similar_ids
from niftynet_compat.subjects.lists import read_value_list
from niftynet_compat.subjects.partition import phase_subjects, read_split
from pimms_tf.errors import ConfigError
from pimms_tf.wording import counted

_SHOWN = 5
_FIRST_ONLY = ("label", "modality_label", "modalities", "sampler")  # task keys of which one section is read


@dataclass(frozen=True)
class Join:
    """What was found, one sentence per line; `obstacle` says why data that are there make no subject, or no phase."""

    lines: tuple[str, ...]
    num_subjects: int | None = None  # None if data are not at hand
    obstacle: str = ""


def join_subjects(config: Config) -> Join:
    """Returns what the sections of a configuration find and which subjects they make, without reading any image."""
    surplus = _surplus(config)
    used = [name for name in config.inputs if config.inputs[name].referenced and name not in surplus]
    images = {name: config.inputs[name] for name in used if not config.inputs[name].csv_data_file}
    if not images:
        return Join(("no task key names an input section of images, so there are no subjects to look for",))
    absent = {name: places for name in used if (places := _absent(config, name))}
    if absent:
        places = list(dict.fromkeys(place for each in absent.values() for place in each))
        return Join(
            (
                f"subjects were not looked for, because {_some(places)} {'is' if len(places) == 1 else 'are'} not "
                f"there ({_brackets(absent)}); run this where the data are",
            )
        )
    try:
        found = discover(images)
        for name in set(used) - set(images):
            read_value_list(config.values_file(name), name)
    except ConfigError as error:
        return _failed(*map(str, error.mistakes))
    except OSError as error:
        return _failed(f"{error.filename} cannot be read ({error.strerror})")
    return _joined(config, found)


def _surplus(config: Config) -> set[str]:
    """The sections that only keys name which look at their first alone, and which are not that first."""
    answers = [config.sources(key) for key in _FIRST_ONLY]
    needed = {name for named in answers for name in named[:1]}
    needed |= {name for key in ("image", "inferred") for name in config.sources(key)}
    return {name for named in answers for name in named[1:]} - needed


def _joined(config: Config, found: Discovery) -> Join:
    task = config.application and config.task_name
    scans = [name for name in config.sources("image") if name in found.found]
    # What training leaves subjects out for; a classifier has its answer from the first of the two.
    answers = (config.sources("label"), config.sources("modality_label"), config.sources("modalities"))
    if task == "CLASSIFICATION":
        answers = (answers[0] or answers[1],)
    required = [name for named in (*answers, config.sources("sampler")) for name in named[:1] if name in found.found]
    lines = [", ".join(f"[{name}] {counted(count, 'file')}" for name, count in found.found.items())]
    complete, _ = select_subjects(found.subjects, [*scans, *required])
    rule = [*scans, *required] if not config.pimms.keep_incomplete else required
    kept, dropped = select_subjects(found.subjects, rule, scans)
    number = counted(len(complete), "subject has", "subjects have")
    lines.append(f"{number} a file in every one of {_brackets([*scans, *required])}")
    whole = {subject.subject_id for subject in complete}
    partial = [subject.subject_id for subject in kept if subject.subject_id not in whole]
    if partial:
        lines.append(
            f"{len(partial)} lack some of the scans and are kept, which NiftyNet left out: {_some(partial)}; "
            "keep_incomplete = False in [PIMMS] leaves them out too"
        )
    for reason in dict.fromkeys(row.reason for row in dropped):
        ids = [row.subject_id for row in dropped if row.reason == reason]
        lines.append(f"{len(ids)} left out of training, {'it' if len(ids) == 1 else 'each'} {reason}: {_some(ids)}")
    for section, file, reason in found.unmatched:
        lines.append(f"[{section}] {file.name if file else ''} has no subject: {reason}")
    columns = {
        name: [subject.subject_id for subject in found.subjects if name in subject.images] for name in found.found
    }
    lines += similar_ids(columns)
    if not kept:
        return Join(tuple(lines), 0, "no subject has the files that are needed")
    split, obstacle = _split(config, [subject.subject_id for subject in kept])
    return Join((*lines, split) if split else tuple(lines), len(kept), obstacle)


def _failed(*lines: str) -> Join:
    return Join(lines, 0, lines[0])


def _split(config: Config, ids: list[str]) -> tuple[str, str]:
    """What the split on file says, and why it cannot be used."""
    try:
        if not config.split_file.is_file():
            return "", ""
        split = read_split(config.split_file)
        training = phase_subjects(ids, split, "training", f"dataset_split_file {config.split_file}")
    except (ConfigError, OSError) as error:
        return str(error), str(error)
    return f"{len(training)} of {len(ids)} are training subjects of {config.split_file}", ""


def _absent(config: Config, name: str) -> list[str]:
    section = config.inputs[name]
    try:
        listed = section.csv_file
        if section.csv_data_file:
            listed = str(config.values_file(name))
        if listed:
            return [] if Path(listed).is_file() else [listed]
        return [
            str(folder)
            for folder in search_folders(section.path_to_search, config.working_folder)
            if not folder.exists()
        ]
    except OSError as error:
        return [f"{str(error.filename)[:80]}…"]


def _some(words: Iterable[str]) -> str:
    words = list(words)
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _brackets(names: Iterable[str]) -> str:
    return ", ".join(f"[{name}]" for name in names)
