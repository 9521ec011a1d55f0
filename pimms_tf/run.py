"""The meeting point: settings → objects → train, inference, evaluation or export."""

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from niftynet_compat import (
    Config,
    ConfigError,
    ModelDir,
    Phase,
    SubjectFiles,
    ini_text,
    read_split,
    settings_text,
    write_split,
)
from niftynet_compat.discovery import read_file_list
from pimms_tf import settings
from pimms_tf.data.images import Image, read_image, reorient, write_image
from pimms_tf.data.intensity import LabelMapping, map_labels, unlisted_labels, unmap_labels
from pimms_tf.data.subjects import Subject, SubjectLoader, restore
from pimms_tf.data.windows import check_border, resize_window
from pimms_tf.errors import InputError
from pimms_tf.evaluation import (
    FilePair,
    LabelPair,
    SubjectResult,
    evaluate_subject,
    join_by_subject,
    modality_subsets,
    niftynet_tables,
    table_1,
    write_results,
    write_summary,
)
from pimms_tf.evaluation.results import some_of
from pimms_tf.files import replacing
from pimms_tf.inference import (
    ExportInfo,
    ResultFolder,
    export_saved_model,
    label_scores,
    modality_scores,
    orthogonal_slices,
    segment,
    verify_export,
)
from pimms_tf.models import PIMMS
from pimms_tf.settings import Task, task_of
from pimms_tf.training import (
    Checkpoints,
    Intervals,
    Report,
    exponential_decay,
    load_arrays,
    make_train_step,
    make_validation_step,
    mean_metrics,
    new_state,
)
from pimms_tf.training import train as run_loop

log = logging.getLogger(__name__)


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
    _prepare_machine(config)
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
    subjects = settings.task_subjects(config, task, needs_label=segments)
    phases = settings.phases_of(config, subjects)
    parts = {
        phase: settings.subjects_in_phase(subjects, phases, phase, config) if phases or phase is Phase.TRAINING else []
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
    loader = settings.subject_loader(config, task, needs_label=segments)
    used = [*parts[Phase.TRAINING], *parts[Phase.VALIDATION]]
    settings.check_subjects(loader, used, None if config.network.window_sampling == "resize" else window)
    # From here on files are written.
    folder.prepare("train")
    if phases is not None and not config.split_file.is_file():
        write_split(config.split_file, phases)
    loader = settings.with_mappings(loader, config, task, learn_from=parts[Phase.TRAINING])
    _write_settings(config)
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
        _warm_start(config, model)
    loss, objective = settings.objective_of(config, task)
    weight = exponential_decay(settings.modality_decay(config), config.pimms.modality_weight)
    learning_rate = exponential_decay(config.pimms.lr_decay, config.training.lr)
    step = make_train_step(state, loss, weight, strategy, objective, learning_rate)
    check = make_validation_step(state, loss, weight, strategy, objective)
    batches = settings.training_windows(config, task, loader, parts[Phase.TRAINING], int(state.iteration.numpy()))
    held_out = settings.validation_windows(config, task, loader, parts[Phase.VALIDATION])
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
    if start >= config.training.max_iter:
        log.warning("iteration %d of max_iter = %d is there already; raise it", start, config.training.max_iter)
    return run_loop(
        state,
        step,
        batches,
        lambda: mean_metrics(check(batch) for batch in held_out),
        checkpoints,
        tf.summary.create_file_writer(str(logs / "training")),
        intervals,
        config.training.max_iter,
        validation_writer=tf.summary.create_file_writer(str(logs / "validation")),
        best=best,
        report=report,
        stopped=stopped,
        preview=_previewer(config, task, loader, model, (parts[Phase.VALIDATION] or parts[Phase.TRAINING])[0]),
        subjects_in=lambda iteration: some_of(
            parts[Phase.TRAINING][place].subject_id for place in batches.subjects_of(iteration - 1)
        ),
    )


def inference(config: Config) -> None:
    """Segments subjects with the trained model; writes one file per subject, `inferred.csv` and `modality_scores.csv`.

    With `[PIMMS] subsets` every non-empty subset of the modalities is segmented in turn, each into a folder of its own
    name below `save_seg_dir`. Models that need no labels then get the scans unlabelled and in shuffled order.

    Raises:
        ConfigError, InputError: a mistake in the configuration or the data.
    """
    task = task_of(config)
    _prepare_machine(config)
    window = settings.window_of(config, "inference")
    border = settings.border_of(config, window)
    if config.network.window_sampling != "resize":
        check_border([size if size > 0 else 2**31 for size in window], border)
    if config.pimms.subsets and task.modality_image is None and min(task.slot_modality) < 0:
        raise ConfigError(
            f"{config.path}: subsets need to know the modality of every scan; set image_modalities in [PIMMS]"
        )
    codes = None
    if task.variant != "classifier" and config.task.label_normalisation:
        settings.require_section(config, task.label, "label")
        codes = settings.label_codes(config, task.label)
    subjects = settings.task_subjects(config, task, needs_label=False)
    chosen = _subjects_to_infer(config, subjects)
    loader = settings.subject_loader(config, task, needs_label=False)
    settings.check_subjects(loader, chosen, None)
    loader = settings.with_mappings(loader, config, task)
    network = _Network(_trained_model(config, task))
    _write_settings(config)
    subsets = modality_subsets(settings.real_modalities(task)) if config.pimms.subsets else [()]
    outputs = {subset: ResultFolder(_subset_folder(config.save_seg_dir, subset), task.modalities) for subset in subsets}
    for number, files in enumerate(chosen, start=1):
        subject = loader.load(settings.scan_files(files, task), files.subject_id)
        for subset, output in outputs.items():
            shown = _shown(subject, subset, task, config.pimms.seed)
            if shown is None:
                continue
            scans, part = shown
            answer = _segmented(
                config,
                task,
                network,
                part,
                window,
                border,
                probabilities=config.task.output_prob,
                order=config.inference.output_interp_order,
                fill=config.inference.fill_constant,
            )
            path = None
            if answer.image is not None:
                if not subset:
                    _warn_of_doubles(task, part, _scan_names(task, files, scans), answer.scores)
                path = output.folder / f"{files.subject_id}{config.inference.output_postfix}.nii.gz"
                write_image(_in_codes(answer.image, None if config.task.output_prob else codes), path)
            output.add(files.subject_id, path, _scan_names(task, files, scans), answer.scores, part.valid)
        log.info("%d of %d: %s", number, len(chosen), files.subject_id)
    for output in outputs.values():
        if output.num_scans:
            log.info("Saved %s", output.folder)


def evaluation(config: Config) -> str:
    """Scores segmentations against reference labels, both on the files' own grid; returns the summary as text.

    Writes `evaluation.csv`, a line per subject (and subset), and `evaluation_summary.csv` into `save_csv_dir`, and with
    `evaluations` NiftyNet's own tables of those metrics. The segmentations are those of the section `inferred`, or else
    of `inferred.csv` in `save_seg_dir`.

    Raises:
        ConfigError, InputError: a mistake in the configuration or the data.
    """
    task = task_of(config)
    if task.variant == "classifier":
        raise ConfigError(f"{config.path}: evaluation scores segmentations, but {config.network.name} makes none")
    settings.require_section(config, task.label, "label")
    codes = settings.label_codes(config, task.label) if config.task.label_normalisation else None
    references = settings.files_of_section(config, task.label)
    subsets = modality_subsets(settings.real_modalities(task)) if config.pimms.subsets else [()]
    found = _segmentations(config, subsets)
    expected = _expected_subjects(config, references)
    results = []
    for subset, inferred in found.items():
        # Only subjects that inference was meant to segment are missed where they have no segmentation.
        wanted = {name: path for name, path in references.items() if name in inferred or name in expected}
        files = join_by_subject(wanted, inferred)
        for each in files:
            pair = _read_pair(config, task, codes, each)
            kind = "niftynet" if config.pimms.distance == "niftynet" else "standard"
            scores = evaluate_subject(pair.reference, pair.foreground, pair.spacing_mm, surface_distance=kind)
            results.append(SubjectResult(each.subject_id, subset, scores))
        if config.evaluation.evaluations:
            pairs = ((each.subject_id, _read_pair(config, task, codes, each)) for each in files)
            tables = niftynet_tables(
                (LabelPair(subject_id, pair.reference, pair.inferred) for subject_id, pair in pairs),
                getattr(config.task, "evaluation_units", "foreground").split(","),
                config.evaluation.evaluations.split(","),
                task.num_classes,
            )
            for table in tables:
                table.write(_subset_folder(config.save_csv_dir, subset))
    _write_settings(config)
    write_results(config.save_csv_dir / "evaluation.csv", results)
    write_summary(config.save_csv_dir / "evaluation_summary.csv", results)
    log.info("Saved %s and evaluation_summary.csv", config.save_csv_dir / "evaluation.csv")
    return table_1({config.network.name: results}, baseline=config.network.name).markdown()


def export(config: Config, directory: Path, version: int | None = None) -> Path:
    """Writes the trained model as a SavedModel and proves that it answers as the one in memory; returns its folder."""
    task = task_of(config)
    _prepare_machine(config)
    model = _trained_model(config, task)
    network = config.network
    info = ExportInfo(
        modalities=task.modalities,
        axcodes=tuple(config.common("image", "axcodes") or ()),
        pixdim_mm=tuple(config.common("image", "pixdim") or ()),
        whitening=network.whitening,
        foreground_type=network.foreground_type if network.normalise_foreground_only else "",
        foreground_fusion=network.multimod_foreground_type if network.normalise_foreground_only else "",
        landmarks=settings.landmarks_by_modality(config, task),
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


def _prepare_machine(config: Config) -> None:
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"training, inference and export need Keras on TensorFlow, but KERAS_BACKEND is {keras.backend.backend()}"
        )
    if config.system.num_gpus > 1 and config.action == "training":
        log.warning("num_gpus = %d has no effect: training runs on one device", config.system.num_gpus)
    if config.pimms.device_threads > 0:
        tf.config.threading.set_intra_op_parallelism_threads(config.pimms.device_threads)
        tf.config.threading.set_inter_op_parallelism_threads(config.pimms.device_threads)


def _write_settings(config: Config) -> None:
    with replacing(ModelDir(config.model_dir).settings_file(config.action)) as temporary:
        temporary.write_text(settings_text(config), encoding="utf-8")


def _warm_start(config: Config, model: PIMMS) -> None:
    """Loads the parts that were trained on their own: `[PIMMS] segmenter` and `classifier`, each a model folder."""
    for root, belongs in (
        (config.segmenter_dir, lambda path: "/classifier/" not in path),
        (config.classifier_dir, lambda path: "/classifier/" in path),
    ):
        if root is None:
            continue
        folder = ModelDir(root)
        variables = {variable.path: variable for variable in model.variables if belongs(variable.path)}
        arrays = load_arrays(
            folder.checkpoint(folder.latest_iteration()), {path: tuple(v.shape) for path, v in variables.items()}
        )
        for path, array in arrays.items():
            variables[path].assign(array)
        log.info("%d variables from %s", len(arrays), root)


def _trained_model(config: Config, task: Task) -> PIMMS:
    if task.variant != "classifier":
        settings.check_num_classes(config, task)
    folder = ModelDir(config.model_dir)
    from_parts = config.segmenter_dir is not None and config.classifier_dir is not None
    if from_parts and not folder.iterations():
        # Hard and Soft need no training of their own: a HeMIS segmenter and a classifier are all there is.
        model = settings.network(task)
        _warm_start(config, model)
        return model
    if task.variant in ("hard", "soft") and not folder.iterations():
        raise ConfigError(
            f"{config.path}: model_dir {folder.root} has no checkpoint; train first, or name the model folders of a "
            "HeMIS network and of a classifier in [PIMMS] segmenter and classifier"
        )
    folder.prepare("inference")
    model = settings.network(task)
    iteration = tf.Variable(0, dtype=tf.int64)
    if config.pimms.use_best:
        Checkpoints(folder.checkpoints / "best", model, None, iteration).restore()
    else:
        number = folder.resolve(config.inference.inference_iter, zero_is_random=False)
        Checkpoints(folder.checkpoints, model, None, iteration).restore(number)
    return model


def _subjects_to_infer(config: Config, subjects: Sequence[SubjectFiles]) -> list[SubjectFiles]:
    split = read_split(config.split_file) if config.split_file.is_file() else None
    phase = config.inference.dataset_to_infer
    chosen = settings.subjects_in_phase(subjects, split, phase, config)
    why = f"dataset_to_infer = {phase}" if phase else "dataset_to_infer is unset"
    origin = config.split_file if split is not None else "no split file"
    log.info("%d of %d subjects (%s; %s)", len(chosen), len(subjects), why, origin)
    return chosen


class _Network:
    """The network as functions of arrays, compiled once for each shape."""

    def __init__(self, model: PIMMS) -> None:
        @tf.function(reduce_retracing=True)
        def classify(scans, valid):
            return model.classify(scans, valid)

        @tf.function(reduce_retracing=True)
        def predict(scans, scores, valid):
            return model.segment(scans, model.classify(scans, valid) if scores is None else scores, valid)

        self._classify, self._predict = classify, predict

    def classify(self, scans: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return self._classify(tf.constant(scans), tf.constant(valid)).numpy()

    def predict(self, scans: np.ndarray, scores: np.ndarray | None, valid: np.ndarray) -> np.ndarray:
        given = None if scores is None else tf.constant(scores)
        return self._predict(tf.constant(scans), given, tf.constant(valid)).numpy()


class _Answer(NamedTuple):
    """What the network says of a subject; no image if it only classifies scans."""

    scores: np.ndarray  # (scan, modality)
    image: Image | None


def _segmented(
    config: Config,
    task: Task,
    network: _Network,
    subject: Subject,
    window: tuple[int, int, int],
    border: Sequence[int],
    *,
    probabilities: bool = False,
    order: int = 0,
    fill: float = 0.0,
) -> _Answer:
    """Scores and segmentation of a subject; with window_sampling = resize of its slices zoomed to the window."""
    resizes, rank = config.network.window_sampling == "resize", config.pimms.spatial_rank
    seen = settings.resized(subject, window) if resizes else subject
    scores = _scores(config, task, network, seen)
    if task.variant == "classifier":
        return _Answer(scores, None)
    per_window = config.pimms.classifier_scope == "window" and task.variant != "hemis"
    given, batch_size = None if per_window else scores, config.network.batch_size
    if not resizes:
        image = segment(
            network.predict,
            subject,
            given,
            window,
            border,
            batch_size,
            spatial_rank=rank,
            probabilities=probabilities,
            order=order,
            fill=fill,
        )
        return _Answer(scores, image)
    # Interpolated labels mean nothing, so above order 0 the best of the interpolated probabilities is taken.
    soft = probabilities or order > 0
    full = (0, 0, 1) if rank == 2 else (0, 0, 0)
    small = segment(network.predict, seen, given, full, (0, 0, 0), batch_size, spatial_rank=rank, probabilities=soft)
    image = restore(subject, resize_window(small.data, subject.scans.shape[:3], order), order)
    if soft and not probabilities:
        image = replace(image, data=np.argmax(image.data, axis=-1)[..., np.newaxis].astype(np.int32))
    return _Answer(scores, image)


def _scores(config: Config, task: Task, network: _Network, subject: Subject) -> np.ndarray:
    if task.variant == "hemis":
        return label_scores(subject, len(task.modalities))
    # A million voxels take some hundred megabytes in the widest layer.
    slices = max(1, 2**20 // int(np.prod(subject.scans.shape[:2] + subject.scans.shape[3:])))
    rank = config.pimms.spatial_rank
    return modality_scores(
        network.classify, subject, config.pimms.classifier_slices, spatial_rank=rank, batch_size=slices
    )


def _warn_of_doubles(task: Task, subject: Subject, names: Sequence[str], scores: np.ndarray) -> None:
    """Scans of one modality add up in the paper's mixture, to intensities that no network has seen in training."""
    if task.choices["attention_normalise"] != "none":
        return
    best = {scan: int(np.argmax(scores[scan])) for scan in np.flatnonzero(subject.valid) if scores[scan].any()}
    for modality in sorted(set(best.values()) - ({0} if task.null_class else set())):
        same = [names[scan] for scan in best if best[scan] == modality]
        if len(same) > 1:
            log.warning(
                "subject %s: %s are all taken for %s and add up, which its segmentation may not survive; give one of "
                "them, or train with [PIMMS] attention_normalise = sum",
                subject.subject_id,
                ", ".join(same),
                task.modalities[modality],
            )


def _scan_names(task: Task, files: SubjectFiles, scans: Sequence[int]) -> list[str]:
    """The file names of these scans, "" for absent ones; several scans of one file are numbered."""
    if len(task.scans) == 1 and len(scans) > 1:
        return [f"{files.images[task.scans[0]].name}[{scan}]" for scan in scans]
    return [files.images[task.scans[scan]].name if task.scans[scan] in files.images else "" for scan in scans]


def _in_codes(image: Image, codes: LabelMapping | None) -> Image:
    return image if codes is None else replace(image, data=unmap_labels(image.data, codes))


def _subset_folder(folder: Path, subset: tuple[str, ...]) -> Path:
    return folder / ("subset_" + "_".join(subset)) if subset else folder


def _shown(subject: Subject, subset: tuple[str, ...], task: Task, seed: int) -> tuple[list[int], Subject] | None:
    """The subject with the scans of these modalities alone, and their slots; None where it has none of them.

    Without a subset it is the subject as it is. A model that needs no labels gets a subset's scans in an order drawn
    per subject, and no labels, so that nothing but the images can tell them apart.
    """
    num_scans = len(subject.valid)
    if not subset:
        return list(range(num_scans)), subject
    wanted = {task.modalities.index(name) for name in subset}
    scans = [scan for scan in range(num_scans) if subject.valid[scan] and subject.modality[scan] in wanted]
    if {int(subject.modality[scan]) for scan in scans} != wanted:
        log.warning("subject %s has not all of %s and is left out there", subject.subject_id, "+".join(subset))
        return None
    if task.variant == "hemis":
        order, modality = scans, subject.modality[scans]
    else:
        rng = np.random.default_rng((seed, zlib.crc32(f"{subject.subject_id}+{'+'.join(subset)}".encode())))
        order = [scans[place] for place in rng.permutation(len(scans))]
        modality = np.full(len(order), -1, np.int32)
    part = replace(subject, scans=subject.scans[..., order], valid=subject.valid[order], modality=modality)
    return order, part


def _segmentations(config: Config, subsets: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, Path]]:
    """The segmentations of each subset that any subject has, {subject: file}."""
    named = config.sources("inferred")
    if named and not any(subsets):
        return {(): settings.files_of_section(config, named[0])}
    lists = {subset: _subset_folder(config.save_seg_dir, subset) / "inferred.csv" for subset in subsets}
    found = {subset: read_file_list(path, "inferred") for subset, path in lists.items() if path.is_file()}
    if not found:
        option = " --subsets" if any(subsets) else ""
        raise InputError(
            f"{lists[subsets[0]]} is not there, so there is nothing to evaluate: run pimms-tf inference "
            f"{config.path}{option} first, or name segmentations by inferred in the task section"
        )
    for subset in subsets:
        if subset not in found:
            log.warning("%s: no subject was segmented from %s", config.save_seg_dir, "+".join(subset))
    return found


def _expected_subjects(config: Config, references: Mapping[str, Path]) -> set[str]:
    if not config.split_file.is_file():
        return set(references)
    subjects = [SubjectFiles(subject_id, {}) for subject_id in references]
    chosen = settings.subjects_in_phase(
        subjects, read_split(config.split_file), config.inference.dataset_to_infer, config
    )
    return {subject.subject_id for subject in chosen}


class _Pair(NamedTuple):
    """A reference and a segmentation, both turned to RAS so that slices are axial whatever the files' order."""

    reference: np.ndarray  # (x, y, z) classes
    inferred: np.ndarray  # (x, y, z) classes
    foreground: np.ndarray  # (x, y, z) classes, or the probability of being anything but background
    spacing_mm: tuple[float, float, float]


def _read_pair(config: Config, task: Task, codes: LabelMapping | None, files: FilePair) -> _Pair:
    truth = reorient(read_image(files.reference, config.inputs[task.label].loader), ("R", "A", "S"))
    found = reorient(read_image(files.inferred), ("R", "A", "S"))
    if truth.shape != found.shape or not np.allclose(truth.affine, found.affine, atol=1e-2):
        raise InputError(
            f"subject {files.subject_id}: reference {files.reference} {truth.shape} and segmentation {files.inferred} "
            f"{found.shape} are not on one grid; segment the scans on the grid of the label, or resample the label"
        )
    reference = truth.data[..., 0] if codes is None else map_labels(truth.data[..., 0], codes)
    if found.data.shape[-1] > 1:  # probabilities of every class, the background first
        return _Pair(reference, np.argmax(found.data, axis=-1), 1.0 - found.data[..., 0], truth.spacing_mm)
    inferred = found.data[..., 0]
    # What other programs wrote may be classes already.
    if codes is not None and not unlisted_labels(inferred, codes):
        inferred = map_labels(inferred, codes)
    return _Pair(reference, inferred, inferred, truth.spacing_mm)


def _previewer(config: Config, task: Task, loader: SubjectLoader, model: PIMMS, files: SubjectFiles):
    """What draws one subject's lesions, reference and segmentation, with the weights of the moment."""
    if task.variant == "classifier":
        return lambda: None
    network = _Network(model)

    def preview() -> np.ndarray:
        subject = loader.load(files.images, files.subject_id)
        image = _segmented(config, task, network, subject, settings.window_of(config, "training"), (0, 0, 0)).image
        scan = restore(subject, subject.scans[..., int(np.argmax(subject.valid))], 1).data[..., 0]
        return orthogonal_slices(scan, restore(subject, subject.label, 0).data[..., 0], image.data[..., 0])

    return preview
