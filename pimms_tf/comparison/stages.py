"""Running a plan: its files written, then one command after the other, passing over those that are done."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pimms_tf import __version__
from pimms_tf.comparison.plan import Plan, Stage
from pimms_tf.errors import InputError
from pimms_tf.files import write_text

PLAN_FILE = "comparison.json"


def run_stages(plan: Plan, folder: Path, say: Callable[[str], None], machine: str = "") -> None:
    """Runs what is left of a comparison in `folder`, each command in a process of its own with a log in `logs/`.

    A stage that ended well leaves `done/NAME.json` with its command, its seconds, those of all processors together, and
    the `machine` in words, and is not run again. One that was stopped goes on where its own `--resume` finds it.

    Raises:
        InputError: the folder holds something else, or another comparison; a command failed.
    """
    folder = Path(folder)
    _begin(plan, folder)
    for number, stage in enumerate(plan.stages, start=1):
        title = f"{number} of {len(plan.stages)}: pimms-tf {' '.join(stage.words)}"
        command, done = ["pimms-tf", *stage.words], read_done(folder, stage.name)
        if done is not None and done["command"] == command:
            say(f"{title} (done, {done['seconds']:.0f} s)")
            continue
        say(title)
        began, before = time.monotonic(), _processor_seconds()
        _run(stage, folder)
        record = {
            "command": command,
            "seconds": round(time.monotonic() - began, 1),
            "processor_seconds": round(_processor_seconds() - before, 1),
            "machine": machine,
        }
        write_text(folder / "done" / f"{stage.name}.json", json.dumps(record) + "\n")


def read_record(folder: Path) -> dict:
    """Returns what a comparison in `folder` consists of: scale, seed, networks per holdout, names of stages, version.

    Raises:
        InputError: there is none.
    """
    path = Path(folder) / PLAN_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there: {folder} holds no comparison; pimms-tf study {folder} makes one"
        ) from None
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read ({error}); remove it and give pimms-tf study {folder} again"
        ) from error


def read_done(folder: Path, name: str) -> dict | None:
    """Returns the record of a stage (see `run_stages`), None if it is not done."""
    try:
        return json.loads((Path(folder) / "done" / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _processor_seconds() -> float:
    """Of the commands that have ended; 0 where the system does not tell."""
    times = os.times()
    return times.children_user + times.children_system


def _begin(plan: Plan, folder: Path) -> None:
    mine = {
        "scale": plan.scale,
        "seed": plan.seed,
        "networks": {holdout: list(names) for holdout, names in plan.networks.items()},
        "stages": [stage.name for stage in plan.stages],
    }
    path = folder / PLAN_FILE
    if path.is_file():
        before = read_record(folder)
        if other := [name for name in mine if before.get(name) != mine[name]]:
            was = f"{other[0]} {before.get(other[0])}"
            raise InputError(f"{folder} holds another comparison ({was}); give the same options, or another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is no comparison; give another folder")
    for name, text in plan.files.items():
        file = folder / name
        # A file that the user has changed since stays as it is.
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, text)
    if not path.is_file():
        write_text(path, json.dumps(mine | {"version": __version__}, indent=1) + "\n")


def _run(stage: Stage, folder: Path) -> None:
    log = folder / "logs" / f"{stage.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if stage.words[0] == "simulate":
        # Simulations do not go on; what one left that was stopped is made again in the same way.
        shutil.rmtree(folder / stage.words[1], ignore_errors=True)
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "pimms_tf", *stage.words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            check=False,
        )
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = f": {lines[-1].removeprefix('error: ')}" if lines else ""
        raise InputError(
            f"pimms-tf {' '.join(stage.words)} ended with code {done.returncode} in {folder}{why} (log: {log}); "
            "mend it and give the same command again, which goes on from there"
        )
