"""The model folder: where checkpoints, logs and settings lie, and which iteration is the latest.

Source: `niftynet/engine/application_driver.py`, `handler_model.py`, `niftynet/io/misc_io.py`.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None

from niftynet_compat.paths import expanded
from niftynet_compat.schema.programs import canonical_action
from pimms_tf.errors import ConfigError
from pimms_tf.files import sweep

_LATEST = re.compile(r'^model_checkpoint_path:\s*"(?P<path>.*)"\s*$', re.MULTILINE)
_INDEX_END = bytes.fromhex("57fb808b247547db")  # the last eight bytes of every index file


@dataclass(frozen=True)
class ModelDir:
    """A model folder in NiftyNet's layout; nothing is created until `prepare` or `logs`."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", expanded(self.root))

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, `models`."""
        return self.root / "models"

    def checkpoint(self, iteration: int) -> Path:
        """Returns the prefix of the files of a checkpoint, `models/model.ckpt-N`."""
        return self.checkpoints / f"model.ckpt-{iteration}"

    def iterations(self) -> list[int]:
        """Returns the iterations whose checkpoint is complete on disk (has an index file), ascending."""
        found = [re.fullmatch(r"model\.ckpt-(\d+)\.index", path.name) for path in self.checkpoints.glob("model.ckpt-*")]
        return sorted(int(match[1]) for match in found if match)

    def latest_iteration(self) -> int:
        """Returns the iteration that `models/checkpoint` names as the latest.

        Raises:
            ConfigError: that file is missing or names no iteration.
        """
        path = self.checkpoints / "checkpoint"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(self._nothing_to_start_from(f"{path} is not there")) from None
        match = _LATEST.search(text)
        number = match and re.search(r"-(\d+)$", match["path"])
        if not number:
            raise ConfigError(self._nothing_to_start_from(f"{path} has no line `model_checkpoint_path`"))
        return int(number[1])

    def newest(self) -> int | None:
        """Returns the latest complete checkpoint: the one that is named as such, or the highest; None without any.

        Without a name there is one if a process was killed at its first save, between checkpoint and name.
        """
        present = self.iterations()
        try:
            named = self.latest_iteration()
        except ConfigError:
            named = None
        return named if named in present else max(present, default=None)

    def resolve(self, starting_iter: int, *, zero_is_random: bool = True) -> int:
        """Returns the iteration meant by `starting_iter`: below 0 the latest checkpoint, N that very one.

        0 means random initialisation, which needs no file; for `inference_iter` give `zero_is_random=False`.

        Raises:
            ConfigError: no checkpoint at all, none of that number, or one that NiftyNet wrote.
        """
        if starting_iter == 0 and zero_is_random:
            return 0
        number = self.latest_iteration() if starting_iter < 0 else starting_iter
        present = self.iterations()
        if number not in present:
            have = f"it holds {', '.join(map(str, present))}" if present else "it holds no checkpoint"
            raise ConfigError(
                f"{self.checkpoint(number)}.index is not there, but iteration {number} is asked for; {have}"
            )
        if self.is_niftynets(number):
            raise ConfigError(f"{self.checkpoint(number)} was written by NiftyNet; {self._import(number)}")
        return number

    def is_niftynets(self, iteration: int) -> bool:
        """Returns whether a checkpoint holds variables under other names than ours, which all begin with `pimms/`."""
        index = Path(f"{self.checkpoint(iteration)}.index").read_bytes()
        # The index is a sorted table that leaves out what a name shares with the one before it; nothing of ours that
        # comes before `pimms/` begins with a p, so the word stands there as it is.
        return index.endswith(_INDEX_END) and b"pimms/" not in index and b"iteration" not in index

    def check_unused(self) -> None:
        """Nothing, if training from random weights would write over no checkpoint.

        Raises:
            ConfigError: it would.
        """
        present = self.iterations()
        if not present:
            return
        whose = "NiftyNet's checkpoints" if self.is_niftynets(present[-1]) else "checkpoints"
        way = self._import(present[-1]) if whose != "checkpoints" else "set [PIMMS] resume = True to go on"
        raise ConfigError(
            f"model_dir {self.root} holds {whose} up to iteration {present[-1]} and starting_iter = 0 would write over "
            f"them; {way}, or give another model_dir"
        )

    def logs(self, resume: bool = False) -> Path:
        """Returns `logs/<n>`, the folder of event records: the highest n present if `resume`, else the next one."""
        folder = self.root / "logs"
        numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
        highest = max(numbers, default=-1)
        return folder / str(max(highest, 0) if resume else highest + 1)

    def settings_file(self, action: str) -> Path:
        """Returns `settings_training.txt`, `settings_inference.txt` or `settings_evaluation.txt` in the folder."""
        return self.root / f"settings_{canonical_action(action)}.txt"

    def log_file(self, action: str) -> Path:
        """Returns `training_niftynet_log`, `inference_niftynet_log` or `evaluation_niftynet_log` in the folder."""
        return self.root / f"{canonical_action(action)}_niftynet_log"

    def prepare(self, action: str) -> "ModelDir":
        """Returns itself after making sure that the folder can be used; training creates what is missing.

        What killed processes have left half written there is removed. Only training needs to write there.

        Raises:
            ConfigError: the folder is a file, is missing though a model is needed, or cannot be written by training.
        """
        action = canonical_action(action)
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"model_dir {self.root} is a file; give a folder")
        if not self.root.is_dir() and action != "training":
            raise ConfigError(
                f"model_dir {self.root} is not there, but {action} needs one; train first, or correct the key"
            )
        obstacle = action == "training" and (self.obstacle() or _obstacle(self.checkpoints))
        if obstacle:
            raise ConfigError(
                f"model_dir {self.root} cannot be written ({obstacle}); change its permissions or choose another folder"
            )
        for folder in (self.root, self.checkpoints, self.checkpoints / "best"):
            sweep(folder)
        return self

    def obstacle(self) -> str:
        """Returns why nothing can be written into the folder, which is made if it is missing; "" if it can."""
        return _obstacle(self.root)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other trainings out of the folder, which must be there, while it lasts.

        The lock leaves no file behind and ends with the process; on a file system without locks nothing is kept out.

        Raises:
            ConfigError: another training is in it.
        """
        if fcntl is None:
            yield
            return
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"model_dir {self.root} is in use by another training, whose checkpoints this one would write "
                    "over; wait until it ends, or give another model_dir"
                ) from None
            except OSError:
                pass
            yield
        finally:
            os.close(descriptor)

    def _import(self, iteration: int) -> str:
        prefix = self.checkpoint(iteration)
        return f"pimms-tf import-checkpoint {prefix} --network NAME --output DIR makes a model_dir of it"

    def _nothing_to_start_from(self, why: str) -> str:
        present = self.iterations()
        if present:
            listed = ", ".join(map(str, present))
            return f"{why}, so the latest checkpoint is unknown; ask for one of the iterations {listed}"
        return f"{why}, so model_dir {self.root} has no checkpoint; train first, or correct model_dir"


def _obstacle(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, probe = tempfile.mkstemp(prefix=".probe.", dir=folder)
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        return error.strerror or str(error)
    return ""
