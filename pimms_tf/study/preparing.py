"""Settings and what was learnt from subjects → the record of both that lies with the trained model.

Beside it, what training alone does to prepared scans.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from niftynet_compat import Config
from pimms_tf.data.augmentation import Augmentation, Elastic
from pimms_tf.inference.preparation import Preparation, ScanSlot
from pimms_tf.presets import AUGMENTATION
from pimms_tf.study.task import Task, resampling_of, window_of
from pimms_tf.weights import bundled_preparation

# What bundled weights bring besides the network and how scans are prepared: which scans and voxels count.
_ALSO_BUNDLED = ("threshold", "smallest_lesion_ml", "least_score", "least_share")


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
    bundled = bundled_preparation() if config.pimms.weights else None
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
        **({name: getattr(bundled, name) for name in _ALSO_BUNDLED} if bundled else {}),
    )


def augmentation_of(config: Config) -> Augmentation:
    """The random changes that training makes to its subjects.

    Raises:
        InputError: a setting is out of range.
    """
    training = config.training
    angles = tuple(training.rotation_angle) or None
    per_axis = tuple(tuple(getattr(training, f"rotation_angle_{axis}")) or (0.0, 0.0) for axis in "xyz")
    if angles is None and any(any(pair) for pair in per_axis):
        angles = per_axis
    elastic = None
    if training.do_elastic_deformation:
        elastic = Elastic(training.num_ctrl_points, training.deformation_sigma, training.proportion_to_deform)
    return Augmentation(
        flipping_axes=tuple(axis for axis in np.atleast_1d(training.random_flipping_axes) if axis >= 0),
        scaling_percentage=tuple(training.scaling_percentage) or None,
        isotropic=training.isotropic_scaling,
        antialiasing=training.antialiasing,
        rotation_degrees=angles,
        elastic=elastic,
        bias_field_range=tuple(training.bias_field_range) or None,
        bias_field_order=training.bf_order,
        reading=config.pimms.augmentation or AUGMENTATION[config.pimms.preset],
        far_plane="zeroed" if resampling_of(config) == "niftynet" else "interpolated",
    )
