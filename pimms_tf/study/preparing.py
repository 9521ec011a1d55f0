"""Settings and what was learnt from subjects → the record of both that lies with the trained model."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from niftynet_compat import Config
from pimms_tf.inference.preparation import Preparation, ScanSlot
from pimms_tf.study.task import Task, resampling_of, window_of


def scans_of(config: Config, task: Task, mapping: Mapping[str, np.ndarray] | None = None) -> Preparation:
    """The part of the record that says how scans are prepared; `mapping` holds histogram landmarks by section."""
    network, as_niftynet = config.network, resampling_of(config) == "niftynet"
    sections = [config.inputs[name] for name in task.scans]
    return Preparation(
        modalities=task.modalities,
        choices={name: value for name, value in task.choices.items() if value is not None},
        # Sections may leave both open where their files lie as those of the others do.
        axcodes=next((tuple(section.axcodes) for section in sections if section.axcodes), None),
        pixdim_mm=next((tuple(section.pixdim[:3]) for section in sections if section.pixdim), None),
        padding=network.volume_padding_size,
        padding_mode=network.volume_padding_mode,
        padding_to=None if not any(network.volume_padding_to_size) else network.volume_padding_to_size,
        keep_zeros=not as_niftynet,
        far_plane="zeroed" if as_niftynet else "interpolated",
        zero_background=config.pimms.zero_background,
        foreground=network.foreground_type if network.normalise_foreground_only else None,
        blank_outside=config.pimms.blank_outside,
        fusion=network.multimod_foreground_type,
        whitening=network.whitening,
        norm_type=network.norm_type,
        cutoff=tuple(network.cutoff),
        scans=tuple(
            ScanSlot(name, modality, config.inputs[name].interp_order, tuple(map(float, (mapping or {}).get(name, ()))))
            for name, modality in zip(task.scans, task.slot_modality, strict=True)
        ),
    )


def preparation_of(config: Config, task: Task, mapping: Mapping[str, np.ndarray] | None = None) -> Preparation:
    """The whole record: how scans are prepared, what the network is, and how inference uses it.

    Raises:
        ConfigError: no window is set.
    """
    per_window = config.pimms.classifier_scope == "window" and task.variant != "hemis"
    window = window_of(config, "inference")
    return replace(
        scans_of(config, task, mapping),
        variant=task.variant,
        preset=config.pimms.preset,
        num_classes=task.num_classes,
        classifier_slices=config.pimms.classifier_slices,
        classifier_scope="window" if per_window else "scan",
        resizes=config.network.window_sampling == "resize",
        window=window,
        border=tuple(0 if size == 1 else voxels for size, voxels in zip(window, config.inference.border, strict=True)),
        batch_size=config.network.batch_size,
    )
