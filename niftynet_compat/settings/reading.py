"""From the text of a section to its checked values, with every mistake and every remark collected on the way."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from niftynet_compat import ini
from niftynet_compat.ini import Entry, IniSection
from niftynet_compat.schema import sections
from niftynet_compat.schema.choices import FOREIGN
from niftynet_compat.schema.sections import INPUT, KNOWN_KEYS, SPECS, InputSection, KeySpec, Value, Verdict, shown
from niftynet_compat.settings.command_line import take_options
from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError, Mistake, Remark, UsageError

_EXAMPLES = {
    ini.to_int: "give a whole number such as 4",
    ini.to_float: "give a number such as 0.01",
    ini.to_bool: "write True or False",
    ini.to_strs: "write names separated by commas, such as T1, T2",
    ini.to_ints: "write whole numbers separated by commas, such as 1, 2, 3",
    ini.to_floats: "write numbers separated by commas, such as 0.5, 1.0",
    ini.to_window: "write voxels separated by commas, such as 100, 100, 1",
    ini.to_spatial3: "write voxels separated by commas, such as 5, 0, 5",
}
_REMARKABLE = {
    Verdict.NO_EFFECT: "is accepted and has no effect",
    Verdict.UNSUPPORTED: "is not supported, which can change results",
}
_TAKES_NONE = ("loader", "axcodes", "pixdim", "csv_file")


@dataclass
class Findings:
    """What reading one file brought up: mistakes, remarks, and where each value came from."""

    path: Path
    mistakes: list[Mistake] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    lines: dict[tuple[str, str], int] = field(default_factory=dict)

    def mistake(self, text: str) -> None:
        """Adds a mistake of the whole file, such as what it lacks."""
        self.mistakes.append(Mistake(text, path=self.path))

    def mistake_at(self, section: str, key: str, value: str, text: str, *, is_usage: bool = False) -> None:
        """Adds a mistake in one value, which the file or the command line gave; usage if it cannot even be read."""
        line = self.lines.get((section, key), 0)
        path = self.path if line else None
        self.mistakes.append(Mistake(text, section, key, value, line, path, is_usage=is_usage))

    def has_mistake(self, section: str, key: str) -> bool:
        return any((mistake.section, mistake.key) == (section, key) for mistake in self.mistakes)

    def remark(self, section: str, key: str, text: str) -> None:
        self.remarks.append(Remark(section, key, self.lines.get((section, key), 0), text))

    def raise_if_any(self) -> None:
        if self.mistakes:
            raise (UsageError if all(mistake.is_usage for mistake in self.mistakes) else ConfigError)(*self.mistakes)


class SectionReader:
    """Turns the sections of one file, and the options of one command line, into dataclasses.

    Call `section` and `input_section` for every section, then `finish` once.
    """

    def __init__(
        self, findings: Findings, found: Mapping[str, IniSection], task: str | None, words: Sequence[str]
    ) -> None:
        self.findings = findings
        self.found = found
        self.task = task
        self.misplaced: list[tuple[str, str]] = []
        self.inherited_used: set[str] = set()
        self.given = self._assign(words)

    def is_input(self, name: str) -> bool:
        """Returns whether a section is an input source: anything but system sections and the task's own."""
        return name not in sections.SYSTEM_SECTIONS and name != self.task

    def section(self, name: str) -> object:
        """Returns the values of a system or task section; one that the file lacks has all defaults."""
        entries = self.found[name].entries if name in self.found else {}
        values = self._values(name, SPECS[name], entries, self.given.get(name, {}))
        return {**sections.SYSTEM_SECTIONS, **sections.TASK_SECTIONS}[name](**values)

    def input_section(self, name: str) -> InputSection:
        """Returns the values of an input section of the file."""
        self._remark_on_name(name)
        entries = dict(self.found[name].entries)
        for alias, key in sections.ALIASES.items():
            if alias not in entries:
                continue
            if key in entries:
                self.findings.lines[name, alias] = entries[alias].line
                self.findings.mistake_at(name, alias, entries[alias].text, f"means the same as {key}; keep one of them")
            entries[key] = entries.pop(alias)
        values = InputSection(**self._values(name, SPECS[INPUT], entries, {}))
        if values.csv_file and values.path_to_search:
            self.findings.remark(name, "path_to_search", "ignored, because csv_file lists the files")
        return values

    def finish(self, task_part: object, parts: Mapping[str, object], inputs: Mapping[str, InputSection]) -> None:
        """Adds remarks on the keys that stand where they have no effect; needs the values of all sections."""
        for name, key in self.misplaced:
            entry = self.found[name].entries[key]
            if entry.inherited and key in self.inherited_used:
                continue
            place = "DEFAULT" if entry.inherited else name
            self.findings.lines[place, key] = entry.line
            home = sections.OTHER_KEYS.get(key) == name
            reason = "no network here has it" if home else self._owner(key, task_part, parts, inputs)
            self.findings.remark(place, key, f"has no effect here: {reason}")

    def _assign(self, words: Sequence[str]) -> dict[str, dict[str, str]]:
        # Sections take options in the order of the file; those a run can do without come last if the file lacks them.
        order = [name for name in self.found if not self.is_input(name)]
        order += [name for name in ("SYSTEM", "PIMMS") if name not in order]
        keys = {
            name: {key: spec.parse is ini.to_bool for key, spec in SPECS[name].items() if spec.command_line}
            for name in order
        }
        try:
            given, rest = take_options(words, list(keys.items()))
        except UsageError as error:
            self.findings.mistakes += error.mistakes
            return {}
        for section, texts in given.items():
            for key in [key for key, text in texts.items() if {"\n", "\r"} & set(text)]:
                why = "has a line break; write the value on one line"
                self.findings.mistake_at(section, key, texts.pop(key), why, is_usage=True)
        for key, text in rest:
            if not key:
                why = f"{text!r} on the command line is neither an option nor the value of one"
                self.findings.mistakes.append(Mistake(why, is_usage=True))
                continue
            owners = [name for name in SPECS if key in SPECS[name]]
            if key in SPECS[INPUT] or key in sections.ALIASES:
                reason = "belongs to input sections, which the command line cannot change; edit the file"
            elif owners:
                reason = f"belongs to [{owners[0]}], which the file does not have; add that section to it"
            elif key in sections.OTHER_KEYS:
                reason = f"belongs to [{sections.OTHER_KEYS[key]}] and has no effect on this task; leave it out"
            else:
                known = [name for section in order for name in SPECS[section]]
                reason = f"is not an option; {self._suggestion(key, known, '--')}"
            self.findings.mistakes.append(Mistake(reason, key=key, value=text))
        return given

    def _values(
        self, name: str, specs: Mapping[str, KeySpec], entries: Mapping[str, Entry], given: Mapping[str, str]
    ) -> dict[str, Value]:
        values: dict[str, Value] = {}
        findings = self.findings
        for key, entry in entries.items():
            findings.lines[name, key] = entry.line
            if key not in specs:
                self._foreign(name, key, entry, specs)
                continue
            if entry.inherited:
                self.inherited_used.add(key)
            self._remark_on_continuations(name, key, entry)
            if key not in given:
                findings.origins[name, key] = f"{findings.path.name}:{entry.line}"
                values[key] = self._value(name, specs[key], entry.text)
        for key, text in given.items():
            findings.origins[name, key] = f"--{key}"
            findings.lines[name, key] = 0
            values[key] = self._value(name, specs[key], text)
        return values

    def _value(self, name: str, spec: KeySpec, text: str) -> Value:
        text = text.strip()
        findings = self.findings
        blank = text in ("", "()", "{}") if spec.parse in (ini.to_window, ini.to_spatial3) else text == ""
        if blank and not spec.keeps_empty:
            if spec.default not in ("", (), None):
                findings.remark(name, spec.name, f"is empty and counts as unset, so {shown(spec.default)}")
            findings.origins.pop((name, spec.name), None)
            return spec.default
        # Some choices are called `none`; for those only the spelling of Python's None means unset.
        none = text == "None" or (text.lower() == "none" and "none" not in spec.choices)
        if none and (spec.name in _TAKES_NONE or (name == "PIMMS" and spec.default is None)):
            findings.remark(name, spec.name, "None is taken as unset")
            findings.origins.pop((name, spec.name), None)
            return spec.default
        hint = f"; {_EXAMPLES[spec.parse]}" if spec.parse in _EXAMPLES else ""
        if "\n" in text:
            hint = "; indented lines belong to the value above them, so remove the blanks before the key meant"
        try:
            value = spec.parse(text)
            if spec.choices:
                hint = ""  # the complaint lists the words
                value = self._choice(name, spec, value)
            _check_range(spec, value)
        except ValueError as error:
            findings.mistake_at(name, spec.name, text, f"{error}{hint}", is_usage=True)
            return spec.default
        if spec.name == "volume_padding_to_size" and not any(value):
            return spec.default
        ruling = spec.ruling_of(value)
        if value != spec.default and ruling.verdict in _REMARKABLE:
            general = ruling is spec.ruling
            findings.remark(
                name, spec.name, f"{_REMARKABLE[ruling.verdict]}: {ruling.sentence}" if general else ruling.sentence
            )
        return value

    def _choice(self, name: str, spec: KeySpec, text: str) -> str:
        words = [word.strip() for word in text.split(",")] if spec.several else [text]
        legal = []
        for word in words:
            same = [choice for choice in spec.choices if choice.lower() == word.lower()]
            if word in spec.choices:
                legal.append(word)
            elif same:
                legal.append(same[0])
                if not spec.fold:
                    self.findings.remark(
                        name, spec.name, f"{word} is read as {same[0]}; NiftyNet insists on that spelling"
                    )
            else:
                known = nearest(word, spec.choices)
                hint = f"did you mean {known}? The" if known else "the"
                which = f"{word!r} " if spec.several else ""
                raise ValueError(
                    f"{which}is not one of its words; {hint} choices are {', '.join(spec.choices)}".strip()
                )
        return ",".join(legal)

    def _foreign(self, name: str, key: str, entry: Entry, specs: Mapping[str, KeySpec]) -> None:
        if key in KNOWN_KEYS:
            self.misplaced.append((name, key))
            return
        place, hint = name, self._suggestion(key, specs)
        if entry.inherited:
            place, hint = (
                "DEFAULT",
                "[DEFAULT] may only hold keys that some section has; write its value out where it is used",
            )
        self.findings.lines[place, key] = entry.line
        self.findings.mistake_at(place, key, entry.text, f"is not a key; {hint}")

    def _suggestion(self, key: str, keys: Mapping[str, KeySpec] | list[str], prefix: str = "") -> str:
        own = nearest(key, [*keys, *(word for word, meant in FOREIGN.items() if meant in keys)])
        known = own or nearest(key, [*sorted(KNOWN_KEYS), *FOREIGN])
        known = FOREIGN.get(known, known)
        if known is None:
            return "--help lists them all" if prefix else f"the keys here are {', '.join(keys)}"
        owners = [name for name in SPECS if known in SPECS[name] and name != INPUT]
        where = "" if known in keys or not owners else f" of [{owners[0]}]"
        return f"did you mean {prefix}{known}{where}?"

    def _owner(
        self, key: str, task_part: object, parts: Mapping[str, object], inputs: Mapping[str, InputSection]
    ) -> str:
        key = sections.ALIASES.get(key, key)
        if task_part is not None and key in SPECS[self.task]:
            return f"it belongs to [{self.task}], where it is {shown(getattr(task_part, key))}"
        for name in sections.SYSTEM_SECTIONS:
            if key in SPECS[name]:
                return f"it belongs to [{name}], where it is {shown(getattr(parts[name.lower()], key))}"
        if key in SPECS[INPUT]:
            return f"it belongs to an input section such as [{next(iter(inputs), 'T1')}]"
        other = sections.OTHER_KEYS.get(key) or next(name for name in SPECS if key in SPECS[name])
        return f"it belongs to [{other}]"

    def _remark_on_continuations(self, name: str, key: str, entry: Entry) -> None:
        for line, text in entry.continuations:
            word = re.match(r"([\w-]+)\s*[=:]", text)
            if (word and word[1].lower() in KNOWN_KEYS) or re.match(r"\[.+\]", text):
                self.findings.remarks.append(
                    Remark(
                        name, key, line, f"{text!r} is indented and so belongs to the value of {key}; remove the blanks"
                    )
                )

    def _remark_on_name(self, name: str) -> None:
        line = self.found[name].line
        if name in sections.TASK_SECTIONS or name in sections.OTHER_TASKS:
            text = f"[{name}] is another task's section and counts as an input source here"
            self.findings.remarks.append(Remark(name, "", line, text))
            return
        names = [*sections.SYSTEM_SECTIONS, *sections.TASK_SECTIONS]
        meant = nearest(name, names, limit=2 if len(name) > 5 else 0)
        if meant and meant not in self.found:
            text = f"[{name}] counts as an input source; section names are exact, did you mean [{meant}]?"
            self.findings.remarks.append(Remark(name, "", line, text))


def _check_range(spec: KeySpec, value: Value) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("is not a number that anything can be done with")
    if spec.low is not None and not value >= spec.low:
        raise ValueError(f"is below {spec.low}, the lowest legal value")
    if spec.high is not None and not value <= spec.high:
        raise ValueError(f"is above {spec.high}, the highest legal value")
    complaint = spec.check(value) if spec.check else None
    if complaint:
        raise ValueError(complaint)
