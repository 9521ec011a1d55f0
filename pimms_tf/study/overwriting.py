"""What a run would write is nothing that its configuration reads: this is seen before anything is computed."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from niftynet_compat import Config, ConfigError, InputSection
from niftynet_compat.paths import absolute, expanded, first_file, search_folders
from niftynet_compat.subjects.folders import matching
from niftynet_compat.subjects.lists import read_file_list

_KEYS = ("image", "label", "weight", "sampler", "modalities", "modality_label")


class InputFiles:
    """All files that the sections of a configuration find or list, used by this run or not, and what lists them.

    A section that only `inferred` names holds results, and counts as read by evaluations alone.
    """

    def __init__(self, config: Config) -> None:
        self._owners: dict[object, str] = {}
        results = set(config.sources("inferred")) if config.action != "evaluation" else set()
        results -= {name for key in _KEYS for name in config.sources(key)}
        for name, section in config.inputs.items():
            if name not in results:
                for file in _files_of(config, section):
                    self._add(file, f"is {file} of section [{name}]")
        self._add(config.path, "is the configuration itself")
        self._add(config.split_file, "is dataset_split_file")

    def _add(self, file: Path, owner: str) -> None:
        for identity in _identities(file):
            self._owners.setdefault(identity, owner)

    def owner_of(self, path: Path) -> str:
        """Returns what a path is, as the rest of a sentence; "" for none of these files, by any of its names."""
        return next((self._owners[each] for each in _identities(path) if each in self._owners), "")


def refuse_overwriting(config: Config, written: Iterable[Path]) -> None:
    """Ends a run that would write over what its configuration reads.

    Raises:
        ConfigError: there are such paths among those to be written; the first and their number are named.
    """
    inputs = InputFiles(config)
    owned = [(path, owner) for path in written if (owner := inputs.owner_of(path))]
    if owned:
        path, owner = owned[0]
        more = f", and {len(owned) - 1} more of the files to be written are inputs" if len(owned) > 1 else ""
        why = f"{path} would be written over, but {owner}{more}; give another folder or postfix for results"
        raise ConfigError(why, path=config.path)


def _files_of(config: Config, section: InputSection) -> Iterator[Path]:
    """The files of a section as far as they can be known; what is wrong with the rest is said when they are read."""
    if section.csv_data_file:
        given = expanded(section.csv_data_file)
        found = first_file([config.working_folder / given, config.path.parent / given])
        yield from [] if found is None else [found]
        return
    if section.csv_file:
        yield Path(section.csv_file)
        try:
            yield from read_file_list(section.csv_file, must_exist=False).values()
        except ConfigError:
            return
        return
    for folder in search_folders(section.path_to_search, config.working_folder):
        try:
            yield from matching(folder, section)
        except OSError:
            continue


def _identities(path: Path) -> list[object]:
    """What tells that two paths are of one file: its name in its real folder, where links lead, its number on disk."""
    path = absolute(path)
    named = [os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(path)]
    try:
        found = os.stat(path)
    except OSError:
        return named
    return [*named, (found.st_dev, found.st_ino)]
