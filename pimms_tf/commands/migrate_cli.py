"""The verbs that look at INI files without running them: `migrate`, `config show`, `config explain`."""

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from niftynet_compat import (
    ConfigError,
    Migration,
    as_dict,
    cleaned_path,
    explain_key,
    is_cleaned,
    keys_markdown,
    load_config,
    migrate_file,
    write_cleaned,
)
from pimms_tf.commands.migrate_text import config_text, ini_files, report_text, summary_text
from pimms_tf.errors import InputError

_NOT_WRITTEN = "not written: "


def add_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the verbs; `verb` makes the parser of one from its name, function and help."""
    text = (
        "say what becomes of NiftyNet's INI files here, key by key; exit code 0 clean, 1 results change, 2 cannot run"
    )
    sub = verb("migrate", _migrate, text, overrides=False)
    sub.add_argument("paths", nargs="+", type=Path, metavar="CONFIG", help="INI files, or folders with some below them")
    sub.add_argument(
        "--write",
        nargs="?",
        const=Path(),
        type=Path,
        metavar="DIR",
        help="write a cleaned file too: into DIR, or as <name>_migrated.ini beside the original",
    )
    sub.add_argument("--json", action="store_true", help="the reports as JSON")
    sub.add_argument("--brief", action="store_true", help="count honoured keys instead of listing them")
    sub.add_argument("-a", "--app", metavar="APP", help="net_segment, …, if the file has several task sections")

    text = "print the settings of an INI file, or what is known of a key"
    parts = verb("config", _show, text, overrides=False).add_subparsers(metavar="show|explain", required=True)
    show = parts.add_parser("show", help="every value of an INI file and where it comes from", allow_abbrev=False)
    show.usage = "%(prog)s [options] CONFIG [--key value ...]"
    show.add_argument("-c", "--conf", type=Path, metavar="CONFIG", help="the INI file, as NiftyNet spells it")
    show.add_argument("-a", "--app", metavar="APP", help="net_segment, …, if the file has several task sections")
    show.set_defaults(run=_show, takes_overrides=True, parser=show)
    explain = parts.add_parser("explain", help="meaning, values, default and verdict of a key", allow_abbrev=False)
    explain.add_argument("key", nargs="?", metavar="KEY")
    explain.add_argument("--markdown", action="store_true", help="all keys as the text of docs/keys.md")
    explain.set_defaults(run=_explain, takes_overrides=False, parser=explain)


def _migrate(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    if arguments.write is not None and arguments.write.is_file():
        raise InputError(f"--write {arguments.write} is a file, but takes a folder; name the INI files before --write")
    named = set(arguments.paths)
    files = [(path, below) for path, below in ini_files(arguments.paths) if path in named or not is_cleaned(path)]
    if not files:
        raise InputError(f"{', '.join(map(str, arguments.paths))}: no .ini file there or in folders below")
    with _without_warnings():
        reports = [migrate_file(path, arguments.app) for path, _ in files]
    targets: dict[Path, Path] = {}
    written = [_written(report, below, arguments, targets) for report, (_, below) in zip(reports, files, strict=True)]
    # Whoever asked for files and did not get all of them must not be told that all is well.
    failed = any(note.startswith(_NOT_WRITTEN) for note in written)
    code = max(*(report.exit_code for report in reports), 2 if failed else 0)
    if arguments.json:
        rows = [as_dict(report) | {"written": note} for report, note in zip(reports, written, strict=True)]
        print(json.dumps({"exit_code": code, "files": rows}, indent=2))
        return code
    for report, note in zip(reports, written, strict=True):
        print(report_text(report, everything=not arguments.brief), *([f"  {note}"] if note else []), "", sep="\n")
    print(summary_text(reports))
    return code


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps discovery from logging what the reports say."""
    logger = logging.getLogger("niftynet_compat")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _written(report: Migration, below: Path, arguments: argparse.Namespace, targets: dict[Path, Path]) -> str:
    """Writes the cleaned file if it is asked for; returns where it is, or why there is none.

    `targets` are the files written so far, each with its original; this one is added.
    """
    if arguments.write is None:
        return ""
    folder = None if arguments.write == Path() else arguments.write / below.parent
    target = cleaned_path(report.path, folder)
    if target in targets:
        return f"{_NOT_WRITTEN}{target} was just written from {targets[target]}; give each of the two its own --write"
    try:
        done = write_cleaned(report.path, target, arguments.app)
    except ConfigError as error:
        return f"{_NOT_WRITTEN}{error}"
    targets[target] = report.path
    return f"written to {done}"


def _show(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    if arguments.conf is None:
        raise InputError("no configuration file given: pimms-tf config show CONFIG.ini")
    config = load_config(arguments.conf, words, arguments.app)
    for remark in config.remarks:
        logging.getLogger(__name__).warning("%s", remark)
    print(config_text(config))
    return 0


def _explain(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    if arguments.key is None and not arguments.markdown:
        raise InputError("no key given: pimms-tf config explain KEY")
    print(keys_markdown().rstrip() if arguments.markdown else explain_key(arguments.key))
    return 0
