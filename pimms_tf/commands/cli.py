"""argv → one call → exit code. Nothing heavy is imported before the chosen command needs it."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from niftynet_compat.runs.console import is_ours
from pimms_tf import __version__
from pimms_tf.commands import doctor_cli, migrate_cli, patient_cli, run_cli, serving_cli, simulate_cli, study_cli
from pimms_tf.commands.completion import SHELLS, completion_script
from pimms_tf.commands.parser import Parser, section_words, verb_adder
from pimms_tf.commands.running import guarded, import_tensorflow
from pimms_tf.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 done, 2 a mistake in the input, 130 or 143 interrupted.

    Any other exception is a fault of ours: it keeps its traceback, and Python ends with 1.
    """
    # What a run says in NiftyNet's words is for its log file; here it would say everything twice.
    console, debug = logging.StreamHandler(sys.stdout), False
    console.addFilter(is_ours)

    def work() -> int:
        nonlocal debug
        arguments, rest = _parser().parse_known_args(argv)
        debug = arguments.debug
        return arguments.run(arguments, section_words(arguments, rest))

    return guarded(console, work, lambda error, cause: _complain(error, debug, cause))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pimms-tf",
        description="Segments white matter hyperintensities from any number of MR scans, in any order, without labels.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pimms-tf {__version__}")
    verb = verb_adder(parser)
    patient_cli.add_verbs(verb)
    run_cli.add_verbs(verb)
    serving_cli.add_verbs(verb)
    migrate_cli.add_verbs(verb)
    simulate_cli.add_verb(verb)
    doctor_cli.add_verb(verb)
    study_cli.add_verb(verb)
    text = f"print the script that completes commands in a shell: {', '.join(SHELLS)}"
    sub = verb("completion", _completion, text, overrides=False)
    sub.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    sub = verb("demo", _demo, "train, segment, evaluate and export on simulated scans, in minutes", overrides=False)
    sub.add_argument("folder", nargs="?", type=Path, default=Path("pimms-demo"), metavar="FOLDER")
    return parser


def _completion(arguments: argparse.Namespace, words: list[str]) -> int:
    print(completion_script(arguments.shell, _parser()), end="")
    return 0


def _demo(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.commands.demo import demo_commands, demo_picture, segment_demo, write_demo

    write_demo(arguments.folder)
    import_tensorflow()
    print("\nThe weights that come with the package, on scans without names in a random order:", flush=True)
    for line in segment_demo(arguments.folder):
        print(line, flush=True)
    print(f"Reports on them: {arguments.folder / 'bundled'}/*/report.html")
    print("\nNow a network trained from nothing on the other scans:", flush=True)
    # The commands are those of a user in that folder, so the paths that they print hold there.
    before = Path.cwd()
    os.chdir(arguments.folder)
    try:
        for command in demo_commands():
            print(f"\n$ {shlex.join(command)}", flush=True)
            code = main(command[1:])
            if code != 0:
                return code
        demo_picture(Path("."), Path("demo.png"))
    finally:
        os.chdir(before)
    print(
        f"\nEverything is in {arguments.folder}; {arguments.folder / 'demo.png'} shows scans with true and predicted "
        "outlines.\nA few minutes of training on simulated scans prove the path, not the accuracy."
    )
    return 0


def _complain(error: InputError, debug: bool, cause: Exception | None) -> int:
    if debug:
        raise cause or error
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code
