"""The versions of a model that lie in a folder, loaded as they appear and dropped as newer ones take over."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

log = logging.getLogger(__name__)

_SAVED_MODEL = "saved_model.pb"
_WARMUP = "assets.extra/tf_serving_warmup_requests"

Tensors = dict[str, np.ndarray]


class NoSuchVersionError(LookupError):
    """No version answers to a number, a label or a name; its text says what was asked for."""


@dataclass
class Status:
    """What has become of a version: START, LOADING, AVAILABLE, UNLOADING or END, with an error if it failed."""

    number: int
    state: str = "START"
    error: str = ""


@dataclass(frozen=True, eq=False)
class Version:
    """A loaded version."""

    number: int
    signatures: Mapping[str, meta_graph_pb2.SignatureDef]
    _functions: Mapping = field(repr=False)
    _model: object = field(repr=False)  # holds the variables

    def run(self, signature: str, inputs: Mapping[str, tf.Tensor], outputs: tuple[str, ...] = ()) -> Tensors:
        """What a signature answers, by name, or those that are asked for.

        Raises:
            tf.errors.OpError: the graph refuses the inputs.
        """
        found = self._functions[signature](**inputs)
        return {name: value.numpy() for name, value in found.items() if not outputs or name in outputs}


def load(folder: Path) -> Version:
    """The version in a folder, warmed up with the requests that lie in it.

    Raises:
        Exception: of any type, as damaged files have it.
    """
    graph = saved_model_pb2.SavedModel.FromString((folder / _SAVED_MODEL).read_bytes()).meta_graphs[0]
    model = tf.saved_model.load(str(folder))
    signatures = {name: each for name, each in graph.signature_def.items() if name in model.signatures}
    version = Version(int(folder.name), signatures, dict(model.signatures), model)
    if (folder / _WARMUP).is_file():
        for record in tf.data.TFRecordDataset(str(folder / _WARMUP)):
            request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            version.run(request.model_spec.signature_name, inputs)
    return version


class Versions:
    """The newest versions below a folder; `refresh` looks again.

    A version that cannot be loaded is tried again when its files change; until then those before it go on answering.
    Requests that have begun keep their version until they end.
    """

    def __init__(self, base: Path, count: int, labels: Mapping[str, int]) -> None:
        self.base, self.labels, self._count = base, dict(labels), count
        self._loaded: dict[int, Version] = {}
        self._status: dict[int, Status] = {}
        self._failed: dict[int, float] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Loads what is new, then drops what is no longer wanted; takes as long as loading takes."""
        while missing := self._wanted() - set(self._loaded):
            self._load(max(missing))
        there = {number for number in self._loaded if (self.base / str(number) / _SAVED_MODEL).is_file()}
        # Older ones stay until as many newer ones answer, and the last ones even if their folders have gone.
        stay = set(sorted(there or self._loaded)[-self._count :]) | set(self.labels.values())
        for number in sorted(set(self._loaded) - stay):
            with self._lock:
                del self._loaded[number]
            self._mark(number, "END")
            log.info("version %d is no longer served", number)

    def find(self, number: int | None = None, label: str | None = None) -> Version:
        """The version of a number or a label, else the newest.

        Raises:
            NoSuchVersionError: there is none.
        """
        if label is not None:
            if label not in self.labels:
                raise NoSuchVersionError(f"Unrecognized servable version label: {label}")
            number = self.labels[label]
        with self._lock:
            if number is None:
                number = max(self._loaded, default=None)
            if number in self._loaded:
                return self._loaded[number]
        raise NoSuchVersionError(f"Servable not found for request: version {'Latest' if number is None else number}")

    def status(self) -> list[Status]:
        """Of all versions that were seen, the newest first."""
        with self._lock:
            return [self._status[number] for number in sorted(self._status, reverse=True)]

    def _load(self, number: int) -> None:
        folder = self.base / str(number)
        changed = _changed(folder)
        self._mark(number, "LOADING")
        try:
            version = load(folder)
        except Exception as error:  # whatever is wrong with it, others go on answering
            text = " ".join(str(error).split())[:500] or type(error).__name__
            log.error("version %d cannot be loaded, so what was there goes on: %s", number, text)
            self._failed[number] = changed
            self._mark(number, "END", text)
            return
        with self._lock:
            self._loaded[number] = version
        self._mark(number, "AVAILABLE")
        log.info("version %d answers", number)

    def _wanted(self) -> set[int]:
        """The newest ones, and those with labels, of what is there and has not failed as it is now."""
        folders = {int(item.name): item for item in self.base.glob("*") if item.name.isdecimal()}
        sound = [n for n, item in sorted(folders.items()) if _changed(item) not in (0.0, self._failed.get(n))]
        return set(sound[-self._count :]) | (set(sound) & set(self.labels.values()))

    def _mark(self, number: int, state: str, error: str = "") -> None:
        with self._lock:
            self._status[number] = Status(number, state, error)


def _changed(folder: Path) -> float:
    """When the graph in a folder was written; 0 if there is none."""
    try:
        return (folder / _SAVED_MODEL).stat().st_mtime
    except OSError:
        return 0.0
