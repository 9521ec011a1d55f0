"""The meeting point: settings → objects → train, inference, evaluation or export."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from niftynet_compat import Config, ConfigError, ModelDir, Phase, SubjectFiles, ini_text, write_split
from pimms_tf import cohort, journal, settings
from pimms_tf.data.pipeline import Batch
from pimms_tf.data.subjects import SubjectLoader
from pimms_tf.evaluation.results import some_of
from pimms_tf.files import replacing
from pimms_tf.inference import ExportInfo, export_saved_model, verify_export
from pimms_tf.predicting import inference, previewer, whole_volume_validation
from pimms_tf.scoring import evaluation
from pimms_tf.task import Task, task_of
from pimms_tf.trained import trained_model, warm_start
from pimms_tf.training import (
    Checkpoints,
    Intervals,
    Metrics,
    Report,
    Schedule,
    TrainingState,
    exponential_decay,
    make_train_step,
    make_validation_step,
    mean_metrics,
    new_state,
)
from pimms_tf.training import train as run_loop
from pimms_tf.watched import WatchedBatches

__all__ = ["evaluation", "export", "inference", "train"]

log = logging.getLogger(__name__)

_NO_CLASSIFIER = r"^(?!.*/classifier/)"  # paths of variables that are not the classifier's


def train(config: Config, report: Callable[[Report], None], stopped: Callable[[], bool]) -> str:
    """Trains as the configuration says; returns "finished", "early" or "interrupted".

    Raises:
        ConfigError, InputError: a mistake in the configuration or the data.
    """
    task = task_of(config)
    segments = task.variant != "classifier"
    if segments:
        settings.require_section(config, task.label, "label")
        settings.check_num_classes(config, task)
    settings.check_sampler(config, task)
    window = settings.window_of(config, "training")
    settings.prepare_machine(config)
    folder = ModelDir(config.model_dir)
    start = folder.resolve(config.training.starting_iter)
    resumes = config.training.starting_iter != 0
    if not resumes and folder.iterations() and config.training.max_iter > 0:
        raise ConfigError(
            f"model_dir {folder.root} holds checkpoints up to iteration {folder.iterations()[-1]} and "
            "starting_iter = 0 would write over them; give --starting_iter -1 to go on, or another model_dir"
        )
    if not resumes:
        settings.check_parts(config, task)
    found = cohort.find_cohort(config, task, needs_label=segments)
    subjects = cohort.task_subjects(config, task, segments, found)
    phases = cohort.phases_of(config, subjects)
    parts = {
        phase: cohort.subjects_in_phase(subjects, phases, phase, config) if phases or phase is Phase.TRAINING else []
        for phase in (Phase.TRAINING, Phase.VALIDATION)
    }
    log.info(
        "%d subjects, of which %s",
        len(subjects),
        ", ".join(f"{len(part)} for {phase}" for phase, part in parts.items()),
    )
    if config.training.validation_every_n > 0 and not parts[Phase.VALIDATION]:
        raise ConfigError(
            f"{config.path}: validation_every_n = {config.training.validation_every_n} needs validation subjects; set "
            "exclude_fraction_for_validation, or list some in dataset_split_file"
        )
    loader = cohort.subject_loader(config, task, needs_label=segments)
    used = [*parts[Phase.TRAINING], *parts[Phase.VALIDATION]]
    cohort.check_subjects(loader, used, None if config.network.window_sampling == "resize" else window)
    # From here on files are written.
    folder.prepare("train")
    journal.begin(config)
    searched = journal.files_by_section(found.files)
    journal.write_lists(config, searched)
    journal.subjects(config, searched, phases)
    journal.training_starts(config, parts)
    if phases is not None and not config.split_file.is_file():
        write_split(config.split_file, phases)
    loader = cohort.with_mappings(loader, config, task, learn_from=parts[Phase.TRAINING])
    journal.mappings_ready(config, None if loader.label_mapping is None else loader.label_mapping.target)
    settings.write_settings(config)
    with replacing(folder.root / "settings_training.ini") as temporary:
        temporary.write_text(ini_text(config), encoding="utf-8")

    keras.utils.set_random_seed(config.pimms.seed)
    strategy = tf.distribute.get_strategy()
    with strategy.scope():
        model = settings.network(task)
        freeze = config.training.vars_to_freeze
        state = new_state(model, config.training.optimiser, config.training.lr, freeze)
    checkpoints = Checkpoints(
        folder.checkpoints, model, state.optimizer, state.iteration, config.training.max_checkpoints
    )
    if resumes:
        checkpoints.restore(start, config.training.vars_to_restore)
        state.iteration.assign(start)
    else:
        warm_start(config, model)
    journal.network_built(config, len(parts[Phase.TRAINING]), folder.checkpoint(start) if resumes else None)
    step = train_step(config, task, state)
    batches = settings.training_windows(config, task, loader, parts[Phase.TRAINING], int(state.iteration.numpy()))
    watched = WatchedBatches(batches, task.num_classes if segments else 0)
    logs = folder.logs(resume=resumes)
    early = config.pimms.early_stopping
    intervals = Intervals(
        summary=config.training.tensorboard_every_n,
        validation=config.training.validation_every_n,
        save=config.training.save_every_n,
        patience=config.training.patience if early else 0,
    )
    best = Checkpoints(folder.checkpoints / "best", model, state.optimizer, state.iteration, max_to_keep=2)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    log.info("%s: %s trainable parameters", config.network.name, f"{trainable:,}")
    epoch = len(parts[Phase.TRAINING]) * config.training.sample_per_volume / config.network.batch_size
    log.info(
        "max_iter = %d: %.1f epochs of %.1f iterations",
        config.training.max_iter,
        config.training.max_iter / epoch,
        epoch,
    )
    if start >= config.training.max_iter:
        log.warning("iteration %d of max_iter = %d is there already; raise it", start, config.training.max_iter)
    reason = run_loop(
        state,
        step,
        watched,
        _validation(config, task, loader, state, parts[Phase.VALIDATION]),
        checkpoints,
        tf.summary.create_file_writer(str(logs / "training")),
        intervals,
        config.training.max_iter,
        validation_writer=tf.summary.create_file_writer(str(logs / "validation")),
        best=best,
        report=watched.watching(report),
        stopped=stopped,
        preview=previewer(config, task, loader, model, (parts[Phase.VALIDATION] or parts[Phase.TRAINING])[0]),
        subjects_in=lambda iteration: some_of(
            parts[Phase.TRAINING][place].subject_id for place in batches.subjects_of(iteration - 1)
        ),
    )
    watched.say_times()
    return reason


def train_step(config: Config, task: Task, state: TrainingState) -> Callable[[Batch], Metrics]:
    """What learns from one batch; with `curriculum_learning_iter` the first iterations train the classifier alone."""
    loss, objective = settings.objective_of(config, task)
    schedules = _modality_weight(config), exponential_decay(config.pimms.lr_decay, config.training.lr)
    strategy, first = tf.distribute.get_strategy(), config.training.curriculum_learning_iter

    def step_without(freeze: str) -> Callable[[Batch], Metrics]:
        weight, learning_rate = schedules
        return make_train_step(state, loss, weight, strategy, replace(objective, freeze=freeze), learning_rate)

    step = step_without(objective.freeze)
    if first <= 0:
        return step
    if task.variant != "online":
        log.warning(
            "curriculum_learning_iter = %d has no effect: %s has no classifier and segmenter that train together",
            first,
            config.network.name,
        )
        return step
    log.info("iterations up to %d train the classifier alone", first)
    alone = step_without("|".join(filter(None, (objective.freeze, _NO_CLASSIFIER))))
    return lambda batch: (alone if int(state.iteration.numpy()) < first else step)(batch)


def _validation(
    config: Config, task: Task, loader: SubjectLoader, state: TrainingState, subjects: Sequence[SubjectFiles]
) -> Callable[[], Metrics | None]:
    """One pass over the validation subjects: windows of them, or with do_whole_volume_validation all of each."""
    if config.training.do_whole_volume_validation:
        return whole_volume_validation(config, task, loader, state.model, subjects)
    loss, objective = settings.objective_of(config, task)
    strategy = tf.distribute.get_strategy()
    check = make_validation_step(state, loss, _modality_weight(config), strategy, objective)
    held_out = settings.validation_windows(config, task, loader, subjects)
    return lambda: mean_metrics(check(batch) for batch in held_out)


def _modality_weight(config: Config) -> Schedule:
    return exponential_decay(settings.modality_decay(config), config.pimms.modality_weight)


def export(config: Config, directory: Path, version: int | None = None) -> Path:
    """Writes the trained model as a SavedModel and proves that it answers as the one in memory; returns its folder."""
    task = task_of(config)
    settings.prepare_machine(config)
    model = trained_model(config, task)
    network = config.network
    info = ExportInfo(
        modalities=task.modalities,
        axcodes=tuple(config.common("image", "axcodes") or ()),
        pixdim_mm=tuple(config.common("image", "pixdim") or ()),
        whitening=network.whitening,
        foreground_type=network.foreground_type if network.normalise_foreground_only else "",
        foreground_fusion=network.multimod_foreground_type if network.normalise_foreground_only else "",
        landmarks=cohort.landmarks_by_modality(config, task),
        norm_type=network.norm_type if network.normalisation else "",
        cutoff=tuple(network.cutoff) if network.normalisation else (),
        window=tuple(settings.window_of(config, "inference")),
        border=settings.border_of(config, settings.window_of(config, "inference")),
    )
    path = export_saved_model(model, directory, version, info)
    proof = verify_export(path, model)
    log.info(
        "%d comparisons with the model in memory: largest difference %.1e",
        proof.num_comparisons,
        proof.largest_difference,
    )
    return path
