"""Parts of a cohort for computers that work side by side, and the batch script that starts them."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pimms_tf.errors import InputError
from pimms_tf.files import replacing


class _Named(Protocol):
    subject_id: str


Files = TypeVar("Files", bound=_Named)

_MOST_TASKS = 1000  # of an array, as Slurm comes
_SITE = "Add what your site asks for, such as #SBATCH --partition=… and --account=…"


class Shard(NamedTuple):
    """Part `number`, from 1, of `count` parts of a cohort, which differ in size by one subject at most."""

    number: int
    count: int

    def part_of(self, subjects: Sequence[Files]) -> list[Files]:
        """The subjects of this shard, in the order given."""
        shards = shards_of([files.subject_id for files in subjects], self.count)
        return [files for files in subjects if shards[files.subject_id] == self]

    @property
    def suffix(self) -> str:
        """What is put before the `.csv` of its lists."""
        return f".shard-{self.number}-of-{self.count}"


def shards_of(subject_ids: Sequence[str], count: int) -> dict[str, Shard]:
    """The shard of each subject: they take turns in the order of their ids, wherever and in what order they were found.

    A subject that joins a cohort may move others to another shard; their records are found there all the same.
    """
    return {name: Shard(place % count + 1, count) for place, name in enumerate(sorted(subject_ids))}


def read_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """Returns the shard that `i/n` names, or for "slurm" that of this task of a Slurm array.

    Raises:
        InputError: another form; a number beyond the count; no task of an array, or one of an array with gaps, such as
            `--array=3,5` for those that have failed, whose tasks no longer know how many there were.
    """
    if text.lower() == "slurm":
        return _slurm_shard(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None:
        raise InputError(f"--shard {text} is not of the form i/n, such as 2/8, nor slurm")
    number, count = map(int, match.groups())
    if not 1 <= number <= count:
        raise InputError(f"--shard {text}: shards are numbered from 1 to {max(count, 1)}")
    return Shard(number, count)


def _slurm_shard(environment: Mapping[str, str]) -> Shard:
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
    given = [environment.get(name, "") for name in names]
    if not all(value.isdigit() for value in given):
        lacking = next(name for name, value in zip(names, given, strict=True) if not value.isdigit())
        raise InputError(f"--shard slurm needs a task of a Slurm array, but {lacking} is not set; give --shard i/n")
    task, first, last, count = map(int, given)
    if last - first + 1 != count:
        raise InputError(
            f"--shard slurm counts on an array without gaps, but this one has {count} tasks from {first} to {last}; "
            "give --shard i/n"
        )
    return Shard(task - first + 1, count)


def environment_command() -> list[str]:
    """The words that start pimms-tf of the environment that runs now, wherever they are run."""
    program = Path(sys.executable).parent / "pimms-tf"
    return [str(program)] if program.is_file() else [sys.executable, "-m", "pimms_tf"]


def remarks_on_count(count: int, num_subjects: int | None) -> list[str]:
    """Sentences about a number of shards that is more than a queue takes, or than there are subjects."""
    remarks = []
    if num_subjects is not None and 0 < num_subjects < count:
        idle = count - num_subjects
        remarks.append(f"there are {num_subjects} subjects, so that {idle} of the {count} shards are idle")
    if count > _MOST_TASKS:
        remarks.append(
            f"a Slurm array of {count} tasks needs a MaxArraySize above {count}, which is 1001 unless a site sets it: "
            "see scontrol show config"
        )
    return remarks


def write_batch_scripts(
    path: Path, command: Sequence[str], folder: Path, count: int, at_once: int = 0
) -> tuple[Path, Path]:
    """Writes the scripts of the shards, `path`, and of the merge beside it, and returns both.

    Neither must be there yet, since scripts are edited. `at_once` limits how many shards run at a time, 0 does not.

    Raises:
        InputError: one is there, `count` is below 1 or `at_once` below 0.
    """
    if count < 1:
        raise InputError(f"--shards {count}: a cohort is segmented in 1 shard or more")
    if at_once < 0:
        raise InputError(f"--at-once {at_once}: give how many shards may run at a time, or 0 for no limit")
    merge = path.with_suffix(f".merge{path.suffix}")
    for script in (path, merge):
        if script.exists():
            raise InputError(f"{script} is there already and may have been edited; remove it, or give another --output")
    texts = batch_script(command, folder, count, at_once, path, merge), merge_script(command, folder, count)
    for script, text in zip((path, merge), texts, strict=True):
        with replacing(script) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return path, merge


def batch_script(
    command: Sequence[str],
    folder: Path,
    count: int,
    at_once: int = 0,
    path: Path = Path("run.sbatch"),
    merge: Path = Path("run.merge.sbatch"),
) -> str:
    """Returns a Slurm script that runs an inference command in so many shards, one task of an array each.

    Args:
        command: the words of `pimms-tf inference CONFIG …`, without options of shards.
        folder: where relative paths of the command and of the INI file start.
        at_once: how many shards run at a time, 0 for all.
        path, merge: where the script will lie, and that of the merge.
    """
    first = "\n".join(f"#     {line}" for line in submission(path, merge))
    again = "\n".join(f"#     {line}" for line in submission(path, merge, "3,5"))
    return f"""\
#!/bin/bash
# Inference of a cohort in {count} shards, each a task of its own. A job of its own then makes the lists of all:
#
{first}
#
# The merge runs whether or not all shards were done. If one was not, it writes nothing and names the subjects that lack
# a result and their shards. Send these again, and the merge behind them; what is done already is passed over:
#
{again}
#
# A subject with a mistake in its files fails its shard after the others in it are done; the log names it.
#
#SBATCH --job-name=pimms-tf
#SBATCH --array=1-{count}{f"%{at_once}" if at_once else ""}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --output=pimms-tf-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#
# {_SITE}, and --gres=gpu:1 where there are GPUs. --array=1-{count}%10
# would run ten shards at a time.

set -euo pipefail
cd {shlex.quote(str(folder))}
# srun gives a step the processors of its task only if it is told to.
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-1}}"
srun {shlex.join(command)} --shard "${{SLURM_ARRAY_TASK_ID}}/{count}" --resume
"""


def submission(path: Path, merge: Path, shards: str = "") -> list[str]:
    """Returns the two lines for a shell that send the script of the shards, of these only if any are named, and the
    merge behind it."""
    array, own, other = shards and f"--array={shards} ", shlex.quote(str(path)), shlex.quote(str(merge))
    return [f"job=$(sbatch --parsable {array}{own})", f'sbatch --dependency=afterany:"$job" {other}']


def merge_script(command: Sequence[str], folder: Path, count: int) -> str:
    """Returns the Slurm script that makes the lists of a cohort done in `count` shards; see `batch_script`."""
    return f"""\
#!/bin/bash
# Makes the lists of a cohort that was segmented in {count} shards; it computes nothing.
#
#SBATCH --job-name=pimms-tf-merge
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=00:30:00
#SBATCH --output=pimms-tf-merge-%j.log
#SBATCH --open-mode=append
#SBATCH --kill-on-invalid-dep=yes
#
# {_SITE}.

set -euo pipefail
cd {shlex.quote(str(folder))}
{shlex.join(command)} --merge {count}
"""
