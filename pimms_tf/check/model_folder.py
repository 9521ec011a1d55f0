"""The model folder: where a run starts from, what it would write over, and what it needs to find."""

from niftynet_compat import ConfigError, ModelDir, read_mapping
from pimms_tf.check.report import MODEL, Report
from pimms_tf.study.study import Study
from pimms_tf.study.task import check_parts


def check_model_folder(study: Study, report: Report) -> None:
    """Reports on checkpoints, the model folders of parts, and the file of landmarks and label codes."""
    config = study.config
    folder = ModelDir(config.model_dir)
    present = folder.iterations()
    shown = ", ".join(map(str, present[-5:])) if present else "none"
    report.fact(MODEL, "folder", str(folder.root), f"{folder.root}{'' if folder.root.is_dir() else ' (to be made)'}")
    report.fact(MODEL, "checkpoints", len(present), f"{len(present)}{', the last ' + shown if present else ''}")
    if folder.root.exists() and not folder.root.is_dir():
        report.mistake(MODEL, f"model_dir {folder.root} is a file; give a folder")
    with report.collecting(MODEL):
        if config.action == "training":
            start = study.start
            report.fact(MODEL, "starts from", start, f"iteration {start}" if start else "random weights")
            if start >= config.training.max_iter:
                report.remark(MODEL, f"iteration {start} of max_iter = {config.training.max_iter} is there already")
        elif config.pimms.use_best:
            if not any((folder.checkpoints / "best").glob("model.ckpt-*.index")):
                raise ConfigError(f"use_best = True, but {folder.checkpoints / 'best'} holds no checkpoint")
        elif not (config.segmenter_dir is not None and config.classifier_dir is not None and not present):
            number = folder.resolve(config.inference.inference_iter, zero_is_random=False)
            report.fact(MODEL, "uses", number, f"iteration {number}")
        else:
            check_parts(config, study.task)
    for name, root in (("segmenter", config.segmenter_dir), ("classifier", config.classifier_dir)):
        if root is not None:
            report.fact(MODEL, name, str(root))
    _check_histogram_file(study, report)


def _check_histogram_file(study: Study, report: Report) -> None:
    config, path = study.config, study.config.histogram_file
    if not config.network.normalisation and not config.task.label_normalisation:
        return
    with report.collecting(MODEL):
        if path is None:
            raise ConfigError("normalisation and label_normalisation need histogram_ref_file in [NETWORK]")
        known = read_mapping(path) if path.is_file() else {}
        state = "is there" if path.is_file() else "is not there yet"
        report.fact(MODEL, "histogram_ref_file", str(path), f"{path} {state}")
        missing = [name for name in study.task.scans if name not in known] if config.network.normalisation else []
        if missing and config.action == "training":
            report.note(MODEL, f"landmarks of {', '.join(missing)} will be learnt from the training subjects")
