"""What becomes of a NiftyNet INI file here: a verdict for every key, what cannot run, and what NiftyNet did with it.

Nothing here raises for what a file holds; a file that does not load has its mistakes in the report.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from niftynet_compat.ini import Entry, IniSection
from niftynet_compat.migration.joining import Join, join_subjects
from niftynet_compat.migration.original import has_split, original_outcome
from niftynet_compat.migration.semantics import Difference, differences
from niftynet_compat.schema import programs, sections
from niftynet_compat.schema.keys import HONOURED, KeySpec, Ruling, Verdict, shown
from niftynet_compat.settings import requirements
from niftynet_compat.settings.config import Config, Inspection, inspect_config
from niftynet_compat.settings.reading import Findings
from pimms_tf.errors import ConfigError, Mistake, one_line

_VERBS = ("train", "inference", "evaluation")


@dataclass(frozen=True)
class KeyStatus:
    """What becomes of one key: where it stands, as written, the verdict and one sentence.

    `line` is 0 for what the file does not say: a value of the command line, or a default that means another thing than
    in NiftyNet. `key` is empty for what concerns a section, and `section` too for what concerns the file. `stops` says
    that the file cannot be used before this is changed.
    """

    section: str
    key: str
    line: int
    text: str
    verdict: Verdict
    sentence: str
    changes_results: bool = False
    stops: bool = False


@dataclass(frozen=True)
class Migration:
    """The report on one file."""

    path: Path
    application: str  # net_segment, net_classify, net_multitask, or "" without a task
    network: str  # one sentence
    keys: tuple[KeyStatus, ...]
    mistakes: tuple[Mistake, ...]  # why it does not load
    blocked: tuple[tuple[str, str], ...]  # verbs that cannot run as the file stands, and why
    original: tuple[str, ...]  # why NiftyNet 0.6 would stop; () where it would run
    join: Join | None  # None without input sections

    @property
    def exit_code(self) -> int:
        """0 if the file means here what it meant, 1 if results change, 2 if nothing can run."""
        verbs = {verb for verb, _ in self.blocked}
        useless = {"train", "inference"} <= verbs
        if self.mistakes or useless or any(key.stops for key in self.keys) or (self.join and self.join.fails):
            return 2
        return 1 if any(key.changes_results for key in self.keys) else 0


def migration_report(config: Config) -> list[KeyStatus]:
    """Returns the verdict on every key of the file that a configuration was loaded from, and on its overrides.

    Keys come in the order of the file, then what its defaults and the command line mean.

    Raises:
        ConfigError: the file is no longer there.
    """
    overrides = {
        key: shown(getattr(_part(config, section), key))
        for (section, key), origin in config.origins.items()
        if origin == f"--{key}"
    }
    overrides = {key: "" if text == "unset" else text for key, text in overrides.items()}
    return list(_statuses(inspect_config(config.path, overrides, config.application, config.action)))


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
        keys = _statuses(inspection)
        join = join_subjects(inspection.config) if inspection.config.inputs else None
    except ConfigError as error:
        return _unreadable(Path(path), *error.mistakes)
    except OSError as error:
        why = f"{error.filename or path} cannot be looked up ({error.strerror})"
        return _unreadable(Path(path), Mistake(why, path=Path(path)))
    config = inspection.config
    return Migration(
        path=config.path,
        application=config.application,
        network=_network_sentence(config.network.name),
        keys=keys,
        mistakes=tuple(dict.fromkeys(inspection.findings.mistakes)),
        blocked=_blocked(inspection),
        original=original_outcome(inspection),
        join=join,
    )


def _unreadable(path: Path, *mistakes: Mistake) -> Migration:
    return Migration(path, "", "", (), mistakes, (), (), None)


def _part(config: Config, section: str) -> object:
    return config.task if section == _task(config) else getattr(config, section.lower())


def _task(config: Config) -> str:
    """The task's section, "" if the file has none or more than one."""
    return programs.APPLICATIONS.get(config.application, "")


def _statuses(inspection: Inspection) -> tuple[KeyStatus, ...]:
    file, findings, config = inspection
    remarks: dict[tuple[str, str], list[str]] = {}
    for remark in findings.remarks:
        remarks.setdefault((remark.section, remark.key), []).append(remark.text)
    extra = differences(inspection)
    rows = [_mistaken(mistake) for mistake in file.mistakes]
    rows += [_mistaken(mistake) for mistake in findings.mistakes if not mistake.line and not mistake.key]
    inherited = _inherited(file.sections, findings)
    for section in file.sections:
        for text in remarks.get((section.name, ""), ()):
            rows.append(KeyStatus(section.name, "", section.line, "", Verdict.NO_EFFECT, text))
        for key, entry in section.entries.items():
            if not entry.inherited:
                rows.append(_status(section.name, key, entry, inspection, remarks, extra))
    rows += [
        _status("DEFAULT", key, entry, inspection, remarks, extra, home) for key, (entry, home) in inherited.items()
    ]
    rows += _overridden(config, findings)
    present = {(row.section, row.key) for row in rows}
    rows += [
        KeyStatus(section, key, 0, "", Verdict.DIFFERS, each.sentence, each.changes_results)
        for (section, key), each in extra.items()
        if (section, key) not in present
    ]
    order = {section.name: place for place, section in enumerate(file.sections)}
    return tuple(sorted(rows, key=lambda row: (row.line == 0, row.line, order.get(row.section, -1))))


def _status(
    section: str,
    key: str,
    entry: Entry,
    inspection: Inspection,
    remarks: Mapping[tuple[str, str], list[str]],
    extra: Mapping[tuple[str, str], Difference],
    home: str = "",
) -> KeyStatus:
    findings, config = inspection.findings, inspection.config
    text = one_line(entry.text)
    own, name = home or section, sections.ALIASES.get(key, key)
    # A line holds one key, of which several sections may complain if it stands in [DEFAULT].
    mistakes = [mistake.text for mistake in findings.mistakes if mistake.line == entry.line]
    if mistakes:
        sentence = "; ".join(dict.fromkeys(mistakes))
        return KeyStatus(section, key, entry.line, text, Verdict.UNSUPPORTED, sentence, stops=True)
    spec = _spec(own, name, config)
    said = [*remarks.get((section, key), ()), *(remarks.get((own, name), ()) if (own, name) != (section, key) else ())]
    if spec is None:
        sentence = "; ".join(said) or "has no effect here"
        return KeyStatus(section, key, entry.line, text, Verdict.NO_EFFECT, *_with(sentence, extra.get((section, key))))
    ruling = _ruling(spec, own, config)
    general = ruling.sentence or _plain(spec, own)
    replaced = bool(said or (own, key) in extra) and not ruling.stops
    sentence = "; ".join(dict.fromkeys([*said, *([] if replaced else [general])]))
    sentence, changes = _with(sentence, extra.get((own, key)))
    verdict = ruling.verdict
    if verdict is Verdict.HONOURED and (said or (own, key) in extra):
        verdict = Verdict.DIFFERS
    return KeyStatus(
        section, key, entry.line, text, verdict, sentence, changes or ruling.changes_results, stops=ruling.stops
    )


def _with(sentence: str, difference: Difference | None) -> tuple[str, bool]:
    if difference is None:
        return sentence, False
    return "; ".join(filter(None, (sentence, difference.sentence))), difference.changes_results


def _spec(section: str, key: str, config: Config) -> KeySpec | None:
    is_input = section in config.inputs
    if not is_input and section not in sections.SYSTEM_SECTIONS and section != _task(config):
        return None
    return sections.SPECS[sections.INPUT if is_input else section].get(key)


def _ruling(spec: KeySpec, section: str, config: Config) -> Ruling:
    part = config.inputs[section] if section in config.inputs else _part(config, section)
    value = getattr(part, spec.name)
    if spec.idle and value == spec.default:
        return Ruling(Verdict.HONOURED, f"{shown(value)} is what happens here")
    ruling = spec.ruling_of(value)
    if ruling is spec.ruling and ruling.verdict is Verdict.DIFFERS and value == spec.default:
        return ruling if spec.differs_at_default else HONOURED
    return ruling


def _plain(spec: KeySpec, section: str) -> str:
    return f"a key of this package: {spec.meaning}" if section == "PIMMS" else f"as in NiftyNet: {spec.meaning}"


def _mistaken(mistake: Mistake) -> KeyStatus:
    """The status of what is no key at all, or has no value that can be read."""
    text = one_line(mistake.value)
    return KeyStatus(mistake.section, mistake.key, mistake.line, text, Verdict.UNSUPPORTED, mistake.text, stops=True)


def _inherited(found: tuple[IniSection, ...], findings: Findings) -> dict[str, tuple[Entry, str]]:
    """The keys of [DEFAULT], each with a section that takes it, "" if none does."""
    rows: dict[str, tuple[Entry, str]] = {}
    for section in found:
        for key, entry in section.entries.items():
            if entry.inherited and (key not in rows or (section.name, key) in findings.origins):
                rows[key] = (entry, section.name if (section.name, key) in findings.origins else "")
    return rows


def _overridden(config: Config, findings: Findings) -> list[KeyStatus]:
    rows = []
    for (section, key), origin in findings.origins.items():
        if origin != f"--{key}":
            continue
        spec = _spec(section, key, config)
        ruling = _ruling(spec, section, config)
        text = shown(getattr(_part(config, section), key))
        sentence = ruling.sentence or _plain(spec, section)
        rows.append(KeyStatus(section, key, 0, text, ruling.verdict, sentence, ruling.changes_results, ruling.stops))
    return rows


def _network_sentence(name: str) -> str:
    if not name:
        return "no network is named"
    if complaint := programs.network_complaint(name):
        return f"{name} {complaint}"
    network = programs.NETWORKS[name]
    if network.ours is None:
        return f"{name} is not available: {network.reason}; choose one of {', '.join(programs.OUR_NETWORKS)}"
    return name if name == network.ours else f"{name}, which is {network.ours} here"


def _blocked(inspection: Inspection) -> tuple[tuple[str, str], ...]:
    """The verbs for which the file lacks something, with the first reason."""
    file, _, config = inspection
    if not config.application:
        return tuple((verb, "the file has no task section") for verb in _VERBS)
    found = {section.name: section for section in file.sections}
    parts = {name.lower(): getattr(config, name.lower()) for name in sections.SYSTEM_SECTIONS}
    rows = []
    for verb in _VERBS:
        known = inspection.findings.mistakes
        findings = Findings(file.path, list(known), lines=inspection.findings.lines)
        action = programs.canonical_action(verb)
        requirements.check_needs(action, config.task_name, config.task, parts, found, findings)
        reasons = [_reason(mistake) for mistake in findings.mistakes[len(known) :]]
        if verb != "evaluation" and not reasons and (lack := _window_lack(config)):
            reasons.append(lack)
        if verb == "train" and not reasons and (lack := _validation_lack(config)):
            reasons.append(lack)
        if verb == "train" and not reasons and (lack := _rank_lack(config)):
            reasons.append(lack)
        if verb == "evaluation" and config.task_name == "CLASSIFICATION":
            reasons.append("evaluation scores segmentations, and a classifier makes none")
        rows += [(verb, reasons[0])] if reasons else []
    return tuple(rows)


def _reason(mistake: Mistake) -> str:
    """A mistake as the reason why a verb cannot run, in a report that has named the file."""
    return str(dataclasses.replace(mistake, path=None) if not mistake.key else mistake)


def _window_lack(config: Config) -> str:
    try:
        window = config.common("image", "spatial_window_size")
    except ConfigError as error:
        return _reason(error.mistakes[0])
    except KeyError:  # a section that is not there, which a mistake says
        return ""
    if window or config.inference.spatial_window_size:
        return ""
    return "spatial_window_size is set neither in the input sections of image nor in [INFERENCE]"


def _rank_lack(config: Config) -> str:
    try:
        window = config.common("image", "spatial_window_size") or config.inference.spatial_window_size
    except (ConfigError, KeyError):
        return ""
    resolved = programs.NETWORKS.get(config.network.name)
    if not window or resolved is None or resolved.ours is None:
        return ""
    return requirements.rank_complaint(window, config.pimms.spatial_rank) or ""


def _validation_lack(config: Config) -> str:
    training = config.training
    fraction = training.exclude_fraction_for_validation
    if training.validation_every_n <= 0 or fraction > 0 or has_split(config):
        return ""
    return (
        f"validation_every_n = {training.validation_every_n} needs validation subjects, but "
        "exclude_fraction_for_validation is 0 and there is no split file "
        f"{config.system.dataset_split_file}; NiftyNet stops there too"
    )


def as_dict(report: Migration) -> dict[str, object]:
    """Returns a report as plain values for JSON, with its exit code."""
    row = dataclasses.asdict(report)
    row["path"] = str(report.path)
    row["mistakes"] = list(map(str, report.mistakes))
    row["keys"] = [dataclasses.asdict(key) | {"verdict": str(key.verdict)} for key in report.keys]
    row["blocked"] = dict(report.blocked)
    row["exit_code"] = report.exit_code
    return row
