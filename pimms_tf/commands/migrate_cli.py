"""The verbs that look at INI files without running them: `migrate`, `config show`, `config explain`."""

import argparse
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from niftynet_compat import (
    Migration,
    Outcome,
    as_dict,
    cleaned_path,
    explain_key,
    is_cleaned,
    keys_markdown,
    load_config,
    migrate_file,
    write_cleaned,
)
from niftynet_compat.migration.header import read_header
from pimms_tf.commands.migrate_text import config_text, ini_files, is_niftynets, report_text, summary_text
from pimms_tf.commands.parser import AddVerb
from pimms_tf.errors import ConfigError, InputError


class _Written(NamedTuple):
    """Where a cleaned file is, or why there is none; neither if none was asked for."""

    path: Path | None = None
    why_not: str = ""

    def __str__(self) -> str:
        return f"written to {self.path}" if self.path else f"not written: {self.why_not}" if self.why_not else ""


class _PassedOver(NamedTuple):
    """A file below a folder that is not reported on, and the reason."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: passed over, {self.why}"


def add_verbs(verb: AddVerb) -> None:
    """Adds the verbs; `verb` makes the parser of one from its name, function and help."""
    text = (
        "say what becomes of NiftyNet's INI files here, action by action and key by key; exit code 0 clean, 1 results "
        "change, 2 cannot run"
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
    files, passed_over = _chosen(ini_files(arguments.paths), set(arguments.paths))
    if not files and not arguments.json:
        raise InputError(_nothing_there(arguments.paths, passed_over))
    with _without_warnings():
        reports = [migrate_file(path, arguments.app) for path, _ in files]
    targets: dict[Path, Path] = {}
    written = [_write(report, below, arguments, targets) for report, (_, below) in zip(reports, files, strict=True)]
    # A user who asked for files and did not get all of them must not be told that all is well.
    failed = not files or any(each.why_not for each in written)
    code = max([int(Outcome.STOPS) if failed else 0, *(report.exit_code for report in reports)])
    if arguments.json:
        rows = [as_dict(report) | {"written": str(each)} for report, each in zip(reports, written, strict=True)]
        others = [{"path": str(each.path), "why": each.why} for each in passed_over]
        print(json.dumps({"exit_code": code, "files": rows, "passed_over": others}, indent=2))
        return code
    for report, each in zip(reports, written, strict=True):
        print(report_text(report, everything=not arguments.brief), *([f"  {each}"] if any(each) else []), "", sep="\n")
    print(*passed_over, summary_text(reports), sep="\n")
    return code


def _chosen(
    files: Sequence[tuple[Path, Path]], named: Collection[Path]
) -> tuple[list[tuple[Path, Path]], list[_PassedOver]]:
    """The files to report on, and those in folders that are not: other programs' files, and copies of others here."""
    kept, passed_over = [], []
    originals = {path.name for path, _ in files if not is_cleaned(path)}
    for path, below in files:
        original = read_header(path).original
        if path in named:
            kept.append((path, below))
        elif original in originals:
            passed_over.append(_PassedOver(path, f"since migrate wrote it from {original}"))
        elif not is_niftynets(path):
            passed_over.append(_PassedOver(path, "since it has no section of NiftyNet"))
        else:
            kept.append((path, below))
    return kept, passed_over


def _nothing_there(paths: Sequence[Path], passed_over: Sequence[_PassedOver]) -> str:
    where = ", ".join(map(str, paths))
    if not passed_over:
        return f"{where}: no .ini file there or in folders below"
    some = passed_over[0]
    return f"{where}: {len(passed_over)} .ini files there, none of NiftyNet; {some.path} is passed over, {some.why}"


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


def _write(report: Migration, below: Path, arguments: argparse.Namespace, targets: dict[Path, Path]) -> _Written:
    """Writes the cleaned file if it is asked for.

    `targets` are the files written so far, each with its original; this one is added.
    """
    if arguments.write is None:
        return _Written()
    folder = None if arguments.write == Path() else arguments.write / below.parent
    target = cleaned_path(report.path, folder)
    if target in targets:
        why = f"{target} was just written from {targets[target]}; give each of the two its own --write"
        return _Written(why_not=why)
    try:
        done = write_cleaned(report.path, target, arguments.app)
    except ConfigError as error:
        return _Written(why_not=str(error))
    targets[target] = report.path
    return _Written(done)


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
