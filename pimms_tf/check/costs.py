"""What a run will cost: two real steps taken in memory, and sums over the whole run."""

import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from niftynet_compat import Config, ModelDir
from pimms_tf.check.report import COSTS, Report, print_bytes, print_seconds
from pimms_tf.data.images import read_image_header
from pimms_tf.evaluation import modality_subsets
from pimms_tf.models import PIMMS
from pimms_tf.study.network import network, train_step
from pimms_tf.study.predicting import arranged, segmenter_of
from pimms_tf.study.study import Study
from pimms_tf.study.task import real_modalities
from pimms_tf.study.windows import training_windows
from pimms_tf.training import TrainingState, devices, new_state


def measure_training(study: Study, report: Report) -> None:
    """Builds the network, takes a first step, which compiles it, and two more; says what the whole run will take."""
    config, task = study.config, study.task
    devices.prepare_machine(config.pimms.device_threads)
    if config.origin("SYSTEM", "num_gpus") != "default":
        devices.strategy("one_device", config.system.num_gpus)  # which complains if there are fewer
    keras.utils.set_random_seed(config.pimms.seed)
    model = network(task)
    state = new_state(model, config.training.optimiser, config.training.lr, config.training.vars_to_freeze)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    report.fact(COSTS, "trainable parameters", trainable, f"{trainable:,}")
    step = train_step(study, state)
    batches = iter(training_windows(study, study.loader))
    waits, steps = [], []
    try:
        for _ in range(3):
            began = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - began)
            metrics = step(batch)
            loss = float(metrics.total_loss)
            steps.append(time.perf_counter() - began - waits[-1])
    finally:
        batches.close()
    foreground = int((np.asarray(batch.label) > 0).reshape(len(batch.label), -1).any(axis=1).sum())
    if task.segments:
        report.fact(COSTS, "windows with foreground", foreground, f"{foreground} of {len(batch.label)} in one batch")
    if not np.isfinite(loss):
        report.mistake(COSTS, f"the loss of the first steps is {loss}; lower lr or look at the scans")
    report.fact(COSTS, "first step", steps[0], f"{print_seconds(steps[0])}, with compiling the network")
    report.fact(COSTS, "step", float(np.mean(steps[1:])), print_seconds(np.mean(steps[1:])))
    report.fact(COSTS, "waiting for windows", float(np.mean(waits[1:])), print_seconds(np.mean(waits[1:])))
    iteration = float(np.mean(steps[1:]) + np.mean(waits[1:]))
    to_go = max(config.training.max_iter - study.start, 0)
    whole = steps[0] + waits[0] + to_go * iteration
    report.fact(COSTS, "whole run", whole, f"{print_seconds(whole)} for {to_go} iterations, without validation")
    _say_memory(report)
    _say_checkpoints(config, state, to_go, ModelDir(config.model_dir).root, report)


def checkpoint_bytes(model: PIMMS, optimizer: keras.optimizers.Optimizer) -> int:
    """Bytes of one checkpoint: all variables of the model and of its optimiser, without the index of names."""
    return sum(
        int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size
        for variable in (*model.variables, *optimizer.variables)
    )


def _say_checkpoints(config: Config, state: TrainingState, to_go: int, root: Path, report: Report) -> None:
    training, size = config.training, checkpoint_bytes(state.model, state.optimizer)
    saves = 1 + (to_go // training.save_every_n if training.save_every_n > 0 else 0)
    kept = min(saves, max(2, training.max_checkpoints))
    kept += min(2, to_go // training.validation_every_n) if training.validation_every_n > 0 else 0
    report.fact(
        COSTS, "disk for checkpoints", kept * size, f"{print_bytes(kept * size)}, {kept} of {print_bytes(size)}"
    )
    _compare_with_disk(kept * size, root, report)


def measure_inference(study: Study, report: Report) -> None:
    """Segments up to two subjects in memory with random weights; says what the whole cohort will take."""
    config, task, subjects = study.config, study.task, study.used
    devices.prepare_machine(config.pimms.device_threads)
    segmenter = segmenter_of(study, network(task))
    seconds = []
    for files in subjects[:2]:
        began = time.perf_counter()
        _, subject = arranged(config, study.loader.load(files.images, files.subject_id))
        if not subject.valid.any():
            continue
        segmenter(subject)
        seconds.append(time.perf_counter() - began)
    if not seconds:
        report.remark(COSTS, "idxs_to_drop leaves the first subjects without any scan")
        return
    runs = len(modality_subsets(real_modalities(task))) if config.pimms.subsets else 1
    report.fact(COSTS, "first subject", seconds[0], f"{print_seconds(seconds[0])}, with compiling the network")
    report.fact(COSTS, "subject", seconds[-1], print_seconds(seconds[-1]))
    whole = seconds[0] + (len(subjects) * runs - 1) * seconds[-1]
    report.fact(COSTS, "whole run", whole, print_seconds(whole))
    _say_memory(report)
    voxels = 0
    for files in subjects:
        first = next(name for name in task.scans if name in files.images)
        voxels += int(np.prod(read_image_header(files.images[first], config.inputs[first].loader).shape))
    values = task.num_classes if config.task.output_prob else 1
    size = 4 * voxels * values * runs if task.segments else 0
    report.fact(COSTS, "results", size, f"at most {print_bytes(size)}, before they are compressed")
    _compare_with_disk(size, config.save_seg_dir, report)


def _say_memory(report: Report) -> None:
    for device in tf.config.list_physical_devices("GPU"):
        name = device.name.removeprefix("/physical_device:")
        peak = int(tf.config.experimental.get_memory_info(name)["peak"])
        report.fact(COSTS, f"memory of {name}", peak, print_bytes(peak))
    peak = _peak_bytes()
    if peak:
        report.fact(COSTS, "memory", peak, f"{print_bytes(peak)} was the most so far, measured")


def _peak_bytes() -> int:
    """The most memory this process has held, 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else 1024 * peak


def _compare_with_disk(size: int, folder: Path, report: Report) -> None:
    import shutil

    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free:
        report.remark(COSTS, f"{folder} has {print_bytes(free)} left, and {print_bytes(size)} will be written there")
