"""The verb `study`: the paper's comparison, from simulated hospitals to its table."""

import argparse
import platform
from importlib.metadata import version
from pathlib import Path

from pimms_tf.commands.parser import AddVerb


def add_verb(verb: AddVerb) -> None:
    """Adds the verb; `verb` makes its parser from its name, function and help."""
    text = "make the paper's table from simulated hospitals: simulate, train, segment, score; goes on where it stopped"
    sub = verb("study", _study, text, overrides=False)
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="new folder, or that of a comparison to go on with")
    sub.add_argument("--scale", default="small", metavar="WORD", help="tiny, small or paper; default: small")
    sub.add_argument("--seed", type=int, default=0)
    text = "folder of a real patient with T1, FLAIR and lesion .nii.gz for the gold holdout; may be given again"
    sub.add_argument("--gold", type=Path, action="append", default=[], metavar="DIR", help=text)


def _study(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.commands.demo import shipped_config, shipped_configs
    from pimms_tf.comparison import SCALES, plan_of, read_comparison, run_stages, write_comparison

    shipped = {name: shipped_config(name) for name in shipped_configs()}
    plan = plan_of(arguments.scale, arguments.seed, arguments.gold, shipped)
    print(f"Scale {plan.scale}: {SCALES[plan.scale].budget}.", flush=True)
    run_stages(plan, arguments.folder, lambda line: print(line, flush=True), _machine())
    print(f"Saved {write_comparison(read_comparison(arguments.folder), arguments.folder)}")
    return 0


def _machine() -> str:
    """This machine and what computes on it, in one line."""
    from pimms_tf.check.machine import processor_name, processors_seen

    packages = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy", "scipy"))
    return f"{processors_seen()} × {processor_name()}; Python {platform.python_version()}, {packages}"
