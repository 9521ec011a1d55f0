"""Settings and what was learnt from subjects → the record of both that lies with the trained model."""

from niftynet_compat import Config
from pimms_tf.data.subjects import SubjectLoader
from pimms_tf.inference.preparation import Preparation, ScanSlot
from pimms_tf.study.task import Task, window_of


def preparation_of(config: Config, task: Task, loader: SubjectLoader) -> Preparation:
    """The record of a configuration whose subjects `loader` prepares, landmarks included.

    Raises:
        ConfigError: no window is set.
    """
    sections = [config.inputs[name] for name in task.scans]
    window = window_of(config, "inference")
    return Preparation(
        variant=task.variant,
        preset=config.pimms.preset,
        choices={name: value for name, value in task.choices.items() if value is not None},
        modalities=task.modalities,
        num_classes=task.num_classes,
        # Sections may leave both open where their files lie as those of the others do.
        axcodes=next((tuple(section.axcodes) for section in sections if section.axcodes), None),
        pixdim_mm=next((tuple(section.pixdim[:3]) for section in sections if section.pixdim), None),
        padding=loader.padding,
        padding_to=loader.padding_to,
        padding_mode=loader.padding_mode,
        keep_zeros=loader.keep_zeros,
        zero_background=loader.zero_background,
        far_plane=loader.far_plane,
        foreground=loader.foreground,
        fusion=loader.fusion,
        multi_is_empty=loader.multi_is_empty,
        whitening=loader.whitening,
        norm_type=loader.norm_type,
        cutoff=loader.cutoff,
        scans=tuple(
            ScanSlot(name, modality, config.inputs[name].interp_order, _landmarks(loader, name))
            for name, modality in zip(task.scans, task.slot_modality, strict=True)
        ),
        classifier_slices=config.pimms.classifier_slices,
        classifier_scope="window" if config.pimms.classifier_scope == "window" and task.variant != "hemis" else "scan",
        resizes=config.network.window_sampling == "resize",
        window=window,
        border=tuple(0 if size == 1 else voxels for size, voxels in zip(window, config.inference.border, strict=True)),
        batch_size=config.network.batch_size,
    )


def _landmarks(loader: SubjectLoader, name: str) -> tuple[float, ...]:
    return () if loader.mapping is None or name not in loader.mapping else tuple(map(float, loader.mapping[name]))
