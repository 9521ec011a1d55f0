"""Training a study: plan → files of the model folder → network and windows → the loop."""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from niftynet_compat import Config, ModelDir, ini_text, write_split
from pimms_tf.actions.stopping import StopSignals
from pimms_tf.actions.waiting import Waits
from pimms_tf.actions.watched import WatchedBatches
from pimms_tf.cluster import cluster_for
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.files import replacing
from pimms_tf.inference.preparation import PREPARATION_FILE, write_preparation
from pimms_tf.pipeline.batches import BatchDataset
from pimms_tf.pipeline.cache import CachedLoader, Prepared
from pimms_tf.pipeline.keys import settings_key
from pimms_tf.study import cohort, journal
from pimms_tf.study.network import network, train_step, validation_step
from pimms_tf.study.predicting import previewer, whole_volume_validation
from pimms_tf.study.study import Study, check_volumes, with_learnt
from pimms_tf.study.task import remark_on_modality_loss, write_settings
from pimms_tf.study.trained import warm_start
from pimms_tf.study.windows import training_windows, validation_windows
from pimms_tf.training import (
    Checkpoints,
    Hooks,
    Intervals,
    Metrics,
    Report,
    TrainingState,
    devices,
    mean_metrics,
    new_state,
)
from pimms_tf.training import train as run_loop
from pimms_tf.wording import some_of

log = logging.getLogger(__name__)


def train(
    study: Study,
    report: Callable[[Report], None],
    stop: StopSignals,
    prepared: Callable[[Prepared], None] | None = None,
    waiting: Callable[[str, float], None] | None = None,
) -> str:
    """Trains the study's network; returns "finished", "early" or "interrupted".

    `prepared` is called, by any thread, whenever one more subject is ready to be cut into windows; `waiting` whenever
    nothing else was said for some seconds, with what the run waits for and how long it does already.

    Raises:
        ConfigError, InputError: a mistake in the configuration or the data.
    """
    config = study.config
    if remark := remark_on_modality_loss(config):
        log.warning("%s", remark)
    cluster = cluster_for(config.pimms.strategy, os.environ)
    if cluster is not None and cluster.index > 0:
        waiting = _say_nothing
    with Waits(waiting) as waits, waits.on("reading the headers of the scans"):
        check_volumes(study)
    devices.prepare_machine(config.pimms.device_threads)
    strategy = devices.strategy(config.pimms.strategy, _num_gpus(config))
    chief = devices.is_chief(strategy)
    with devices.watched(strategy, config.pimms.worker_timeout), ExitStack() as held:
        waits = held.enter_context(Waits(waiting))
        devices.check_equal_plans(strategy, _plan(study))
        with waits.on("looking at the training subjects"):
            study = _begun(study, strategy, chief, held)
        report_prepared = prepared if chief else None
        loader = held.enter_context(cohort.caching(study.loader, config, len(study.used), report_prepared))
        with waits.on("building the network"):
            state = _new_state(study, strategy)
        checkpoints, best = _checkpoints(study, state, chief)
        _start(study, state, checkpoints)
        devices.check_equal_start(strategy, state.model, int(state.iteration.numpy()))
        step = waits.saying(lambda: _computing(watched.num_taken < 2), train_step(study, state, strategy))
        with waits.on("preparing the first subject"):
            batches = _batches(study, loader, state, strategy)
        # Several processes look for a stop together, between two iterations.
        stop.waits_for_others = devices.cluster_in(strategy) is not None
        left_at_once = (lambda work: work()) if stop.waits_for_others else stop.unless_asked
        awaiting = waits.saying(lambda: _filling(batches), left_at_once)
        watched = WatchedBatches(batches, study.task.num_classes if study.task.segments else 0, awaiting)
        validate = waits.saying("validating", _validation(study, loader, state, strategy))
        _say_amount_of_work(study, state, strategy)
        hooks = Hooks(
            report=watched.watching(lambda done: _report(done, stop, report if chief else None)),
            stopped=devices.agreed(strategy, stop.requested),
            preview=_preview(study, loader, state, chief),
            subjects_in=_naming_subjects(study, batches),
        )
        writer, validation_writer = _writers(study, chief)
        reason = run_loop(
            state,
            step,
            watched,
            lambda: left_at_once(validate),
            checkpoints,
            writer,
            _intervals(config),
            config.training.max_iter,
            validation_writer=validation_writer,
            best=best,
            hooks=hooks,
        )
        watched.say_classes()
        watched.say_times()
        devices.wait_for_all(strategy)  # a worker that leaves before the last file is written would be taken for dead
    return reason


def _say_nothing(what: str, seconds: float) -> None:
    """What a worker that is not the chief says of its waits."""


def _computing(first: bool) -> str:
    compiling = "computing the first iteration, for which TensorFlow compiles the network"
    return compiling if first else "computing an iteration"


def _filling(batches: BatchDataset) -> str:
    made, needed = batches.filled()
    return f"filling the queue: {made} of {needed} windows" if made < needed else "waiting for windows"


def _report(done: Report, stop: StopSignals, report: Callable[[Report], None] | None) -> None:
    stop.begun()
    if report is not None:
        report(done)


def _plan(study: Study) -> dict[str, str]:
    """What all workers must have in common; where files lie, and how they are read, may differ."""
    config = study.config
    pimms = replace(config.pimms, cache="", cache_gib=0.0, device_threads=0, worker_timeout=1.0)
    ids = {phase: [files.subject_id for files in part] for phase, part in study.phases.items()}
    return {
        "[NETWORK]": repr(config.network),
        "[TRAINING]": repr(config.training),
        f"[{config.task_name}]": repr(config.task),
        "[PIMMS]": repr(pimms),
        "the input sections": repr((settings_key(study.loader), study.window)),
        "the subjects for training or validation": repr(ids),
    }


def _begun(study: Study, strategy: tf.distribute.Strategy, chief: bool, held: ExitStack) -> Study:
    """The study with what is learnt from its training subjects; the model folder has all files but those of training.

    The chief alone writes files, those with what it learns among them; the other workers then read them.
    """
    with devices.chief_first(strategy):
        if chief:
            _write_first_files(study, held)
        study = with_learnt(study)
        codes = study.loader.label_mapping
        journal.mappings_ready(study.config, None if codes is None else codes.target)
        if chief:
            root = ModelDir(study.config.model_dir).root
            write_settings(study.config)
            with replacing(root / "settings_training.ini") as temporary:
                temporary.write_text(ini_text(study.config), encoding="utf-8")
            write_preparation(study.preparation, root / PREPARATION_FILE)
    return study


def _write_first_files(study: Study, held: ExitStack) -> None:
    """Takes the model folder for this training alone and writes which subjects are trained on."""
    config, folder = study.config, ModelDir(study.config.model_dir)
    held.enter_context(folder.prepare("train").alone())
    if not study.resumes and config.training.max_iter > 0:
        folder.check_unused()  # another training may have ended while this one looked at the data
    journal.begin(config)
    searched = journal.files_by_section(study.cohort.files)
    journal.write_lists(config, searched)
    journal.subjects(config, searched, study.split)
    journal.training_starts(config, study.phases)
    if study.split is not None and not config.split_file.is_file():
        write_split(config.split_file, study.split)


def _new_state(study: Study, strategy: tf.distribute.Strategy) -> TrainingState:
    training = study.config.training
    keras.utils.set_random_seed(study.config.pimms.seed)
    with strategy.scope():
        model = network(study.task)
        state = new_state(model, training.optimiser, training.lr, training.vars_to_freeze)
    devices.check_precision(study.config.pimms.precision)
    devices.set_precision(model, study.config.pimms.precision)
    journal.network_built(study.config, len(study.training), is_new=not study.resumes)
    return state


def _checkpoints(study: Study, state: TrainingState, writes: bool) -> tuple[Checkpoints, Checkpoints]:
    """The checkpoints of the run, and those of its best validations."""
    folder = ModelDir(study.config.model_dir).checkpoints
    part = state.model, state.optimizer, state.iteration
    latest = Checkpoints(folder, *part, study.config.training.max_checkpoints, writes=writes)
    return latest, Checkpoints(folder / "best", *part, 2, writes=writes)


def _start(study: Study, state: TrainingState, checkpoints: Checkpoints) -> None:
    """Loads the checkpoint that training goes on from, or the parts that were trained before."""
    if not study.resumes:
        warm_start(study.config, state.model)
        return
    checkpoints.restore(study.start, study.config.training.vars_to_restore)
    state.iteration.assign(study.start)


def _batches(
    study: Study, loader: SubjectLoader | CachedLoader, state: TrainingState, strategy: tf.distribute.Strategy
) -> BatchDataset:
    """What this process learns from: its rows of the batches that all processes learn from together."""
    batches = training_windows(study, loader, int(state.iteration.numpy()), _whole_batch(study, strategy))
    return batches.rows(*devices.rows_here(strategy, study.config.network.batch_size))


def _say_amount_of_work(study: Study, state: TrainingState, strategy: tf.distribute.Strategy) -> None:
    training = study.config.training
    trainable = sum(int(np.prod(variable.shape)) for variable in state.model.trainable_variables)
    log.info("%s: %s trainable parameters", study.config.network.name, f"{trainable:,}")
    epoch = len(study.training) * training.sample_per_volume / _whole_batch(study, strategy)
    log.info("max_iter = %d: %.1f epochs of %.1f iterations", training.max_iter, training.max_iter / epoch, epoch)
    if study.start >= training.max_iter:
        log.warning("iteration %d of max_iter = %d is there already; raise it", study.start, training.max_iter)


def _intervals(config: Config) -> Intervals:
    training = config.training
    return Intervals(
        summary=training.tensorboard_every_n,
        validation=training.validation_every_n,
        save=training.save_every_n,
        patience=training.patience if config.pimms.early_stopping else 0,
    )


def _naming_subjects(study: Study, batches: BatchDataset) -> Callable[[int], str]:
    """What names the subjects of an iteration's batch."""

    def names(iteration: int) -> str:
        return some_of(study.training[place].subject_id for place in batches.subjects_of(iteration - 1))

    return names


def _preview(
    study: Study, loader: SubjectLoader | CachedLoader, state: TrainingState, draws: bool
) -> Callable[[], np.ndarray | None]:
    if not draws:
        return lambda: None
    return previewer(study, loader, state.model, (study.validation or study.training)[0])


def _num_gpus(config: Config) -> int | None:
    """How many GPUs the user asks for, None without such a wish."""
    return None if config.origin("SYSTEM", "num_gpus") == "default" else config.system.num_gpus


def _whole_batch(study: Study, strategy: tf.distribute.Strategy) -> int:
    """The windows of the batches of all replicas together."""
    return strategy.num_replicas_in_sync * study.config.network.batch_size


def _writers(study: Study, writes: bool) -> list[tf.summary.SummaryWriter]:
    """Those of training and of validation."""
    if not writes:
        return [tf.summary.create_noop_writer()] * 2
    logs = ModelDir(study.config.model_dir).logs(resume=study.resumes)
    return [tf.summary.create_file_writer(str(logs / name)) for name in ("training", "validation")]


def _validation(
    study: Study, loader: SubjectLoader | CachedLoader, state: TrainingState, strategy: tf.distribute.Strategy
) -> Callable[[], Metrics | None]:
    """One pass over the validation subjects: windows of them, or with do_whole_volume_validation all of each."""
    config, subjects = study.config, study.validation
    if config.training.do_whole_volume_validation:
        validate = whole_volume_validation(study, loader, state.model, subjects)
        return lambda: Metrics(*devices.as_chief(strategy, validate())) if subjects else None
    check = validation_step(study, state, strategy)
    held_out = validation_windows(study, loader, _whole_batch(study, strategy))
    if subjects:
        held_out = held_out.rows(*devices.rows_here(strategy, config.network.batch_size))
    return lambda: mean_metrics(check(batch) for batch in held_out)
