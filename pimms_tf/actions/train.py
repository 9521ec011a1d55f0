"""Training as a configuration says: settings → subjects → network and windows → the loop."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from niftynet_compat import Config, ConfigError, ModelDir, Phase, SubjectFiles, ini_text, write_split
from pimms_tf.actions.watched import WatchedBatches
from pimms_tf.data.subjects import SubjectLoader
from pimms_tf.evaluation.results import some_of
from pimms_tf.files import replacing
from pimms_tf.inference.preparation import PREPARATION_FILE, write_preparation
from pimms_tf.pipeline.batches import Batch
from pimms_tf.pipeline.cache import CachedLoader, Prepared
from pimms_tf.pipeline.entries import subject_key
from pimms_tf.study import cohort, journal, mappings, settings
from pimms_tf.study.predicting import previewer, whole_volume_validation
from pimms_tf.study.preparing import preparation_of
from pimms_tf.study.task import Task, check_rank, remark_on_modality_loss, task_of
from pimms_tf.study.trained import warm_start
from pimms_tf.training import (
    Checkpoints,
    Intervals,
    LossScale,
    Metrics,
    Report,
    Schedule,
    TrainingState,
    devices,
    exponential_decay,
    make_train_step,
    make_validation_step,
    mean_metrics,
    new_state,
)
from pimms_tf.training import train as run_loop

log = logging.getLogger(__name__)

_HERE = np.zeros(1, np.int32)  # what workers tell each other who only wait
_NO_CLASSIFIER = r"^(?!.*/classifier/)"  # paths of variables that are not the classifier's


def train(
    config: Config,
    report: Callable[[Report], None],
    stopped: Callable[[], bool],
    prepared: Callable[[Prepared], None] | None = None,
) -> str:
    """Trains as the configuration says; returns "finished", "early" or "interrupted".

    `prepared` is called, by any thread, whenever one more subject is ready to be cut into windows.

    Raises:
        ConfigError, InputError: a mistake in the configuration or the data.
    """
    task = task_of(config)
    segments = task.variant != "classifier"
    if segments:
        settings.require_section(config, task.label, "label")
        settings.check_num_classes(config, task)
    settings.check_sampler(config, task)
    if remark := remark_on_modality_loss(config):
        log.warning("%s", remark)
    window = settings.window_of(config, "training")
    check_rank(config, window)
    settings.prepare_machine(config)
    strategy = devices.strategy(config.pimms.strategy, _num_gpus(config))
    with devices.watched(strategy, config.pimms.worker_timeout), ExitStack() as held:
        return _train(config, task, window, strategy, report, stopped, prepared, held)


def _train(
    config: Config,
    task: Task,
    window: Sequence[int],
    strategy: tf.distribute.Strategy,
    report: Callable[[Report], None],
    stopped: Callable[[], bool],
    prepared: Callable[[Prepared], None] | None,
    held: ExitStack,
) -> str:
    segments, chief = task.variant != "classifier", devices.is_chief(strategy)
    everyone = devices.over_workers(strategy)
    folder = ModelDir(config.model_dir)
    start = folder.resolve(config.training.starting_iter)
    resumes = config.training.starting_iter != 0
    if not resumes and config.training.max_iter > 0:
        folder.check_unused()
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
    devices.check_equal_plans(strategy, _plan(config, loader, parts))
    # From here on files are written, by the chief alone; who works with it reads what it has learnt from the subjects.
    if chief:
        held.enter_context(folder.prepare("train").alone())
        if not resumes and config.training.max_iter > 0:
            folder.check_unused()  # another training may have ended while this one looked at the data
        journal.begin(config)
        searched = journal.files_by_section(found.files)
        journal.write_lists(config, searched)
        journal.subjects(config, searched, phases)
        journal.training_starts(config, parts)
        if phases is not None and not config.split_file.is_file():
            write_split(config.split_file, phases)
    else:
        everyone(_HERE)
    loader = mappings.with_mappings(loader, config, task, learn_from=parts[Phase.TRAINING])
    journal.mappings_ready(config, None if loader.label_mapping is None else loader.label_mapping.target)
    preparation = preparation_of(config, task, loader)
    loader = cohort.cached(loader, config, len(used), prepared)
    if chief:
        settings.write_settings(config)
        with replacing(folder.root / "settings_training.ini") as temporary:
            temporary.write_text(ini_text(config), encoding="utf-8")
        write_preparation(preparation, folder.root / PREPARATION_FILE)
        everyone(_HERE)

    keras.utils.set_random_seed(config.pimms.seed)
    with strategy.scope():
        model = settings.network(task)
        freeze = config.training.vars_to_freeze
        state = new_state(model, config.training.optimiser, config.training.lr, freeze)
    devices.set_precision(model, config.pimms.precision)
    checkpoints = Checkpoints(
        folder.checkpoints, model, state.optimizer, state.iteration, config.training.max_checkpoints, writes=chief
    )
    journal.network_built(config, len(parts[Phase.TRAINING]), is_new=not resumes)
    if resumes:
        checkpoints.restore(start, config.training.vars_to_restore)
        state.iteration.assign(start)
    else:
        warm_start(config, model)
    devices.check_equal_start(strategy, model, int(state.iteration.numpy()))
    step = train_step(config, task, state, strategy)
    # What a step learns from; each process makes its own rows of it.
    whole = _whole_batch(config, strategy)
    batches = settings.training_windows(whole, task, loader, parts[Phase.TRAINING], int(state.iteration.numpy()))
    batches = batches.rows(*devices.rows_here(strategy, config.network.batch_size))
    watched = WatchedBatches(batches, task.num_classes if segments else 0)
    early = config.pimms.early_stopping
    intervals = Intervals(
        summary=config.training.tensorboard_every_n,
        validation=config.training.validation_every_n,
        save=config.training.save_every_n,
        patience=config.training.patience if early else 0,
    )
    best = Checkpoints(folder.checkpoints / "best", model, state.optimizer, state.iteration, 2, writes=chief)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    log.info("%s: %s trainable parameters", config.network.name, f"{trainable:,}")
    epoch = len(parts[Phase.TRAINING]) * config.training.sample_per_volume / whole.network.batch_size
    log.info(
        "max_iter = %d: %.1f epochs of %.1f iterations",
        config.training.max_iter,
        config.training.max_iter / epoch,
        epoch,
    )
    if start >= config.training.max_iter:
        log.warning("iteration %d of max_iter = %d is there already; raise it", start, config.training.max_iter)
    writer, validation_writer = _writers(folder, resumes) if chief else [tf.summary.create_noop_writer()] * 2
    pictured = previewer(config, task, loader, model, (parts[Phase.VALIDATION] or parts[Phase.TRAINING])[0])
    reason = run_loop(
        state,
        step,
        watched,
        _validation(config, task, loader, state, parts[Phase.VALIDATION], strategy),
        checkpoints,
        writer,
        intervals,
        config.training.max_iter,
        validation_writer=validation_writer,
        best=best,
        report=watched.watching(report if chief else lambda done: None),
        stopped=devices.agreed(strategy, stopped),
        preview=pictured if chief else lambda: None,
        subjects_in=lambda iteration: some_of(
            parts[Phase.TRAINING][place].subject_id for place in batches.subjects_of(iteration - 1)
        ),
    )
    watched.say_times()
    everyone(_HERE)  # who leaves before the last file is written would be taken for dead
    if isinstance(loader, CachedLoader):
        loader.close()
    return reason


def _plan(config: Config, loader: SubjectLoader, parts: Mapping[Phase, Sequence[SubjectFiles]]) -> dict[str, str]:
    """What all workers must have in common; where files lie, and how they are read, is everybody's own affair."""
    pimms = replace(config.pimms, cache="", cache_gib=0.0, device_threads=0, worker_timeout=1.0)
    ids = {phase: [files.subject_id for files in part] for phase, part in parts.items()}
    return {
        "[NETWORK]": repr(config.network),
        "[TRAINING]": repr(config.training),
        f"[{config.task_name}]": repr(config.task),
        "[PIMMS]": repr(pimms),
        "the input sections": repr((subject_key(loader, {}, ""), settings.window_of(config, "training"))),
        "the subjects for training or validation": repr(ids),
    }


def _num_gpus(config: Config) -> int | None:
    """How many GPUs the user asks for, None without such a wish."""
    return None if config.origin("SYSTEM", "num_gpus") == "default" else config.system.num_gpus


def _whole_batch(config: Config, strategy: tf.distribute.Strategy) -> Config:
    """The configuration with the batch size of all replicas together."""
    num = strategy.num_replicas_in_sync
    return replace(config, network=replace(config.network, batch_size=num * config.network.batch_size))


def _writers(folder: ModelDir, resumes: bool) -> list[tf.summary.SummaryWriter]:
    logs = folder.logs(resume=resumes)
    return [tf.summary.create_file_writer(str(logs / name)) for name in ("training", "validation")]


def train_step(
    config: Config, task: Task, state: TrainingState, strategy: tf.distribute.Strategy | None = None
) -> Callable[[Batch], Metrics]:
    """What learns from one batch; with `curriculum_learning_iter` the first iterations train the classifier alone."""
    loss, objective = settings.objective_of(config, task)
    schedules = _modality_weight(config), exponential_decay(config.pimms.lr_decay, config.training.lr)
    strategy, first = strategy or tf.distribute.get_strategy(), config.training.curriculum_learning_iter
    scale = LossScale() if config.pimms.precision == "mixed_float16" else None

    def step_without(freeze: str) -> Callable[[Batch], Metrics]:
        weight, learning_rate = schedules
        return make_train_step(state, loss, weight, strategy, replace(objective, freeze=freeze), learning_rate, scale)

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
    config: Config,
    task: Task,
    loader: SubjectLoader,
    state: TrainingState,
    subjects: Sequence[SubjectFiles],
    strategy: tf.distribute.Strategy,
) -> Callable[[], Metrics | None]:
    """One pass over the validation subjects: windows of them, or with do_whole_volume_validation all of each."""
    if config.training.do_whole_volume_validation:
        validate = whole_volume_validation(config, task, loader, state.model, subjects)
        return lambda: Metrics(*devices.as_chief(strategy, validate())) if subjects else None
    loss, objective = settings.objective_of(config, task)
    check = make_validation_step(state, loss, _modality_weight(config), strategy, objective)
    held_out = settings.validation_windows(_whole_batch(config, strategy), task, loader, subjects)
    if subjects:
        held_out = held_out.rows(*devices.rows_here(strategy, config.network.batch_size))
    return lambda: mean_metrics(check(batch) for batch in held_out)


def _modality_weight(config: Config) -> Schedule:
    return exponential_decay(settings.modality_decay(config), config.pimms.modality_weight)
