"""The words of a command line: which program, action and file are meant, and which section takes which option.

NiftyNet lets the sections of the file consume options one after the other, each leaving what it does not know to the
next. So `--save_seg_dir --permuted_indices 1,2,0 ./output/x` is legal where the section of `permuted_indices` comes
first: by the time `save_seg_dir` is looked at, its value stands behind it.

Source: `niftynet/utilities/user_parameters_parser.py`; Python's `argparse` for what counts as a value.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from niftynet_compat.schema.programs import ACTIONS, UNAVAILABLE_APPLICATIONS, application_section, canonical_action
from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError, UsageError, one_line

# Programs that bring their own application and so ignore -a; any other one is NiftyNet's general net_run.
PROGRAMS = ("net_segment", "net_classify", "net_multitask", "net_regress", "net_autoencoder", "net_gan")
_VALUED = {"--conf": "conf", "--application_name": "application"}
_FLAGS = {"--version": "version", "--help": "help", "--debug": "debug"}
_SHORT = {"-c": "--conf", "-a": "--application_name", "-v": "--version", "-h": "--help"}
_ACTIONS = tuple(word for word in ACTIONS if word != "export")


@dataclass(frozen=True)
class Call:
    """What one command line asks for.

    `application` is the alias of a program of that name, else the word after `-a`; None if there is neither. `options`
    are the words that sections consume, in their order. `environment` holds assignments in front of the program.
    """

    program: str
    action: str
    application: str | None
    config: str | None
    options: tuple[str, ...] = ()
    debug: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    def pimms_tf(self) -> list[str]:
        """Returns the words of the same call to `pimms-tf`."""
        verb = {"training": "train"}.get(self.action, self.action)
        words = ["pimms-tf", verb]
        words += ["-c", self.config] if self.config else []
        words += ["-a", self.application] if self.application else []
        return [*words, *(["--debug"] if self.debug else []), *self.options]


class Leftover(NamedTuple):
    """A word that no section took: `--key` with the text behind it, or with an empty key a word on its own."""

    key: str
    text: str


class Asked(NamedTuple):
    """A command line that only wants to be told something: `help` or `version`."""

    program: str
    what: str


def parse_command(words: Sequence[str]) -> Call | Asked:
    """Returns the call meant by a command line of `net_segment`, `net_classify` or `net_run`, program name first.

    An interpreter and assignments in front of the program are passed over, so a line of a shell script may be given
    as it is, split at its blanks. The action must come before any other word that belongs to no meta option.

    Raises:
        UsageError: no action, an unknown one, a meta option without value or in two meanings.
        ConfigError: an application that is not available here, or unknown.

    Source: `niftynet/utilities/user_parameters_parser.py`, `run`.
    """
    words, environment = list(words), []
    while words and (match := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0])):
        environment.append((match[1], match[2]))
        words.pop(0)
    if words and re.fullmatch(r"python[\d.]*", PurePath(words[0]).name):
        words.pop(0)
    if not words:
        raise UsageError("the command line is empty; write net_segment train -c CONFIG.ini")
    program = PurePath(words.pop(0)).name.removesuffix(".py")
    found: dict[str, str] = {}
    options: list[str] = []
    while words:
        word = words.pop(0)
        meta, value = _meta_option(word)
        if meta in ("version", "help"):
            return Asked(program, meta)
        if meta == "debug":
            found["debug"] = "yes"
        elif meta:
            if value is None:
                if not words or not is_value(words[0]):
                    raise UsageError(f"{word} has no value behind it; write {_usage(program)}")
                value = words.pop(0)
            found[meta] = value
        elif "action" not in found and is_value(word):
            found["action"] = _action(word, program, options)
        else:
            options.append(word)
    if "action" not in found:
        raise UsageError(f"no action is given; write {_usage(program)}")
    application = program if program in PROGRAMS else found.get("application")
    if program in UNAVAILABLE_APPLICATIONS:
        raise ConfigError(f"{program} is not built here: this package has net_segment and net_classify")
    if application is not None:
        application_section(application)
    else:
        raise ConfigError(
            f"{program} does not know which application is meant; add -a net_segment, -a net_classify or the dotted "
            "name of one"
        )
    return Call(
        program=program,
        action=canonical_action(found["action"]),
        application=application,
        config=found.get("conf"),
        options=tuple(options),
        debug="debug" in found,
        environment=tuple(environment),
    )


def take_options(
    words: Sequence[str], keys: Sequence[tuple[str, Mapping[str, bool]]]
) -> tuple[dict[str, dict[str, str]], list[Leftover]]:
    """Returns {section: {key: text}} of `--key value` and `--key=value`, and what no section took.

    Each section in turn takes its keys and their values out of the words; of a repeated key the last value counts.

    Args:
        keys: sections in the order of the file, each with {key: whether the key alone means True}.

    Raises:
        UsageError: a key whose turn it is has no value behind it.
    """
    rest = list(words)
    given: dict[str, dict[str, str]] = {}
    for section, known in keys:
        kept: list[str] = []
        waiting, rest = rest, kept
        while waiting:
            word = waiting.pop(0)
            key, equals, text = word[2:].partition("=")
            if not word.startswith("--") or key not in known:
                kept.append(word)
                continue
            if not equals:
                if waiting and is_value(waiting[0]):
                    text = waiting.pop(0)
                elif known[key]:
                    text = "True"
                else:
                    raise UsageError(_without_value(key, waiting))
            given.setdefault(section, {})[key] = text
    return given, _leftovers(rest)


def option_words(overrides: Mapping[str, str]) -> list[str]:
    """Returns {key: text} as words of a command line, in forms that cannot be mistaken for others."""
    return [f"--{key}={text}" for key, text in overrides.items()]


def split_config(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the one word that is neither an option nor its value, or None, and the other words in their order.

    It is what `pimms-tf VERB CONFIG [--key value ...]` calls CONFIG. The first such word counts.
    """
    words = list(words)
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if is_value(word) and not (before.startswith("--") and "=" not in before):
            return word, words[:place] + words[place + 1 :]
    return None, words


def join_signed(words: Sequence[str]) -> list[str]:
    """Returns the words with `--key -10,10` written `--key=-10,10`, which NiftyNet itself does not do for its user."""
    joined: list[str] = []
    for word in words:
        last = joined[-1] if joined else ""
        if re.match(r"-[\d.]", word) and not is_value(word) and re.fullmatch(r"--[^=]+", last):
            joined[-1] = f"{last}={word}"
        else:
            joined.append(word)
    return joined


def is_value(word: str) -> bool:
    """Returns whether a word counts as a value: no `-` in front, or a negative number, or a blank within."""
    if not word.startswith("-") or word == "-" or " " in word:
        return True
    try:
        float(word)
    except ValueError:
        return False
    return True


def _meta_option(word: str) -> tuple[str, str | None]:
    """The meta option meant by a word and the value attached to it; "" if it is none."""
    if word[:2] in _SHORT and not word.startswith("--"):
        name = _SHORT[word[:2]]
        attached = word[2:].removeprefix("=") if len(word) > 2 else None
        if name in _VALUED:
            return _VALUED[name], attached
        return (_FLAGS[name], None) if attached is None else ("", None)
    if not word.startswith("--") or len(word) < 3:
        return "", None
    name, equals, value = word.partition("=")
    # NiftyNet's parser takes beginnings of a meta option for the whole; the fork's scripts all write --app.
    meant = [full for full in (*_VALUED, *_FLAGS) if full.startswith(name) and (full != "--debug" or name == full)]
    if len(meant) != 1:
        return "", None
    if meant[0] in _VALUED:
        return _VALUED[meant[0]], value if equals else None
    return _FLAGS[meant[0]], None


def _action(word: str, program: str, options: Sequence[str]) -> str:
    if word in _ACTIONS:
        return word
    if options and re.fullmatch(r"--[^=]+", options[-1]):
        raise UsageError(
            f"{word} stands where the action belongs; write the action before {options[-1]} {word}, as in "
            f"{program} train -c CONFIG.ini {options[-1]} {word}"
        )
    known = nearest(word, _ACTIONS)
    hint = f"did you mean {known}?" if known else "choose train, inference or evaluation"
    raise UsageError(f"{word} is not an action of {program}; {hint}")


def _usage(program: str) -> str:
    application = "" if program in PROGRAMS else " -a APPLICATION"
    return f"{program} train|inference|evaluation{application} -c CONFIG.ini"


def _without_value(key: str, waiting: Sequence[str]) -> str:
    if waiting and re.match(r"-[\d.]", waiting[0]):
        return (
            f"--{key} {waiting[0]} reads as two options, because {waiting[0]} begins with a minus and is not one "
            f"number; write --{key}={waiting[0]}"
        )
    behind = f"; {waiting[0]} stands there" if waiting else ""
    return f"--{key} has no value behind it{behind}; write --{key} VALUE"


def _leftovers(words: Sequence[str]) -> list[Leftover]:
    found, waiting = [], list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or len(word) < 3:
            found.append(Leftover("", word))
            continue
        key, equals, text = word[2:].partition("=")
        if not equals and waiting and is_value(waiting[0]):
            text = waiting.pop(0)
        found.append(Leftover(key, one_line(text)))
    return found
