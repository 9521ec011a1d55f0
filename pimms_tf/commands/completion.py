"""Completion of command lines in bash, zsh and fish: scripts made from the parser and the table of keys.

A script knows the verbs, their options, every key that a verb reads, and the legal words behind an option or a key.
It runs nothing of this package, so completing costs no time.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from niftynet_compat import NETWORKS
from niftynet_compat.ini import to_bool
from niftynet_compat.schema.keys import KeySpec
from niftynet_compat.schema.keys_text import read_by
from niftynet_compat.schema.programs import APPLICATION_OF_SECTION
from niftynet_compat.schema.sections import INPUT, KNOWN_KEYS

SHELLS = ("bash", "zsh", "fish")

# What a word may be if nobody can list it: an INI file, any file, a folder, or something else.
_INI, _FILE, _FOLDER, _OTHER = "@ini", "@file", "@folder", "@other"
_PLACES = ("model_dir", "save_seg_dir", "save_csv_dir", "segmenter", "classifier", "cache")
_FILES = ("dataset_split_file", "histogram_ref_file")
_ACTIONS = ("train", "inference", "evaluation")
_NIFTYNET = ("net_segment", "net_classify", "net_run")
_WORDS = {
    "--app": tuple(APPLICATION_OF_SECTION.values()),
    "--network": tuple(name for name, network in NETWORKS.items() if network.ours is not None),
    "--shard": ("slurm",),
    "key": tuple(sorted(KNOWN_KEYS)),
}


@dataclass(frozen=True)
class _Option:
    """One option or key: how it is spelt, what it is, and the words or the kind of word behind it, () for none."""

    flags: tuple[str, ...]
    text: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class _Verb:
    """A verb, or two words such as `config show`: its options, and what may stand without one."""

    name: str
    text: str
    options: tuple[_Option, ...]
    words: tuple[str, ...]

    @property
    def flags(self) -> list[str]:
        return [flag for option in self.options for flag in option.flags]


def completion_script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Returns the script that completes `pimms-tf`, `net_segment`, `net_classify` and `net_run` in a shell.

    Args:
        shell: bash, zsh or fish.
        parser: that of `pimms-tf`, with all its verbs.
    """
    verbs = list(_verbs(parser))
    if shell == "fish":
        return "\n".join(_fish(verbs)) + "\n"
    driver = _BASH if shell == "bash" else _ZSH
    return f"{_answers(verbs)}\n{driver.replace('PROGRAMS', ' '.join(('pimms-tf', *_NIFTYNET)))}"


def options_of(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """Returns the options of a verb, keys not among them."""
    return tuple(flag for action in parser._actions for flag in action.option_strings)


def _verbs(parser: argparse.ArgumentParser, before: str = "") -> Iterator[_Verb]:
    for name, sub in _subparsers(parser).items():
        inner = _subparsers(sub)
        full = f"{before} {name}".strip()
        if inner:
            yield _Verb(full, sub.description or "", _own(sub), tuple(inner))
            yield from _verbs(sub, full)
            continue
        takes_ini, own = sub.get_default("takes_overrides"), options_of(sub)
        keys = (_key(spec) for spec in (_keys(name) if takes_ini else ()) if f"--{spec.name}" not in own)
        yield _Verb(full, sub.description or "", (*_own(sub), *keys), (_INI,) if takes_ini else _positional(sub))


def _subparsers(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    kinds = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next((kind.choices for kind in kinds), {})


def _own(parser: argparse.ArgumentParser) -> tuple[_Option, ...]:
    return tuple(
        _Option(tuple(action.option_strings), action.help or "", () if action.nargs == 0 else _values(action))
        for action in parser._actions
        if action.option_strings
    )


def _positional(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    return next((_values(action) for action in parser._actions if not action.option_strings), ())


def _values(action: argparse.Action) -> tuple[str, ...]:
    known = next((_WORDS[name] for name in (*action.option_strings, action.dest) if name in _WORDS), ())
    if known or action.choices:
        return known or tuple(map(str, action.choices))
    if action.metavar == "CONFIG":
        return (_INI,)
    if action.type is not Path:
        return (_OTHER,)
    return (_FOLDER,) if action.metavar in ("DIR", "FOLDER") else (_FILE,)


def _keys(verb: str) -> list[KeySpec]:
    specs = (spec for section, specs in read_by(verb).items() if section != INPUT for spec in specs)
    return list({spec.name: spec for spec in specs if spec.command_line}.values())


def _key(spec: KeySpec) -> _Option:
    if spec.name == "name":
        values = _WORDS["--network"]
    elif spec.name in (*_PLACES, *_FILES):
        values = (_FOLDER,) if spec.name in _PLACES else (_FILE,)
    else:
        values = spec.choices or (("True", "False") if spec.parse is to_bool else (_OTHER,))
    return _Option((f"--{spec.name}",), spec.meaning, values)


# ---- bash and zsh


def _answers(verbs: Iterable[_Verb]) -> str:
    """A shell function that says what may stand at a place: words, or one that begins with @ for files."""
    verbs = list(verbs)
    meaning: dict[str, tuple[str, ...]] = {}
    for option in (option for verb in verbs for option in verb.options if option.values):
        for flag in option.flags:
            # Where verbs differ, --output for one, any file may stand.
            meaning[flag] = option.values if meaning.get(flag, option.values) == option.values else (_FILE,)
    values: dict[tuple[str, ...], list[str]] = {}
    for flag, words in meaning.items():
        values.setdefault(words, []).append(flag)
    first = [verb.name for verb in verbs if " " not in verb.name]
    lines = ["_pimms_tf_answer() {  # program, verb, the word before, the beginning of this one", '  case "$3" in']
    lines += [f"    {'|'.join(flags)}) echo '{' '.join(words)}'; return ;;" for words, flags in values.items()]
    lines += ["  esac", '  case "$1:$2:$4" in']
    lines += ["    pimms-tf::-*) echo '--help --version' ;;", f"    pimms-tf::*) echo '{' '.join(first)}' ;;"]
    lines += [f"    net_*::*) echo '{' '.join(_ACTIONS)} --help --version' ;;"]
    for verb in verbs:
        programs = "*" if verb.name in _ACTIONS else "pimms-tf"
        lines += [f"    {programs}:'{verb.name}':-*) echo '{' '.join(verb.flags)}' ;;"]
        lines += [f"    {programs}:'{verb.name}':*) echo '{' '.join(verb.words)}' ;;"]
    return "\n".join([*lines, "  esac", "}"])


_BASH = """
_pimms_tf() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb= words
  # `--key=value` comes in three words.
  if [[ $word == = ]]; then word=; elif [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi
  if (( COMP_CWORD > 1 )); then verb=${COMP_WORDS[1]}; fi
  if [[ $verb == config ]] && (( COMP_CWORD > 2 )); then verb="config ${COMP_WORDS[2]}"; fi
  words=$(_pimms_tf_answer "${COMP_WORDS[0]##*/}" "$verb" "$before" "$word")
  COMPREPLY=()
  case "$words" in
    @ini) compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -X '!*.ini' -- "$word"; compgen -d -- "$word") ;;
    @file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    @folder) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    @*) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word") ;;
  esac
}
complete -F _pimms_tf PROGRAMS
"""

_ZSH = """
_pimms_tf() {
  local word=${words[CURRENT]} before=${words[CURRENT-1]} verb= answer
  if (( CURRENT > 2 )); then verb=${words[2]}; fi
  if [[ $verb == config ]] && (( CURRENT > 3 )); then verb="config ${words[3]}"; fi
  if [[ $word == --*=* ]]; then before=${word%%=*}; word=${word#*=}; compset -P '*='; fi
  answer=$(_pimms_tf_answer "${words[1]:t}" "$verb" "$before" "$word")
  case "$answer" in
    @ini) _files -g '*.ini(-.)' ;;
    @file) _files ;;
    @folder) _files -/ ;;
    @*) ;;
    *) compadd -- ${=answer} ;;
  esac
}
if ! (( $+functions[compdef] )); then autoload -Uz compinit && compinit; fi
compdef _pimms_tf PROGRAMS
"""


# ---- fish


def _fish(verbs: Iterable[_Verb]) -> Iterator[str]:
    verbs = list(verbs)
    everywhere = " ".join(f"-c {program}" for program in ("pimms-tf", *_NIFTYNET))
    yield f"complete {everywhere} -f"
    shared: dict[_Option, list[str]] = {}
    for verb in verbs:
        *outer, name = verb.name.split()
        start, seen = "__fish_use_subcommand", f"__fish_seen_subcommand_from {name}"
        if outer:
            inner = " ".join(each.name.split()[1] for each in verbs if each.name.startswith(f"{outer[0]} "))
            start = f"__fish_seen_subcommand_from {outer[0]}; and not __fish_seen_subcommand_from {inner}"
        programs = everywhere if name in _ACTIONS else "-c pimms-tf"
        yield f"complete {programs} -n '{start}' -a {name} -d {_quoted(verb.text)}"
        if verb.words and not any(each.name.startswith(f"{verb.name} ") for each in verbs):
            yield f"complete {programs} -n '{seen}' {_fish_values(verb.words)}"
        for option in verb.options:
            shared.setdefault(option, []).append(name)
    for option, names in shared.items():
        flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1]}" for flag in option.flags)
        values = f" {_fish_values(option.values, ' -x')}" if option.values else ""
        seen = f"__fish_seen_subcommand_from {' '.join(names)}"
        programs = everywhere if set(names) & set(_ACTIONS) else "-c pimms-tf"
        yield f"complete {programs} -n '{seen}' {flags}{values} -d {_quoted(option.text)}"


def _fish_values(values: tuple[str, ...], behind: str = "") -> str:
    """How fish is told of words; `behind` is its switch for an option behind which only these may stand."""
    known = {
        _INI: f"-k -a '(__fish_complete_suffix .ini)'{behind}",
        _FILE: "-r -F" if behind else "-F",
        _FOLDER: f"-a '(__fish_complete_directories)'{behind}",
        _OTHER: f"-f{behind}",
    }
    return known.get(values[0]) or f"-a {_quoted(' '.join(values))}{behind}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
