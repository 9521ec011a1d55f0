"""Migration reports and resolved settings as text for a terminal."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from niftynet_compat import ActionOutcome, Config, KeyStatus, Migration, Outcome, Verdict
from niftynet_compat.ini import read_ini
from niftynet_compat.schema.keys import key_specs, shown
from niftynet_compat.schema.sections import OTHER_TASKS, SYSTEM_SECTIONS, TASK_SECTIONS
from pimms_tf.errors import ConfigError, excerpt


def report_text(report: Migration, everything: bool = True) -> str:
    """Returns the report on one file, the gravest first; without `everything` honoured keys are only counted."""
    lines = [f"{report.path}: {report.outcome}"]
    if report.application:
        lines += [
            f"  task     {report.application}, as its section says; NiftyNet is told by -a",
            f"  network  {report.network}",
        ]
    lines += map(_action_line, report.actions if report.keys else ())
    if not report.keys:  # otherwise they stand at their keys
        lines += _block("does not load", map(str, report.mistakes))
    lines += _block("NiftyNet 0.6 would stop at it", report.original)
    if report.join is not None:
        lines += _block("subjects", report.join.lines)
    rest = list(report.keys)
    for title, chosen in (
        ("stops it", lambda key: key.stops),
        ("changes results", lambda key: key.changes_results),
        ("unsupported", lambda key: key.verdict is Verdict.UNSUPPORTED),
        ("without effect", lambda key: key.verdict is Verdict.NO_EFFECT),
        ("honoured with a difference", lambda key: key.verdict is Verdict.DIFFERS),
        ("honoured", lambda key: True),
    ):
        group = [key for key in rest if chosen(key)]
        rest = [key for key in rest if not chosen(key)]
        if group and (everything or title != "honoured"):
            lines += _block(title, _key_lines(group))
        elif group:
            lines.append(f"  honoured: {len(group)} keys")
    return "\n".join(lines)


def _action_line(action: ActionOutcome) -> str:
    """What one action comes to, in the words and from the value that the first line and the exit code follow."""
    reasons = f": {'; '.join(action.reasons)}" if action.reasons else ""
    aside = "" if action.is_meant else " (the file has no settings for it)"
    return f"  pimms-tf {action.verb:<10}  {action.outcome}{reasons}{aside}"


def summary_text(reports: Sequence[Migration]) -> str:
    """Returns what the files come to together: outcomes, verdicts, and the commonest reasons for change."""
    outcomes = Counter(report.outcome for report in reports)
    verdicts = Counter(str(key.verdict) for report in reports for key in report.keys)
    counted = [f"{outcomes[outcome]} {outcome}" for outcome in Outcome if outcomes[outcome]]
    lines = [f"{len(reports)} {'file' if len(reports) == 1 else 'files'}: {', '.join(counted) or 'none'}"]
    lines += [f"  {verdicts[str(verdict)]:6d} keys {verdict}" for verdict in Verdict if verdicts[str(verdict)]]
    grave = Counter(
        (key.section if key.section.isupper() else "", key.key, key.sentence)
        for report in reports
        for key in report.keys
        if key.stops or key.changes_results
    )
    for (section, key, sentence), count in grave.most_common(10):
        place = f"[{section}] {key}: " if section and key else f"{key}: " if key else ""
        lines.append(f"  {count:6d} × {place}{sentence}")
    return "\n".join(lines)


def config_text(config: Config) -> str:
    """Returns every value of a configuration with where it comes from: `default`, `file:line`, or `--key`."""
    parts = [(name, section) for name, section in config.inputs.items()]
    parts += [(name, getattr(config, name.lower())) for name in ("SYSTEM", "NETWORK", "TRAINING", "INFERENCE")]
    parts += [("EVALUATION", config.evaluation), (config.task_name, config.task), ("PIMMS", config.pimms)]
    lines = [f"{config.path}: {config.application}"]
    for name, section in parts:
        lines.append(f"\n[{name}]")
        for key in key_specs(type(section)):
            setting = f"{key} = {shown(getattr(section, key))}"
            lines.append(f"{setting:<60} {config.origin(name, key)}")
    return "\n".join(lines)


def ini_files(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Returns (file, path below the place that was named) of files, and of every .ini in folders and below them."""
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*.ini") if item.is_file())
            found |= {item: item.relative_to(path) for item in inside if item not in found}
        else:
            found.setdefault(path, Path(path.name))
    return list(found.items())


def is_niftynets(path: Path) -> bool:
    """Returns whether an INI file can be read and has any section that means something to NiftyNet."""
    try:
        file = read_ini(path)
    except ConfigError:
        return False
    return any(section.name in (*SYSTEM_SECTIONS, *TASK_SECTIONS, *OTHER_TASKS) for section in file.sections)


def _block(title: str, texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    return [f"  {title}", *(f"    {text}" for text in texts)] if texts else []


def _key_lines(keys: Sequence[KeyStatus]) -> list[str]:
    """One line per key, but one for all keys of one name, value and sentence, as input sections have them."""
    alike: dict[tuple[str, str, str], list[KeyStatus]] = {}
    for key in keys:
        alike.setdefault((key.key, key.text, key.sentence), []).append(key)
    lines = []
    for (name, text, sentence), group in alike.items():
        numbers = [str(key.line) for key in group if key.line]
        line = f"line{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: " if numbers else ""
        place = " ".join(f"[{key.section}]" for key in group if key.section)
        setting = f"{name} = {excerpt(text)}".rstrip() if numbers and name else name
        lines.append(
            " ".join(part for part in (f"{line}{place}".rstrip(), setting, "—" if setting else "", sentence) if part)
        )
    return lines
