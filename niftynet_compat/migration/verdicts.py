"""A verdict for every key of a file, and for the defaults and options that mean another thing than in NiftyNet."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from niftynet_compat.ini import Entry, IniSection
from niftynet_compat.migration.semantics import Difference, differences
from niftynet_compat.schema import programs, sections
from niftynet_compat.schema.keys import HONOURED, KeySpec, Ruling, Verdict, shown
from niftynet_compat.settings.config import Config, Inspection
from niftynet_compat.settings.reading import Findings
from pimms_tf.errors import Mistake, one_line

VERBS = ("train", "inference", "evaluation")


@dataclass(frozen=True)
class KeyStatus:
    """What becomes of one key: where it stands, as written, the verdict and one sentence.

    `line` is 0 for what the file does not say: a value of the command line, or a default that means another thing than
    in NiftyNet. `key` is empty for what concerns a section, and `section` too for what concerns the file. `stops` says
    that the `verbs` cannot run before this is changed, `changes_results` that they give other results than NiftyNet.
    """

    section: str
    key: str
    line: int
    text: str
    verdict: Verdict
    sentence: str
    changes_results: bool = False
    stops: bool = False
    verbs: tuple[str, ...] = VERBS


def part_of(config: Config, section: str) -> object:
    """Returns the values of a system section or of the task's."""
    return config.task if section == _task(config) else getattr(config, section.lower())


def _task(config: Config) -> str:
    """The task's section, "" if the file has none or more than one."""
    return programs.APPLICATIONS.get(config.application, "")


def key_statuses(inspection: Inspection) -> tuple[KeyStatus, ...]:
    """Returns the verdicts in the order of the file, then those on what its defaults and the command line mean."""
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
    rows = [dataclasses.replace(row, verbs=_verbs(row, config, extra)) for row in rows]
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
    difference = extra.get((own, key), Difference("", False))
    if spec is None:
        ruling = Ruling(Verdict.NO_EFFECT)
        said = [*(said or ["has no effect here"]), difference.sentence]
    else:
        ruling = _ruling(spec, own, config)
        general = ruling.sentence or _plain(spec, own)
        is_special = bool(said or difference.sentence) and not ruling.stops
        said = [*said, *([] if is_special else [general]), difference.sentence]
    verdict = Verdict.DIFFERS if ruling.verdict is Verdict.HONOURED and is_special else ruling.verdict
    sentence = "; ".join(filter(None, dict.fromkeys(said)))
    changes = difference.changes_results or ruling.changes_results
    return KeyStatus(section, key, entry.line, text, verdict, sentence, changes, ruling.stops)


def _spec(section: str, key: str, config: Config) -> KeySpec | None:
    is_input = section in config.inputs
    if not is_input and section not in sections.SYSTEM_SECTIONS and section != _task(config):
        return None
    return sections.SPECS[sections.INPUT if is_input else section].get(key)


def _ruling(spec: KeySpec, section: str, config: Config) -> Ruling:
    part = config.inputs[section] if section in config.inputs else part_of(config, section)
    value = getattr(part, spec.name)
    if spec.differs_for and section not in config.sources(spec.differs_for):
        return HONOURED
    if spec.idle and value == spec.default:
        return Ruling(Verdict.HONOURED, f"{shown(value)} is what happens here")
    ruling = spec.ruling_of(value)
    if ruling is spec.ruling and ruling.verdict is Verdict.DIFFERS and value == spec.default:
        return ruling if spec.differs_at_default else HONOURED
    return ruling


def _plain(spec: KeySpec, section: str) -> str:
    origin = "a key of this package" if section == "PIMMS" else "as in the fork" if spec.fork else "as in NiftyNet"
    return f"{origin}: {spec.meaning}"


def _verbs(row: KeyStatus, config: Config, extra: Mapping[tuple[str, str], Difference]) -> tuple[str, ...]:
    """The verbs that a row is about: those that its difference names, else those that read the key."""
    spec = _spec(row.section, sections.ALIASES.get(row.key, row.key), config) if row.key else None
    difference = extra.get((row.section, row.key))
    if difference is not None and difference.changes_results and not row.stops:
        return difference.verbs
    return VERBS if spec is None else tuple(verb for verb in VERBS if verb in spec.used_by.split())


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
        text = shown(getattr(part_of(config, section), key))
        sentence = ruling.sentence or _plain(spec, section)
        rows.append(KeyStatus(section, key, 0, text, ruling.verdict, sentence, ruling.changes_results, ruling.stops))
    return rows
