"""The parser of `pimms-tf`: how a verb is added to it, and complaints that say what was probably meant."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from niftynet_compat import keys_help
from niftynet_compat.schema.sections import KNOWN_KEYS
from niftynet_compat.settings.command_line import join_signed, split_config
from niftynet_compat.spelling import nearest
from pimms_tf.commands.completion import options_of
from pimms_tf.errors import InputError

Run = Callable[[argparse.Namespace, list[str]], int]  # arguments, words for the sections of the INI file → exit code
AddVerb = Callable[..., argparse.ArgumentParser]  # name, run, text, overrides → the parser of the verb


class Parser(argparse.ArgumentParser):
    """A parser whose complaints end like every other mistake, as one sentence, with what was probably meant."""

    words: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):
        self.words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(self._misspelt() or f"{message}; {self.prog} --help lists what there is")

    def _get_value(self, action: argparse.Action, arg_string: str) -> object:
        if action.type is Path and not arg_string:  # Path("") would be the current folder
            raise argparse.ArgumentError(action, "the path is empty")
        return super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # argparse's own complaint would have to be taken apart again.
        if action.choices is not None and value not in action.choices:
            raise InputError(self._no_choice(action, str(value)))

    def _no_choice(self, action: argparse.Action, word: str) -> str:
        choices = [str(choice) for choice in action.choices]
        # NiftyNet's other words for its actions are not near ours by their letters.
        meant = {"infer": "inference", "eval": "evaluation", "merge": "inference --merge N"}
        known = meant.get(word) if "inference" in choices and not action.option_strings else None
        known = known or nearest(word, choices)
        hint = f"did you mean {known}?" if known else f"choose one of {', '.join(choices)}"
        if action.option_strings:
            return f"{'/'.join(action.option_strings)} {word} is not one of its words; {hint}"
        if self.words and self.words[0].startswith("-"):
            return f"{self.words[0]} stands before the verb; write {self.prog} VERB ... {self.words[0]} {word}"
        kind = f"verb of {self.prog}" if isinstance(action, argparse._SubParsersAction) else "shell"
        return f"{word} is not a {kind}; {hint}"

    def _misspelt(self) -> str:
        """The complaint about a word that stands there in place of an option that is required, "" if none does."""
        wanted = [flag for action in self._actions if action.required for flag in action.option_strings]
        for word in self.words:
            option = word.partition("=")[0]
            if option.startswith("--") and option not in options_of(self) and (known := nearest(option, wanted)):
                return f"{word} is not an option of {self.prog}; did you mean {known}?"
        return ""


def verb_adder(parser: argparse.ArgumentParser) -> AddVerb:
    """Returns `verb(name, run, text, overrides=True)`, which adds a verb to the parser and returns its own parser.

    `run` does the work, `text` is its help; with `overrides` it reads an INI file, whose keys are options too.
    """
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Run, text: str, overrides: bool = True) -> argparse.ArgumentParser:
        listed = f"Keys of the INI file, with defaults; those of [SECTIONS] are options too:\n\n{keys_help(name)}"
        sub = verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog=listed if overrides else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.add_argument("--debug", action="store_true", help="show the traceback of a mistake in the input")
        sub.set_defaults(run=run, takes_overrides=overrides, parser=sub)
        if overrides:
            # The INI file itself is no positional argument here: argparse would take the value of an override for it.
            sub.usage = "%(prog)s [options] CONFIG [--key value ...]"
            sub.add_argument("-c", "--conf", type=Path, metavar="CONFIG", help="the INI file, as NiftyNet spells it")
            sub.add_argument("-a", "--app", metavar="APP", help="net_segment, …, if the file has several task sections")
        return sub

    return verb


def section_words(arguments: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """Returns the words for the sections of the INI file, which itself is found among them if no option named it.

    Raises:
        InputError: the verb reads no INI file and there are words.
    """
    words = join_signed(rest)
    if arguments.takes_overrides and arguments.conf is None:
        arguments.conf, words = split_config(words)
    own = options_of(arguments.parser)
    for word in words if arguments.takes_overrides else words[:1]:
        option = word.partition("=")[0]
        keys = [f"--{key}" for key in KNOWN_KEYS] if arguments.takes_overrides else []
        known = nearest(option, [*own, *keys]) if option.startswith("--") and option not in keys else None
        if known in own or not arguments.takes_overrides:
            hint = f"did you mean {known}?" if known else "--help lists them"
            raise InputError(f"{option} is not an option of {arguments.parser.prog}; {hint}")
    return words
