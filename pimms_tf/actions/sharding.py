"""Parts of a cohort for computers that work side by side, and the batch script that starts them."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pimms_tf.errors import InputError
from pimms_tf.files import replacing


class _Named(Protocol):
    subject_id: str


Files = TypeVar("Files", bound=_Named)


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


def write_batch_script(path: Path, command: Sequence[str], folder: Path, count: int) -> None:
    """Writes `batch_script` to a file that must not be there yet, since scripts are edited.

    Raises:
        InputError: it is there, or `count` is below 1.
    """
    if count < 1:
        raise InputError(f"--shards {count}: a cohort is segmented in 1 shard or more")
    if path.exists():
        raise InputError(f"{path} is there already and may have been edited; remove it, or give another --output")
    with replacing(path) as temporary:
        temporary.write_text(batch_script(command, folder, count), encoding="utf-8")


def batch_script(command: Sequence[str], folder: Path, count: int) -> str:
    """Returns a Slurm script that runs an inference command in so many shards, one task of an array each.

    Args:
        command: the words of `pimms-tf inference CONFIG …`, without options of shards.
        folder: where relative paths of the command and of the INI file start.
    """
    words = shlex.join(command)
    return f"""\
#!/bin/bash
# Inference of a cohort in {count} shards, each a task of its own. A second job makes the lists of the whole cohort:
#
#     job=$(sbatch --parsable THIS_FILE)
#     sbatch --dependency=afterok:"$job" --array=1 THIS_FILE merge
#
# Send shards that failed again by number, as in sbatch --array=3,5 THIS_FILE: what is done already is passed over. A
# subject with a mistake in its files fails its shard after the others in it are done; the log names it.
#
#SBATCH --job-name=pimms-tf
#SBATCH --array=1-{count}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --output=pimms-tf-%A_%a.log
#
# Add what your site asks for, such as #SBATCH --partition=… and --account=…, and --gres=gpu:1 where there are GPUs.

set -euo pipefail

# Load here what provides pimms-tf, such as a module or a virtual environment.

cd {shlex.quote(str(folder))}

if [ "${{1:-}}" = merge ]; then
    {words} --merge {count}
    exit
fi

srun {words} --shard "${{SLURM_ARRAY_TASK_ID}}/{count}" --resume
"""
