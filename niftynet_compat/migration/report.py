"""What becomes of a NiftyNet INI file here: a verdict for every key, what can run, and what NiftyNet did with it.

Nothing here raises for what a file holds; a file that does not load has its mistakes in the report.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from niftynet_compat.migration.actions import ActionOutcome, Outcome, action_outcomes, not_loaded
from niftynet_compat.migration.header import Dropped, read_header
from niftynet_compat.migration.joining import Join, join_subjects
from niftynet_compat.migration.original import original_outcome
from niftynet_compat.migration.verdicts import KeyStatus, key_statuses, part_of
from niftynet_compat.schema import programs
from niftynet_compat.schema.keys import Verdict, shown
from niftynet_compat.settings.config import Config, inspect_config
from pimms_tf.errors import ConfigError, Mistake


@dataclass(frozen=True)
class Migration:
    """The report on one file."""

    path: Path
    application: str  # net_segment, net_classify, net_multitask, or "" without a task
    network: str  # one sentence
    keys: tuple[KeyStatus, ...]
    mistakes: tuple[Mistake, ...]  # why it does not load
    actions: tuple[ActionOutcome, ...]
    original: tuple[str, ...]  # why NiftyNet 0.6 would stop; () where it would run
    join: Join | None  # None without input sections

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the actions that the file is for; of all of them, if it is for none in particular."""
        meant = [action.outcome for action in self.actions if action.is_meant]
        return max(meant or [action.outcome for action in self.actions])

    @property
    def exit_code(self) -> int:
        """The outcome as a number."""
        return int(self.outcome)


def migration_report(config: Config) -> list[KeyStatus]:
    """Returns the verdict on every key of the file that a configuration was loaded from, and on its overrides.

    Keys come in the order of the file, then what its defaults and the command line mean.

    Raises:
        ConfigError: the file is no longer there.
    """
    overrides = {
        key: shown(getattr(part_of(config, section), key))
        for (section, key), origin in config.origins.items()
        if origin == f"--{key}"
    }
    overrides = {key: "" if text == "unset" else text for key, text in overrides.items()}
    return list(key_statuses(inspect_config(config.path, overrides, config.application, config.action)))


def migrate_file(path: str | Path, application: str | None = None) -> Migration:
    """Returns the report on the INI file at `path`, whatever it holds.

    `application` is a word for -a; without one the task is whichever task section the file has.

    Raises:
        ConfigError: `application` is not a word for an application of this package.
    """
    if application not in (None, "net_run"):
        programs.application_section(application)
    try:
        inspection = inspect_config(path, application=application)
        dropped = read_header(inspection.file.path).dropped
        keys = (*key_statuses(inspection), *map(_dropped, dropped))
        join = join_subjects(inspection.config) if inspection.config.inputs else None
    except ConfigError as error:
        return _unreadable(Path(path), *error.mistakes)
    except OSError as error:
        why = f"{error.filename or path} cannot be looked up ({error.strerror})"
        return _unreadable(Path(path), Mistake(why, path=Path(path)))
    config = inspection.config
    mistakes = tuple(dict.fromkeys(inspection.findings.mistakes))
    return Migration(
        path=config.path,
        application=config.application,
        network=_network_sentence(config.network.name),
        keys=keys,
        mistakes=mistakes,
        actions=action_outcomes(inspection, keys, join),
        original=original_outcome(inspection),
        join=join,
    )


def as_dict(report: Migration) -> dict[str, object]:
    """Returns a report as plain values for JSON, with its outcome and exit code."""
    row = dataclasses.asdict(report)
    row["path"] = str(report.path)
    row["mistakes"] = list(map(str, report.mistakes))
    row["keys"] = [dataclasses.asdict(key) | {"verdict": str(key.verdict)} for key in report.keys]
    row["actions"] = [dataclasses.asdict(action) | {"outcome": str(action.outcome)} for action in report.actions]
    return row | {"outcome": str(report.outcome), "exit_code": report.exit_code}


def _unreadable(path: Path, *mistakes: Mistake) -> Migration:
    return Migration(path, "", "", (), mistakes, not_loaded(), (), None)


def _dropped(row: Dropped) -> KeyStatus:
    """What a cleaned file no longer has, though results would depend on it in the original program."""
    return KeyStatus(
        row.section, row.key, 0, row.text, Verdict.UNSUPPORTED, row.sentence, changes_results=True, verbs=row.verbs
    )


def _network_sentence(name: str) -> str:
    if not name:
        return "no network is named"
    if complaint := programs.network_complaint(name, must_be_built=True):
        return f"{name} {complaint}"
    ours = programs.ours(name)
    return name if name == ours else f"{name}, which is {ours} here"
