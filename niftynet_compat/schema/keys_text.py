"""The table of keys in words: for one key, for the help of a verb, and as the Markdown of `docs/keys.md`."""

from niftynet_compat.schema import sections
from niftynet_compat.schema.choices import FOREIGN
from niftynet_compat.schema.keys import KeySpec, Ruling, Verdict, shown, type_words
from niftynet_compat.schema.sections import INPUT, KNOWN_KEYS, OTHER_KEY_RULING, OTHER_KEYS, SPECS
from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError

_INTRODUCTION = """# Keys

Every key that an INI file may have: those of NiftyNet 0.6, those that the PIMMS fork added, and ours in `[PIMMS]`. The
table is the one that the program reads by; `pimms-tf config explain KEY` prints its rows, and `pimms-tf migrate FILE`
applies it to a file.

Verdicts:

- **honoured**: as in NiftyNet;
- **honoured with a difference**: the sentence says which;
- **accepted and without effect**: results are what they would be without the key;
- **unsupported**: another value than the default asks for what is not done here, so results change, or the verb stops.

A verdict holds for every value of the key unless a value has a line of its own. A known key in a section that does not
have it is accepted and without effect, as in NiftyNet, but with a remark. "Default" is what holds where the key is left
out; "preset" leaves the choice to `[PIMMS] preset`.
"""


def explain_key(key: str) -> str:
    """Returns what is known of a key: meaning, legal values, default, verbs that read it, and verdict, per section.

    Raises:
        ConfigError: no section has the key; with the nearest one.
    """
    name = sections.ALIASES.get(key.lower(), key.lower())
    blocks = [f"{key} is another name of {name}"] if name != key.lower() else []
    for section in sections.sections_of(name):
        spec = SPECS[section][name]
        rows = [f"[{_title(section)}] {name}: {spec.meaning}"]
        rows += [f"    {label:<9}{text}" for label, text in _facts(spec, section)]
        rows += [f"    {word}: {_verdict(ruling)}" for word, ruling in _word_rows(spec)]
        blocks.append("\n".join(rows))
    if name in OTHER_KEYS:
        blocks.append(f"[{OTHER_KEYS[name]}] {name}\n    verdict  {_verdict(OTHER_KEY_RULING)}")
    if not blocks:
        known = nearest(key, [*sorted(KNOWN_KEYS), *FOREIGN])
        known = FOREIGN.get(known, known)
        hint = f"did you mean {known}?" if known else "docs/keys.md and pimms-tf train --help list all keys"
        raise ConfigError(f"{key} is not a key of any section; {hint}")
    return "\n\n".join(blocks)


def keys_help(verb: str = "") -> str:
    """Returns all keys that a verb reads, by section, with default and meaning; for another word, of all verbs."""
    blocks = []
    for section, read in read_by(verb).items():
        title = "input sections, which only the file can change" if section == INPUT else f"[{section}]"
        rows = [f"  --{spec.name} {_default(spec)}\n      {_meaning(spec)}{_choices(spec)}" for spec in read]
        if section == INPUT:
            rows = [row.replace("  --", "  ", 1) for row in rows]
        blocks.append("\n".join([f"keys of {title}", *rows]))
    return "\n\n".join(blocks)


def read_by(verb: str = "") -> dict[str, list[KeySpec]]:
    """Returns {section: keys} of what a verb reads, for a word that is none of all verbs; no section without keys."""
    is_known = any(verb in spec.used_by.split() for specs in SPECS.values() for spec in specs.values())
    read = {
        section: [spec for spec in specs.values() if not spec.idle and (not is_known or verb in spec.used_by.split())]
        for section, specs in SPECS.items()
    }
    return {section: specs for section, specs in read.items() if specs}


def keys_markdown() -> str:
    """Returns the text of `docs/keys.md`: one table per section with every key and its verdict."""
    parts = [_INTRODUCTION]
    for section, specs in SPECS.items():
        rows = [_key_row(spec) for spec in specs.values()]
        words = [
            f"- `{spec.name} = {word}`: **{ruling.verdict}**. {ruling.sentence}."
            for spec in specs.values()
            for word, ruling in _word_rows(spec)
        ]
        title = "Input sections" if section == INPUT else f"[{section}]"
        words = ["", "Single values:", "", *words] if words else []
        parts.append("\n".join([f"## {title}\n", *_HEAD, *rows, *words]))
    others = [_row(name, f"of [{section}]", "", "", OTHER_KEY_RULING) for name, section in OTHER_KEYS.items()]
    others += [
        _row(name, f"another name of `{key}` in input sections, from the fork", "", "", Ruling(Verdict.HONOURED))
        for name, key in sections.ALIASES.items()
    ]
    parts.append("\n".join(["## Keys of other tasks, and other names\n", *_HEAD, *others]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


_HEAD = ("| key | meaning | values | default | verdict |", "| --- | --- | --- | --- | --- |")


def _row(name: str, meaning: str, values: str, default: str, ruling: Ruling) -> str:
    verdict = f"**{ruling.verdict}**" + (f": {ruling.sentence}" if ruling.sentence else "")
    cells = [f"`{name}`", meaning, values, f"`{default}`" if default else "", verdict]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _key_row(spec: KeySpec) -> str:
    return _row(spec.name, _meaning(spec), type_words(spec), _default(spec), spec.ruling)


def _facts(spec: KeySpec, section: str) -> list[tuple[str, str]]:
    origin = "this package" if section == "PIMMS" else "the PIMMS fork of NiftyNet" if spec.fork else "NiftyNet 0.6"
    return [
        ("values", type_words(spec)),
        ("default", _default(spec)),
        ("read by", ", ".join(spec.used_by.split())),
        ("from", origin),
        ("verdict", _verdict(spec.ruling)),
    ]


def _verdict(ruling: Ruling) -> str:
    return f"{ruling.verdict}: {ruling.sentence}" if ruling.sentence else str(ruling.verdict)


def _word_rows(spec: KeySpec) -> list[tuple[str, Ruling]]:
    return [(word, ruling) for word, ruling in spec.words.items() if ruling.sentence]


def _meaning(spec: KeySpec) -> str:
    return f"fork: {spec.meaning}" if spec.fork else spec.meaning


def _default(spec: KeySpec) -> str:
    return "preset" if spec.default is None and spec.name != "loader" else shown(spec.default)


def _choices(spec: KeySpec) -> str:
    return f" ({', '.join(spec.choices)})" if spec.choices else ""


def _title(section: str) -> str:
    return "input sections" if section == INPUT else section
