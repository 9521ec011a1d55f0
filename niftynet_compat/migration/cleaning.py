"""A NiftyNet INI file without what has no effect here: it loads without remark and means the same.

Comments and order are kept where single lines can be edited; otherwise the file is written anew. Either way it is
loaded and compared before it takes its place.
"""

import dataclasses
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from niftynet_compat.ini import Entry, IniSection
from niftynet_compat.migration.header import Dropped, read_header, with_header, without_header
from niftynet_compat.migration.report import Migration, migrate_file
from niftynet_compat.migration.verdicts import KeyStatus, key_statuses
from niftynet_compat.paths import absolute
from niftynet_compat.schema import programs, sections
from niftynet_compat.schema.keys import KeySpec, Value, Verdict
from niftynet_compat.settings.config import Config, Inspection, inspect_config, load_config
from niftynet_compat.settings.writing import absolute_paths, ini_text, ini_value
from pimms_tf.errors import ConfigError, Mistake, one_line
from pimms_tf.files import write_text


def cleaned_path(path: Path, folder: Path | None = None) -> Path:
    """Returns where the cleaned file goes: the same name in `folder`, or `<name>_migrated.ini` beside the original."""
    target = absolute(folder / path.name) if folder is not None else path
    return target if target != absolute(path) else path.with_name(f"{path.stem}_migrated.ini")


def is_cleaned(path: str | Path) -> bool:
    """Returns whether a file is the result of `write_cleaned`, edited since or not."""
    return bool(read_header(path).original)


def write_cleaned(path: str | Path, target: Path, application: str | None = None) -> Path:
    """Returns `target` after the cleaned text of the file at `path` was written there.

    `load_config` of it gives no remark and the values of the original, but for those that have no effect;
    `migrate_file` of it tells of the same outcome, action by action. What was dropped or changed stands there in
    comments, and what differs from the original program in its first lines. A file in the way is replaced only if this
    function wrote it and it was not edited since.

    Raises:
        ConfigError: the original has mistakes or asks for what is not built, something else lies at `target`, the
            folder cannot be written, or no text means exactly the same.
    """
    report = migrate_file(path, application)
    if report.mistakes:
        number = len(report.mistakes)
        raise ConfigError(f"a file with mistakes is not rewritten; correct {number} of them first", path=path)
    stopping = [key for key in report.keys if key.stops]
    if stopping:
        worst = stopping[0]
        why = f"cannot be rewritten: {worst.sentence}"
        raise ConfigError(Mistake(why, worst.section, worst.key, worst.text, worst.line, Path(path)))
    inspection = inspect_config(path, application=application)
    target = absolute(target)
    if target == absolute(report.path):
        raise ConfigError("is the original, which is never written over; give another folder", path=target)
    problem = ""
    try:
        _check_way(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        for body in (_edited(inspection, report, target), _anew(inspection, report)):
            if body is None:
                continue
            text, problem = _tried(body, inspection, report, target)
            if not problem:
                return write_text(target, text)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror}); give another folder") from error
    raise ConfigError(f"{path}: no cleaned file means the same, because {problem}; change that by hand")


def _check_way(target: Path) -> None:
    if not target.exists():
        return
    header = read_header(target)
    if not header.original:
        raise ConfigError(
            "is there already and was not written by migrate; move it, or give another folder", path=target
        )
    if not header.is_as_written:
        raise ConfigError(
            "was edited since migrate wrote it, and is not written over; move it, or give another folder", path=target
        )


def effective(config: Config) -> Config:
    """Returns the configuration with all that has no effect back at its default, and networks by our names."""
    parts = {name.lower(): _reset(name, getattr(config, name.lower())) for name in sections.SYSTEM_SECTIONS}
    if not config.pimms.early_stopping:
        parts["training"] = dataclasses.replace(parts["training"], patience=sections.TrainingSection().patience)
    ours = programs.NETWORKS[config.network.name].ours if config.network.name else ""
    parts["network"] = dataclasses.replace(parts["network"], name=ours or config.network.name)
    task = _reset(config.task_name, config.task)
    firsts = {
        key: getattr(task, key)[:1] for key in ("label", "sampler", "inferred", "modalities") if hasattr(task, key)
    }
    task = dataclasses.replace(task, **firsts)
    inputs = {
        name: _reset(sections.INPUT, dataclasses.replace(section, path_to_search=""))
        if section.csv_file
        else _reset(sections.INPUT, section)
        for name, section in config.inputs.items()
        if name not in _strays(config)
    }
    return dataclasses.replace(config, task=task, inputs=inputs, **parts)


def _strays(config: Config) -> set[str]:
    """Input sections that are another task's, or misspelt, and that nothing refers to."""
    remarked = {remark.section for remark in config.remarks if not remark.key}
    return {name for name, section in config.inputs.items() if name in remarked and not section.referenced}


def _reset(name: str, part: object) -> object:
    values = {}
    for key, spec in sections.SPECS[name].items():
        value = getattr(part, key)
        ruling = spec.ruling_of(value)
        if ruling.verdict in (Verdict.NO_EFFECT, Verdict.UNSUPPORTED) and not ruling.stops:
            values[key] = spec.default
    return dataclasses.replace(part, **values)


def _tried(body: str, inspection: Inspection, report: Migration, target: Path) -> tuple[str, str]:
    """The text of a cleaned file with its header, and why it does not do in place of the original, "" if it does."""
    with tempfile.NamedTemporaryFile("w", suffix=".ini", prefix=".", dir=target.parent, encoding="utf-8") as file:
        file.write(body)
        file.flush()
        try:
            loaded = load_config(file.name)
        except ConfigError as error:
            return "", f"it would not load: {dataclasses.replace(error.mistakes[0], path=target)}"
        remaining = key_statuses(inspect_config(file.name))
    if loaded.remarks:
        return "", f"a remark would remain: {loaded.remarks[0]}"
    differing = _difference(effective(inspection.config), loaded)
    return _with_differences(body, report, remaining), f"{differing} would change" if differing else ""


def _with_differences(body: str, report: Migration, remaining: Sequence[KeyStatus]) -> str:
    """The text with a header that tells of every difference: those that stay, and those that the text hides."""
    told = {(row.section, row.key): row.verbs for row in remaining if row.changes_results}
    lost = [
        Dropped(row.section, row.key, row.text, row.sentence, row.verbs)
        for row in report.keys
        if row.changes_results and not set(row.verbs) <= set(told.get((row.section, row.key), ()))
    ]
    notes = [f"differs: [{row.section}] {row.key}: {row.sentence}" for row in remaining if row.changes_results]
    if notes or lost:
        notes.insert(0, "Results differ from those of the original program by what is listed here.")
    return with_header(body, report.path.name, notes, lost)


def _difference(before: Config, after: Config) -> str:
    before, after = absolute_paths(before), absolute_paths(after)
    if (before.application, list(before.inputs)) != (after.application, list(after.inputs)):
        return "the sections"
    pairs = [(name, getattr(before, name.lower()), getattr(after, name.lower())) for name in sections.SYSTEM_SECTIONS]
    pairs += [(before.task_name, before.task, after.task)]
    pairs += [(name, section, after.inputs[name]) for name, section in before.inputs.items()]
    for name, old, new in pairs:
        for key in sections.key_specs(type(old)):
            if not _same(getattr(old, key), getattr(new, key)):
                return f"{key} of [{name}]"
    return ""


def _same(old: Value, new: Value) -> bool:
    return old == new or (old != old and new != new)  # nan


def _anew(inspection: Inspection, report: Migration) -> str:
    body = ini_text(effective(inspection.config)).partition("\n")[2]
    dropped = [
        f"# dropped: {key.key} = {key.text} in line {key.line} of [{key.section}]: {key.sentence}\n"
        for key in report.keys
        if key.line and key.verdict in (Verdict.NO_EFFECT, Verdict.UNSUPPORTED)
    ]
    note = "# Its lines could not be edited one by one, so its comments are not here.\n"
    return f"{note}{''.join(dropped)}\n{body.lstrip()}"


def _edited(inspection: Inspection, report: Migration, target: Path) -> str | None:
    """The text with single lines dropped or changed; None if lines depend on each other."""
    text = report.path.read_text(encoding="utf-8-sig")
    if re.search(r"^\s*\[\s*DEFAULT\s*\]|%\(", text, re.MULTILINE):
        return None
    lines: list[str | None] = list(re.split(r"\r\n|\r|\n", text))
    config = inspection.config
    after = effective(config)
    sentences = {(key.section, key.key): key.sentence for key in report.keys}
    remarked = {(remark.section, remark.key) for remark in config.remarks}
    moved = target.parent != report.path.parent
    for section in inspection.file.sections:
        if section.name in _strays(config):
            _drop_section(lines, section, inspection, sentences.get((section.name, ""), ""))
            continue
        for key, entry in section.entries.items():
            place = (section.name, key)
            new = _new_line(place, entry, config, after, place in remarked, moved)
            if new == "":
                _change(lines, entry, [f"# dropped: {key} = {one_line(entry.text)} ({sentences.get(place, '')})"])
            elif new is not None:
                _change(lines, entry, [f"# was: {key} = {one_line(entry.text)}", new])
    unsaid = [place for place, origin in config.origins.items() if origin == "-a"]
    unsaid += [("SYSTEM", "model_dir")] if moved and ("SYSTEM", "model_dir") not in config.origins else []
    for name, key in unsaid:
        _add(lines, inspection, name, f"{key} = {ini_value(_value(config, name, key))}", key)
    return without_header("\n".join(line for line in lines if line is not None)).rstrip() + "\n"


def _new_line(
    place: tuple[str, str], entry: Entry, config: Config, after: Config, remarked: bool, moved: bool
) -> str | None:
    """The line that replaces an entry; "" to drop it, None to keep it."""
    section, key = place
    name = sections.ALIASES.get(key, key)
    spec = _spec(section, name, config)
    if spec is None:
        return ""
    now, then = _value(config, section, name), _value(after, section, name)
    if moved and _beside_ini(section, name) and now:
        then = {"segmenter": str(config.segmenter_dir), "classifier": str(config.classifier_dir)}.get(name, then)
        return f"{name} = {ini_value(then)}"
    if moved and place == ("SYSTEM", "model_dir") and place not in config.origins:
        return f"model_dir = {ini_value(now)}"
    if then != now or remarked:
        unset = entry.text.lower() in ("", "none") and not spec.keeps_empty
        if then == spec.default and (then != now or unset):
            return ""
        return f"{name} = {ini_value(_written(spec, then, entry))}"
    return f"{name} = {ini_value(_written(spec, now, entry))}" if name != key else None


def _written(spec: KeySpec, value: Value, entry: Entry) -> Value:
    """The value to write: as in the file where that is all the same, because csv_file is read as an absolute path."""
    return entry.text if spec.name == "csv_file" else value


def _beside_ini(section: str, key: str) -> bool:
    return key == "csv_file" or (section == "PIMMS" and key in ("segmenter", "classifier"))


def _spec(section: str, key: str, config: Config) -> KeySpec | None:
    if section in config.inputs:
        return sections.SPECS[sections.INPUT].get(key)
    known = section in sections.SYSTEM_SECTIONS or section == config.task_name
    return sections.SPECS[section].get(key) if known else None


def _value(config: Config, section: str, key: str) -> Value:
    if section in config.inputs:
        return getattr(config.inputs[section], key)
    return getattr(config.task if section == config.task_name else getattr(config, section.lower()), key)


def _change(lines: list[str | None], entry: Entry, new: list[str]) -> None:
    indent = re.match(r"\s*", lines[entry.line - 1])[0]
    lines[entry.line - 1] = "\n".join(indent + line for line in new)
    for number, _ in entry.continuations:
        lines[number - 1] = None


def _add(lines: list[str | None], inspection: Inspection, name: str, line: str, key: str) -> None:
    """Puts a line below the header of a section that lacks the key; a section that is not there is put at the end."""
    section = next((each for each in inspection.file.sections if each.name == name), None)
    if section is None:
        lines += ["", f"[{name}]", line]
    elif key not in section.entries:
        lines[section.line - 1] = f"{lines[section.line - 1]}\n{line}"


def _drop_section(lines: list[str | None], section: IniSection, inspection: Inspection, why: str) -> None:
    later = [other.line for other in inspection.file.sections if other.line > section.line]
    end = min(later, default=len(lines) + 1)
    for number in range(section.line, end):
        line = lines[number - 1]
        if line and line.strip() and not line.lstrip().startswith(("#", ";")):
            lines[number - 1] = f"# {line}"
    lines[section.line - 1] = f"# dropped: {why}\n{lines[section.line - 1]}"
