"""Completion of command lines in shells: `shtab` writes the scripts from the parser, to which the keys are added here.

While a line is typed nothing of this package runs, so completing costs no time.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from niftynet_compat import NETWORKS
from niftynet_compat.ini import to_bool
from niftynet_compat.schema.keys import KeySpec
from niftynet_compat.schema.keys_text import read_by
from niftynet_compat.schema.programs import APPLICATION_OF_SECTION
from niftynet_compat.schema.sections import INPUT, KNOWN_KEYS

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

_FOLDER_KEYS = ("model_dir", "save_seg_dir", "save_csv_dir", "segmenter", "classifier", "cache")
_FILE_KEYS = ("dataset_split_file", "histogram_ref_file")
_NIFTYNET = ("net_segment", "net_classify", "net_run")
# Words that may stand behind an option, or in a place, whose parser takes any.
_WORDS: dict[str, tuple[str, ...]] = {
    "--app": tuple(APPLICATION_OF_SECTION.values()),
    "--network": tuple(name for name, network in NETWORKS.items() if network.ours is not None),
    "--shard": ("slurm",),
    "key": tuple(sorted(KNOWN_KEYS)),
}


def completion_script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Returns the script that completes `pimms-tf`, `net_segment`, `net_classify` and `net_run` in a shell.

    Args:
        shell: one of `SHELLS`.
        parser: that of `pimms-tf`, with all its verbs; it is of no use for parsing afterwards.
    """
    import shtab

    verbs = _verbs(parser)
    _tell(parser, verbs.values())
    programs = [parser, *(_niftynet(name, verbs) for name in _NIFTYNET)]
    return "\n".join(shtab.complete(program, shell) for program in programs)


def options_of(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """Returns the options of a verb, keys not among them."""
    return tuple(flag for action in parser._actions for flag in action.option_strings)


def _verbs(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    kinds = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next((kind.choices for kind in kinds), {})


def _niftynet(name: str, verbs: Mapping[str, argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """A parser like that of `net_segment`, whose actions take what the verbs of the same name do."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--version", action="version", version="")
    actions = parser.add_subparsers()
    for action in ("train", "inference", "evaluation"):
        actions.add_parser(action, help=verbs[action].description, parents=[verbs[action]], add_help=False)
    return parser


def _tell(parser: argparse.ArgumentParser, verbs: Iterable[argparse.ArgumentParser]) -> None:
    """Says what may stand for each argument of the verbs, and adds the keys and the INI file, which they take apart."""
    import shtab

    for verb in verbs:
        _tell(verb, _verbs(verb).values())
        if verb.get_default("takes_overrides"):
            name = verb.prog.split()[-1]
            known = options_of(verb)
            for spec in (spec for spec in _keys(name) if f"--{spec.name}" not in known):
                _describe(verb.add_argument(f"--{spec.name}", help=spec.meaning.replace("%", "%%")), spec)
            verb.add_argument("config_file", nargs="?", metavar="CONFIG")
        for action in verb._actions:
            known = next((_WORDS[name] for name in (*action.option_strings, action.dest) if name in _WORDS), None)
            if known:
                action.choices = known
            elif action.metavar == "CONFIG":
                action.complete = shtab.glob("*.ini")
            elif action.type is Path:
                action.complete = shtab.DIRECTORY if action.metavar in ("DIR", "FOLDER") else shtab.FILE


def _describe(action: argparse.Action, spec: KeySpec) -> None:
    import shtab

    if spec.name == "name":
        action.choices = _WORDS["--network"]
    elif spec.name in _FOLDER_KEYS:
        action.complete = shtab.DIRECTORY
    elif spec.name in _FILE_KEYS:
        action.complete = shtab.FILE
    else:
        action.choices = spec.choices or (("True", "False") if spec.parse is to_bool else None)


def _keys(verb: str) -> Iterable[KeySpec]:
    specs = (spec for section, specs in read_by(verb).items() if section != INPUT for spec in specs)
    return {spec.name: spec for spec in specs if spec.command_line}.values()
