"""The verb `doctor`."""

import argparse

from pimms_tf.commands.parser import AddVerb
from pimms_tf.commands.running import import_tensorflow


def add_verb(verb: AddVerb) -> None:
    """Adds the verb; `verb` makes its parser from its name, function and help."""
    text = "examine the installation and the machine: versions, limits, weights, and a self-test of seconds"
    sub = verb("doctor", _doctor, text, overrides=False)
    sub.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    sub.add_argument("--cite", action="store_true", help="only print a paragraph for the methods of a paper")


def _doctor(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.check.doctor import citation, examine

    if arguments.cite:
        print(citation())
        return 0
    found = examine(import_tensorflow)
    print(found.json() if arguments.json else found.text())
    return found.exit_code
