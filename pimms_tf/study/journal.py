"""What a run says in NiftyNet's words, for its log file and for the consoles of `net_segment` and the like.

Only what happens here as it does there is said: there are no event handlers and no samplers with queues, so their
lines are missing, but for those that programs take for the end of a phase.

Source: `niftynet/engine/application_driver.py`, `handler_console.py`, `niftynet/io/`; recorded logs.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from niftynet_compat import Config, Discovery, ModelDir, Phase, SubjectFiles, read_split
from niftynet_compat.runs.console import JOURNAL, begin_log, iteration_line, partition_lines
from niftynet_compat.subjects.lists import write_file_list
from pimms_tf.study.task import notes

if TYPE_CHECKING:
    from pimms_tf.training import Report

_NAMES = {"SEGMENTATION": "Segmentation", "CLASSIFICATION": "Classification", "MULTITASK": "Multitask"}

_journal = logging.getLogger(JOURNAL)
log = logging.getLogger(__name__)


@contextmanager
def application(config: Config) -> Iterator[None]:
    """Says when a run starts and how long it took, however it ends."""
    began = time.perf_counter()
    _say_initial_iteration(config)
    name = _NAMES[config.task_name]
    _journal.info("starting %s application", name.lower())
    try:
        yield
    except KeyboardInterrupt:
        _journal.warning("User cancelled application")
        raise
    except Exception as error:
        _journal.error("%s", error)
        _journal.warning("stopped early, incomplete iterations.")
        raise
    else:
        _journal.info("cleaning up..." if config.action != "evaluation" else "Cleaning up...")
        if config.action == "training":
            _journal.info("stopping sampling threads")
    finally:
        _journal.info("%sApplication stopped (time in second %.2f).", name, time.perf_counter() - began)


def _say_initial_iteration(config: Config) -> None:
    asked = {"training": config.training.starting_iter, "inference": config.inference.inference_iter}
    folder = ModelDir(config.model_dir)
    # Without a readable checkpoint the run itself finds out, and says so.
    if asked.get(config.action, 0) < 0 and folder.iterations() and (folder.checkpoints / "checkpoint").is_file():
        _journal.info("set initial_iter to %d based on checkpoints", folder.latest_iteration())


def begin(config: Config) -> None:
    """Opens the log file in the folder of notes; all lines of the run so far go into it, too."""
    begin_log(notes(config).log_file(config.action))


def write_lists(config: Config, found: Mapping[str, Mapping[str, Path]]) -> None:
    """Writes `<SECTION>.csv` beside the split file for each section that was searched: {section: {subject: file}}.

    An earlier list is overwritten, as in NiftyNet; a file that this configuration reads or that holds results is not.
    A folder that cannot be written is worth a warning, since nothing here reads the lists again.
    """
    folder = config.split_file.parent
    if folder == ModelDir(config.model_dir).root:
        folder = notes(config).root
    from pimms_tf.study.overwriting import InputFiles  # brings SciPy, which the command line does without until here

    inputs = InputFiles(config)
    results = [config.save_seg_dir / name for name in ("inferred.csv", "modality_scores.csv")]
    for name, files in found.items():
        section, path = config.inputs[name], folder / f"{name}.csv"
        if section.csv_file:
            _journal.info("[%s] using existing csv file %s, skipped filenames search", name, section.csv_file)
            continue
        if path in results or inputs.owner_of(path):
            log.warning("[%s] the list of files found is not written, because %s is in use", name, path)
            continue
        _journal.info('`csv_file = ` not found, writing to "%s" instead.', path)
        if path.is_file():
            _journal.info('Overwriting existing: "%s".', path)
        _journal.info("[%s] search file folders, writing csv file %s", name, path)
        try:
            write_file_list(path, files)
        except OSError as error:
            log.warning("[%s] the list of files found is not written: %s: %s", name, path, error.strerror)


def files_by_section(found: Discovery) -> dict[str, dict[str, Path]]:
    """Returns {section: {subject: file}} of all that was found, used or not."""
    return {
        name: {subject.subject_id: subject.images[name] for subject in found.subjects if name in subject.images}
        for name in found.found
    }


def subjects(config: Config, found: Mapping[str, Mapping[str, Path]], split: Mapping[str, Phase] | None) -> None:
    """Says how many subjects there are and how they are divided."""
    if config.split_file.is_file():
        _journal.warning("Loading from existing partitioning file %s, ignoring partitioning ratios.", config.split_file)
    ids = {subject_id for files in found.values() for subject_id in files}
    counts = None
    if split is not None:
        counts = {phase.value: sum(split.get(subject_id) is phase for subject_id in ids) for phase in Phase}
    _journal.info("%s", partition_lines(list(found), len(ids), counts))


def _split_on_file(config: Config) -> dict[str, Phase] | None:
    return read_split(config.split_file) if config.split_file.is_file() else None


def reader(config: Config, num_subjects: int, *keys: str) -> None:
    """Says how many subjects are read from which sections, for each key of the task that names any."""
    for key in keys:
        if config.sources(key):
            text = "Image reader: loading %d subjects from sections %s as input [%s]"
            _journal.info(text, num_subjects, config.sources(key), key)


def training_starts(config: Config, parts: Mapping[Phase, Sequence[SubjectFiles]]) -> None:
    """Says which subjects are read, for training and, if there is any, for validation."""
    validates = config.training.validation_every_n > 0
    for phase in (Phase.TRAINING, Phase.VALIDATION)[: 2 if validates else 1]:
        reader(config, len(parts[phase]), "image", "label", "weight", "sampler", "modalities")


def inference_starts(
    config: Config,
    found: Mapping[str, Mapping[str, Path]],
    chosen: Sequence[SubjectFiles],
    writes_lists: bool = True,
) -> None:
    """Opens the log file, writes the lists and says which subjects are read."""
    begin(config)
    if writes_lists:
        write_lists(config, found)
    subjects(config, found, _split_on_file(config))
    reader(config, len(chosen), "image")
    mappings_ready(config, None)


def evaluation_starts(config: Config, references: Mapping[str, Path], num_inferred: int) -> None:
    """Opens the log file, writes the lists and says which subjects are read."""
    begin(config)
    label = config.sources("label")[0]
    write_lists(config, {label: references})
    subjects(config, {label: references}, _split_on_file(config))
    reader(config, len(references), "label")
    text = "Image reader: loading %d subjects from sections %s as input [inferred]"
    _journal.info(text, num_inferred, config.sources("inferred") or ("inferred",))


def mappings_ready(config: Config, labels: Sequence[int] | None) -> None:
    """Says that landmarks, and with `labels` the classes of label codes, are there."""
    if config.network.normalisation:
        _journal.info("normalisation histogram reference models ready for image:%s", config.sources("image"))
    if labels is not None:
        text = "label mapping ready for label:%s, %d classes"
        _journal.info(text, config.sources("label"), len(set(labels)))


def network_built(config: Config, num_subjects: int = 0, *, is_new: bool = False) -> None:
    """Says which network is used, for training with how many subjects, and whether its weights come from chance."""
    queue, wanted = config.network.queue_length, 5 * config.network.batch_size
    if config.action == "training" and queue < wanted:
        text = "sampler queue_length should be larger than batch_size, defaulting to batch_size * 5.0 (%d)."
        _journal.warning(text, wanted)
    _journal.info("using %s", config.network.name)
    if config.action == "training":
        _journal.info("Initialising Dataset from %d subjects...", num_subjects)
    # Where they come from files, reading them logs it.
    if is_new and config.segmenter_dir is None and config.classifier_dir is None:
        _journal.info("Parameters from random initialisations ...")


def grid_sampling(image: Sequence[int], window: Sequence[int]) -> None:
    """Says the size (x, y, z, scan) of a prepared image and (x, y, z) of its windows, 0 being the full axis."""
    *space, scans = image
    sizes = [size if size > 0 else length for size, length in zip(window, space, strict=True)]
    for what, size in (("image", space), ("window", sizes)):
        _journal.info("grid sampling %s sizes: %s", what, {"image": (*size, 1, scans)})


def say(message: str, *values: object) -> None:
    """Says one line."""
    _journal.info(message, *values)


def reporter(config: Config) -> Callable[["Report"], None]:
    """Returns what says each iteration of training or validation, with the losses that NiftyNet names."""

    def report(done: "Report") -> None:
        loss = (
            {"data_loss": done.metrics.modality_loss}
            if config.task_name == "CLASSIFICATION"
            else {"loss": done.metrics.segmentation_loss}
        )
        values = {"total_loss": done.metrics.total_loss} | loss
        _journal.info("%s", iteration_line(done.phase, done.iteration, values, done.seconds))

    return report


def also(report: "Callable[[Report], None]", config: Config) -> "Callable[[Report], None]":
    """Returns what does both: `report` and what `reporter` says."""
    second = reporter(config)

    def both(done: "Report") -> None:
        report(done)
        second(done)

    return both


def batch_reporter() -> Callable[[float], None]:
    """Returns what says each batch of inference, given how many seconds it took; they are counted from 0."""
    numbers = itertools.count()
    return lambda seconds: _journal.info("%s", iteration_line("inference", next(numbers), {}, seconds))
