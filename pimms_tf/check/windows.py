"""Windows and borders against the volumes that they are cut from."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from niftynet_compat import Config
from pimms_tf.check.report import Report
from pimms_tf.data.windows import grid_locations, resolve_window
from pimms_tf.errors import InputError
from pimms_tf.inference.segmentation import axis_across
from pimms_tf.study.study import Axes3, Study
from pimms_tf.study.task import Task
from pimms_tf.wording import counted, some_of

_REACH = {"paper": 17, "paper_5x5": 9, "highres_1x1": 5}  # voxels to one side that a voxel's answer depends on


def check_windows(study: Study, shapes: Mapping[str, Axes3], report: Report, topic: str) -> None:
    """Reports whether the window fits into every prepared volume {subject: shape}, and what would."""
    config, window = study.config, study.window
    resizes = config.network.window_sampling == "resize"
    cuts_grid = config.action == "inference" and study.task.segments and not (resizes or study.whole_slices)
    if config.action == "training" or cuts_grid or resizes:
        report.fact(topic, "window", str(window), " x ".join("full" if size <= 0 else str(size) for size in window))
    elif study.task.segments:
        report.fact(topic, "segments", "whole slices", "whole slices; inference_mode = windows would cut windows")
    counts = Counter(shapes.values())
    rows = []
    for shape, count in counts.most_common():
        who = [subject_id for subject_id, each in shapes.items() if each == shape]
        windows = [_num_windows(shape, _cut(study, shape), study.border)] if cuts_grid else []
        rows.append([" x ".join(map(str, shape)), count, who[0], *windows])
    columns = ("prepared shape", "subjects", "such as")
    report.table(topic, (*columns, "windows") if cuts_grid else columns, rows)
    if config.action == "training" and not resizes:
        _check_fit(config, window, shapes, report, topic)
    elif cuts_grid:
        _say_border(study.task, window, study.border, list(counts), report, topic)


def _cut(study: Study, shape: Axes3) -> Axes3:
    """The window that a volume is cut into: one voxel thick where the network looks at slices."""
    if study.config.pimms.spatial_rank == 3:
        return study.window
    across = axis_across(study.window, shape)
    return tuple(1 if axis == across else size for axis, size in enumerate(study.window))


def _check_fit(config: Config, window: Axes3, shapes: Mapping[str, Axes3], report: Report, topic: str) -> None:
    too_small: dict[Axes3, list[str]] = {}
    for subject_id, shape in shapes.items():
        try:
            resolve_window(shape, window)
        except InputError:
            too_small.setdefault(shape, []).append(subject_id)
    least = tuple(int(n) for n in np.min(list(shapes.values()), axis=0)) if shapes else (0, 0, 0)
    if too_small:
        fits = tuple(min(size, n) for size, n in zip(window, least, strict=True))
        missing = max(max(size - n, 0) for size, n in zip(window, least, strict=True))
        for shape, ids in too_small.items():
            report.mistake(
                topic,
                f"the window {window} is larger than the volume {shape} of {counted(len(ids), 'subject')} "
                f"({some_of(ids)}); spatial_window_size = {fits} fits all, or pad by "
                f"volume_padding_size = {-(-missing // 2)}",
            )
    full = [axis for axis, size in enumerate(window) if size <= 0]
    differing = [axis for axis in full if len({shape[axis] for shape in shapes.values()}) > 1]
    if differing and config.network.batch_size > 1:
        lengths = " and ".join("xyz"[axis] for axis in differing)
        fixed = tuple(least[axis] if axis in full else size for axis, size in enumerate(window))
        report.mistake(
            topic,
            f"spatial_window_size asks for the full length of {lengths}, which differs between subjects, so windows do "
            f"not form batches of {config.network.batch_size}; give {fixed}, or batch_size = 1",
        )


def _num_windows(shape: Axes3, window: Axes3, border: Axes3) -> int:
    full = [size <= 0 for size in window]
    border = [0 if size == 1 else voxels for size, voxels in zip(window, border, strict=True)]
    padded = [n + 2 * (0 if whole else b) for n, b, whole in zip(shape, border, full, strict=True)]
    size = [n if whole else size for n, size, whole in zip(padded, window, full, strict=True)]
    grown = [max(n, length) for n, length in zip(padded, size, strict=True)]
    edges = [0 if whole else b for b, whole in zip(border, full, strict=True)]
    return len(grid_locations(grown, size, edges))


def _say_border(task: Task, window: Axes3, border: Axes3, shapes: list[Axes3], report: Report, topic: str) -> None:
    report.fact(topic, "border", str(border))
    reach = _REACH[task.choices["frontend"]]
    cut = [
        axis
        for axis, size in enumerate(window)
        if size > 1 and border[axis] < reach and any(shape[axis] > size for shape in shapes)
    ]
    if cut:
        advised = tuple(
            max(b, reach) if axis in cut and window[axis] > 2 * reach else b for axis, b in enumerate(border)
        )
        report.note(
            topic,
            f"windows meet along {' and '.join('xyz'[axis] for axis in cut)}, where the border is less than the "
            f"{reach} voxels that the network sees to each side, so seams show; border = {advised} prevents them",
        )
    small = {shape for shape in shapes if any(size > n for size, n in zip(window, shape, strict=True))}
    if small:
        report.note(topic, f"volumes smaller than the window, such as {min(small)}, are padded to it")
