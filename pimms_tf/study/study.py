"""Study: one run, prepared. Which subjects, for what, prepared how, seen through which windows is decided here alone.

What trains, segments, merges, and what only says beforehand how that would go, all take the value made here.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from niftynet_compat import Config, ConfigError, Phase, SubjectFiles
from pimms_tf.data.intensity import LabelMapping
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.windows import check_border, resolve_window
from pimms_tf.errors import InputError
from pimms_tf.evaluation import modality_subsets
from pimms_tf.inference.outputs import class_table_name, image_name, subset_folder
from pimms_tf.inference.preparation import Preparation
from pimms_tf.study import cohort, mappings, task
from pimms_tf.study.bundled import with_bundled
from pimms_tf.study.cohort import Cohort
from pimms_tf.study.overwriting import refuse_overwriting
from pimms_tf.study.preparing import augmentation_of, preparation_of
from pimms_tf.study.task import Task
from pimms_tf.wording import counted, some_of

log = logging.getLogger(__name__)

# What a mistake is about.
SETTINGS, SUBJECTS, MODEL, PHASES = "Settings", "Subjects", "Model folder", "Phases"

Axes3 = tuple[int, int, int]
# What becomes of mistakes about a topic: a run lets the first one through; a dry run notes each and goes on.
Heed = Callable[[str], AbstractContextManager[None]]


def let_through(topic: str) -> AbstractContextManager[None]:
    """What a run does with mistakes."""
    return nullcontext()


@dataclass(frozen=True)
class Study:
    """One run, prepared. Nothing was written for it, and of images only names were looked at.

    Args:
        config: the settings that all else follows from.
        task: what is asked of the network.
        cohort: all subjects found, kept or dropped.
        split: what each subject is for, as on file or as drawn; None where nothing divides them.
        phases: the subjects that this run uses, by what for: training and validation, or inference.
        loader: what prepares them. Training has yet to learn landmarks and codes; see `mappings.with_mappings`.
        window: voxels along x, y, z of the windows, 0 for the whole axis; None only after mistakes of a dry run.
        border: voxels that inference cuts off each side of a window.
        whole_slices: whether inference takes whole slices instead of windows.
        codes: the codes in which inference writes classes; None for the classes themselves.
        start: the iteration that training goes on from, 0 for a new model.
    """

    config: Config
    task: Task
    cohort: Cohort
    split: Mapping[str, Phase] | None
    phases: Mapping[Phase, tuple[SubjectFiles, ...]]
    loader: SubjectLoader
    window: Axes3 | None
    border: Axes3 = (0, 0, 0)
    whole_slices: bool = False
    codes: LabelMapping | None = None
    start: int = 0

    @property
    def training(self) -> tuple[SubjectFiles, ...]:
        """The subjects that are trained on."""
        return self.phases.get(Phase.TRAINING, ())

    @property
    def validation(self) -> tuple[SubjectFiles, ...]:
        """The subjects that validations look at."""
        return self.phases.get(Phase.VALIDATION, ())

    @property
    def used(self) -> tuple[SubjectFiles, ...]:
        """All subjects that the run reads."""
        return tuple(files for part in self.phases.values() for files in part)

    @property
    def preparation(self) -> Preparation:
        """The record of how scans are prepared, and of the network and its use at inference."""
        return preparation_of(self.config, self.task, self.loader.mapping)

    @property
    def resumes(self) -> bool:
        """Whether training goes on from a checkpoint."""
        return self.config.training.starting_iter != 0


def training_study(config: Config, heed: Heed = let_through) -> Study:
    """Returns the study that trains as the configuration says; logs which subjects take part, and which do not and why.

    Raises:
        ConfigError, InputError: a mistake in the configuration, or no subjects to train on. With another `heed` there
            are none, and the study has what could be found all the same.
    """
    config = with_bundled(config)
    asked, window, start, interpolates = task.task_of(config), None, 0, False
    with heed(SETTINGS):
        window = task.window_of(config, "training")
        task.check_rank(config, window)
    _check_settings(config, asked, heed, asked.segments)
    with heed(SETTINGS):
        task.check_sampler(config, asked)
        interpolates = augmentation_of(config).interpolates_scans
    with heed(MODEL):
        start = task.starting_iteration(config, asked)
    needs_label = asked.segments and asked.label is not None
    found = _found(config, asked, heed, needs_label)
    split, phases = None, {}
    if found.subjects:
        with heed(PHASES):
            split = cohort.phases_of(config, found.subjects)
            phases = {
                phase: tuple(cohort.subjects_in_phase(found.subjects, split, phase, config))
                for phase in (Phase.TRAINING, Phase.VALIDATION)
            }
            counts = ", ".join(f"{len(part)} for {phase}" for phase, part in phases.items())
            log.info("%s, of which %s", counted(len(found.subjects), "subject"), counts)
            _check_validation(config, phases)
    with heed(SETTINGS):
        refuse_overwriting(config, filter(None, [config.histogram_file]))
    loader = cohort.subject_loader(config, asked, needs_label, interpolates)
    return Study(config, asked, found, split, phases, loader, window, start=start)


def inference_study(config: Config, heed: Heed = let_through) -> Study:
    """Returns the study that segments a cohort as the configuration says; logs what `training_study` does.

    Raises:
        ConfigError, InputError: as `training_study`.
    """
    config = with_bundled(config)
    asked, window, border, whole_slices, codes = task.task_of(config), None, (0, 0, 0), False, None
    with heed(SETTINGS):
        window = task.window_of(config, "inference")
        task.check_slices(config, asked, window)
        border = _checked_border(config, window)
    if window is not None:
        with heed(SETTINGS):
            whole_slices = _takes_slices(config, asked)
    _check_settings(config, asked, heed, asked.segments and config.task.label_normalisation)
    with heed(SETTINGS):
        task.check_subsets(config, asked)
        if len(asked.scans) > 1:
            task.check_arrangement(config, len(asked.scans))
    found = _found(config, asked, heed, needs_label=False)
    split, phases = None, {}
    if found.subjects:
        with heed(PHASES):
            split = cohort.split_on_file(config)
            chosen = cohort.subjects_in_phase(found.subjects, split, config.inference.dataset_to_infer, config)
            phases = {Phase.INFERENCE: tuple(chosen)}
            wanted = config.inference.dataset_to_infer
            why = f"dataset_to_infer = {wanted}" if wanted else "dataset_to_infer is unset"
            origin = config.split_file if split is not None else "no split file"
            log.info("%d of %s (%s; %s)", len(chosen), counted(len(found.subjects), "subject"), why, origin)
        with heed(SETTINGS):
            ids = [files.subject_id for files in found.subjects]
            refuse_overwriting(config, results_of_inference(config, asked, ids))
    loader = cohort.subject_loader(config, asked, needs_label=False)
    with heed(MODEL):
        loader = mappings.with_mappings(loader, config, asked)
        if asked.label is not None and config.task.label_normalisation:
            codes = mappings.label_codes(config, asked.label)
    return Study(config, asked, found, split, phases, loader, window, border, whole_slices, codes)


def results_of_inference(config: Config, asked: Task, subject_ids: Sequence[str]) -> list[Path]:
    """The files that inference writes into the folders of results.

    Raises:
        ConfigError: `output_postfix` makes paths of names.
    """
    postfix, form = config.inference.output_postfix, config.pimms.output_names
    if "/" in postfix or "\\" in postfix or not postfix.isprintable():
        raise ConfigError(
            f"[INFERENCE] output_postfix = {postfix!r} would put results elsewhere; give the end of a file name",
            path=config.path,
        )
    files = []
    for subset in modality_subsets(task.real_modalities(asked)) if config.pimms.subsets else [()]:
        folder = subset_folder(config.save_seg_dir, subset)
        files += [folder / "inferred.csv", folder / "modality_scores.csv"]
        if asked.segments:
            files += [folder / image_name(subject_id, postfix, form) for subject_id in subject_ids]
        elif form == "niftynet06":
            files += [folder / class_table_name(subject_id, postfix) for subject_id in subject_ids]
    return files


def with_learnt(study: Study, store: bool = True, landmarks_from: Sequence[SubjectFiles] | None = None) -> Study:
    """The study with all that preparation learns from its training subjects, or finds on file.

    What the files lack is put there, unless `store` is False; a trial may take `landmarks_from` fewer subjects.
    """
    loader = mappings.with_mappings(study.loader, study.config, study.task, study.training, store, landmarks_from)
    return replace(study, loader=loader)


def check_volumes(study: Study) -> None:
    """Reads the headers of all subjects: the files of each lie on one grid, and a window fits into it.

    Raises:
        InputError: there are subjects whose files cannot be used, which are named, and why the first cannot; or a
            window does not fit into a volume.
    """
    refused: dict[str, str] = {}
    shapes: dict[str, Axes3] = {}
    for files in study.used:
        try:
            shapes[files.subject_id] = study.loader.prepared_shape(files.images, files.subject_id)
        except InputError as error:
            refused[files.subject_id] = str(error)
    if refused:
        first = next(iter(refused.values()))
        every = f"{len(refused)} of {len(study.used)} subjects cannot be used: {some_of(refused)}; the first of them: "
        raise InputError(first if len(refused) == 1 else every + first)
    for subject_id, shape in shapes.items() if study.config.network.window_sampling != "resize" else ():
        try:
            resolve_window(shape, study.window)
        except InputError as error:
            raise error.within(subject=subject_id) from error


def _check_settings(config: Config, asked: Task, heed: Heed, needs_label: bool) -> None:
    if asked.segments:
        with heed(SETTINGS):
            task.check_num_classes(config, asked)
    if needs_label:
        with heed(SETTINGS):
            task.require_section(config, asked.label, "label")


def _found(config: Config, asked: Task, heed: Heed, needs_label: bool) -> Cohort:
    found = cohort.EMPTY
    with heed(SUBJECTS):
        found = cohort.find_cohort(config, asked, needs_label)
        cohort.say_cohort(asked, found)
        if not found.subjects:
            raise ConfigError(cohort.none_found(config, found))
    return found


def _checked_border(config: Config, window: Axes3) -> Axes3:
    border = task.border_of(config, window)
    if config.network.window_sampling != "resize":
        check_border([size if size > 0 else 2**31 for size in window], border)
    return border


def _takes_slices(config: Config, asked: Task) -> bool:
    try:
        return preparation_of(config, asked).takes_slices(config.pimms.inference_mode)
    except InputError as error:
        raise ConfigError(f"{config.path}: {error}") from None


def _check_validation(config: Config, phases: Mapping[Phase, tuple[SubjectFiles, ...]]) -> None:
    every = config.training.validation_every_n
    if every > 0 and not phases[Phase.VALIDATION]:
        raise ConfigError(
            f"{config.path}: validation_every_n = {every} needs validation subjects; set "
            "exclude_fraction_for_validation, or list some in dataset_split_file"
        )
