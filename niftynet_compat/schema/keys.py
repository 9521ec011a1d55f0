"""What is known of one key of an INI file: type, default, legal words, meaning, and what becomes of it here.

Every key of NiftyNet 0.6, of the PIMMS fork and of [PIMMS] is one call of `key` in a section's dataclass. Reading,
remarks, the migration report, `config explain` and `docs/keys.md` all look at the `KeySpec` made of it.
"""

import dataclasses
import enum
import re
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from niftynet_compat import ini

Value = str | int | float | bool | tuple[str, ...] | tuple[int, ...] | tuple[float, ...] | None


class Verdict(str, enum.Enum):
    """What becomes of a key, or of one word written for it."""

    HONOURED = "honoured"
    DIFFERS = "honoured with a difference"
    NO_EFFECT = "accepted and without effect"
    UNSUPPORTED = "unsupported"

    def __str__(self) -> str:
        return self.value


class Ruling(NamedTuple):
    """A verdict and the sentence that goes with it."""

    verdict: Verdict
    sentence: str = ""
    changes_results: bool = False  # they are not those that NiftyNet would get
    stops: bool = False  # the verb that reads it ends with an error


def differs(sentence: str, changes_results: bool = False) -> Ruling:
    """Returns the ruling of what is honoured with a difference."""
    return Ruling(Verdict.DIFFERS, sentence, changes_results)


def no_effect(sentence: str) -> Ruling:
    """Returns the ruling of what is accepted and without effect, results being what they would be without it."""
    return Ruling(Verdict.NO_EFFECT, sentence)


def unsupported(sentence: str, stops: bool = False) -> Ruling:
    """Returns the ruling of what would change the results in NiftyNet and is not done here."""
    return Ruling(Verdict.UNSUPPORTED, sentence, changes_results=True, stops=stops)


HONOURED = Ruling(Verdict.HONOURED)


class KeySpec(NamedTuple):
    """What is known of one key: how its text is read, its default, what may be written, and what becomes of it."""

    name: str
    parse: Callable[[str], Value]
    default: Value
    meaning: str
    choices: tuple[str, ...] = ()
    ruling: Ruling = HONOURED
    words: Mapping[str, Ruling] = MappingProxyType({})  # of the choices that are not ruled as the key is
    used_by: str = ""  # the verbs that read it, separated by blanks
    fold: bool = False  # NiftyNet itself ignores case here, so other spellings need no remark
    several: bool = False  # a text holding several of the choices, separated by commas
    low: float | None = None
    high: float | None = None
    check: Callable[[Value], str | None] | None = None  # complaint about a parsed value
    keeps_empty: bool = False  # `key =` means the empty text, not the default
    command_line: bool = True
    names_sections: bool = False
    differs_at_default: bool = False  # a difference shows where the value is the default, too
    differs_for: str = ""  # of input sections only those that this key of the task names differ
    fork: bool = False  # only the PIMMS fork knew it; NiftyNet 0.6 refuses a file that has it

    @property
    def idle(self) -> bool:
        """Whether the key is accepted and then not looked at."""
        return self.ruling.verdict in (Verdict.NO_EFFECT, Verdict.UNSUPPORTED)

    def ruling_of(self, value: Value) -> Ruling:
        """Returns what becomes of a value: the ruling of the first word in it that has one, else the key's own."""
        words = value.split(",") if isinstance(value, str) else value if isinstance(value, tuple) else ()
        return next((self.words[word] for word in words if word in self.words), self.ruling)


def key(
    parse: Callable[[str], Value],
    default: Value,
    meaning: str,
    *choices: str,
    differs: str = "",
    no_effect: str = "",
    unsupported: str = "",
    **rules: object,
) -> dataclasses.Field:
    """Returns the field of a section's dataclass that is one key.

    One of `differs`, `no_effect` and `unsupported` may say in a sentence why the key is not simply honoured; `rules`
    are other attributes of `KeySpec`.
    """
    rulings = [
        Ruling(verdict, sentence, verdict is Verdict.UNSUPPORTED)
        for verdict, sentence in (
            (Verdict.DIFFERS, differs),
            (Verdict.NO_EFFECT, no_effect),
            (Verdict.UNSUPPORTED, unsupported),
        )
        if sentence
    ]
    if len(rulings) > 1:
        raise ValueError(f"{meaning}: a key has one verdict, not {len(rulings)}")
    ruling = rulings[0] if rulings else HONOURED
    metadata = {"parse": parse, "meaning": meaning, "choices": choices, "ruling": ruling, **rules}
    return dataclasses.field(default=default, metadata=metadata)


def sources(meaning: str, **rules: object) -> dataclasses.Field:
    """Returns the field of a key that lists input sections."""
    return key(ini.to_strs, (), meaning, names_sections=True, **rules)


def key_specs(section: type) -> dict[str, KeySpec]:
    """Returns the keys of a section's dataclass in its order, by name."""
    users = getattr(section, "USED_BY", "")
    return {
        item.name: KeySpec(name=item.name, default=item.default, **({"used_by": users} | dict(item.metadata)))
        for item in dataclasses.fields(section)
        if item.metadata
    }


def type_words(spec: KeySpec) -> str:
    """Returns what may be written for a key, in words."""
    kinds = {
        ini.to_int: "whole number",
        ini.to_float: "number",
        ini.to_bool: "True or False",
        ini.to_str: "text",
        ini.to_strs: "words separated by commas",
        ini.to_ints: "whole numbers separated by commas",
        ini.to_floats: "numbers separated by commas",
        ini.to_window: "voxels per axis, axes left out count 1",
        ini.to_spatial3: "voxels per axis, the last one repeated",
    }
    text = kinds[spec.parse]
    if spec.names_sections:
        text = "names of input sections separated by commas"
    if spec.choices:
        text = ("some of " if spec.several else "one of ") + ", ".join(spec.choices)
    bounds = [f"{word} {bound:g}" for word, bound in (("from", spec.low), ("to", spec.high)) if bound is not None]
    return f"{text}, {' '.join(bounds)}" if bounds else text


def shown(value: Value) -> str:
    """Returns a value as it would be written in an INI file, for messages; `unset` for nothing."""
    if value is None or value in ("", ()):
        return "unset"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def pair(value: tuple[float, ...]) -> str | None:
    """Returns what is wrong with a range: it has no number or two."""
    return None if len(value) in (0, 2) else "needs two numbers, the lowest and the highest"


def percentiles(value: tuple[float, ...]) -> str | None:
    """Returns what is wrong with two fractions in ascending order."""
    if len(value) == 2 and 0 <= value[0] < value[1] <= 1:
        return None
    return "needs two fractions between 0 and 1, the lower first, for example 0.01, 0.99"


def three_spacings(value: tuple[float, ...]) -> str | None:
    """Returns what is wrong with a voxel size in mm; none at all is right too."""
    if not value or (len(value) >= 3 and all(item >= 0 for item in value)):
        return None
    return "needs three positive numbers in mm, for example 1.0, 1.0, 1.0; 0 keeps the spacing of its axis"


def orientation(value: tuple[str, ...]) -> str | None:
    """Returns what is wrong with the letters of an orientation; none at all is right too."""
    axes = sorted("LR" if code in "LR" else "AP" if code in "AP" else "IS" for code in value if code in tuple("LRAPIS"))
    if not value or (len(value) == 3 and axes == ["AP", "IS", "LR"]):
        return None
    return "needs three letters separated by commas, one of L R, one of P A and one of I S, for example R,A,S"


def flip_axes(value: tuple[int, ...]) -> str | None:
    """Returns what is wrong with a list of axes; -1 stands for none."""
    return None if all(axis in (-1, 0, 1, 2) for axis in value) else "needs axes out of 0, 1, 2, or -1 for none"


def sizes(value: tuple[int, ...]) -> str | None:
    """Returns what is wrong with numbers of voxels."""
    return None if all(size >= 0 for size in value) else "must not be negative"


def pattern(value: str) -> str | None:
    """Returns what is wrong with a regular expression."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what brackets in brackets will mean one day
            re.compile(value)
    except re.error as error:
        return f"is no regular expression ({error}); write a backslash before characters meant as they are"
    return None


def widths(value: tuple[int, ...]) -> str | None:
    """Returns what is wrong with the numbers of features of a network's stages."""
    if len(value) >= 2 and all(size >= 1 for size in value):
        return None
    return "needs two positive numbers or more, the stem's first, for example 16, 64, 128, 256"
