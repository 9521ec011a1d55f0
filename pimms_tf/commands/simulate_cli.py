"""The verb `simulate`."""

import argparse
from pathlib import Path

from pimms_tf.commands.parser import AddVerb
from pimms_tf.errors import InputError


def add_verb(verb: AddVerb) -> None:
    """Adds the verb; `verb` makes its parser from its name, function and help."""
    text = "write simulated subjects with lesions, as hospitals scan them, and configurations that train on them"
    sub = verb("simulate", _simulate, text, overrides=False)
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="new folder")
    sub.add_argument("--subjects", type=int, default=10, metavar="N")
    sub.add_argument("--seed", type=int, default=0)
    text = "whole-head label maps in FreeSurfer's codes; default: the packaged ICBM152 brain"
    sub.add_argument("--label_maps", type=Path, metavar="DIR", help=text)
    text = "real lesion masks in MNI space; default: lesions are grown"
    sub.add_argument("--lesion_masks", type=Path, metavar="DIR", help=text)
    text = "how many hospitals are drawn, or a JSON file of them; default: 1"
    sub.add_argument("--hospitals", default="1", metavar="N|FILE", help=text)
    text = "scans that drawn hospitals take, such as T1,T2,FLAIR; default: T1,T2,FLAIR; usual: what hospitals take"
    sub.add_argument("--contrasts", default="T1,T2,FLAIR", metavar="LIST", help=text)
    text = "kept, defaced, stripped or badly stripped; default: as the hospital does"
    sub.add_argument("--head", metavar="WORD", help=text)
    text = "edge of the voxels, or its three edges; default: as the hospital has them"
    sub.add_argument("--spacing_mm", type=float, nargs="+", metavar="MM", help=text)
    text = "smallest and largest lesion load; 0 0: healthy"
    sub.add_argument("--load_ml", type=float, nargs=2, metavar=("LOW", "HIGH"), help=text)
    sub.add_argument("--num_threads", type=int, default=1, metavar="N", help="subjects made at a time")


def _simulate(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.commands.simulate import simulated_hospitals, write_simulation

    a = arguments
    if a.seed < 0:
        raise InputError(f"seed {a.seed} is negative: give 0 or more")
    hospitals = simulated_hospitals(a.hospitals, a.seed, a.contrasts.split(","), a.head, a.spacing_mm)
    write_simulation(
        a.folder,
        a.subjects,
        hospitals,
        seed=a.seed,
        label_maps=a.label_maps,
        lesion_masks=a.lesion_masks,
        load_ml=None if a.load_ml is None else tuple(a.load_ml),
        num_threads=a.num_threads,
    )
    return 0
