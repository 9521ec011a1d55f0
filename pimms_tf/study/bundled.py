"""Settings of a run with bundled weights: the INI says where files lie; network and preparation come with them."""

import logging
from dataclasses import replace

from niftynet_compat import Config, ConfigError
from pimms_tf.weights import bundled_preparation

log = logging.getLogger(__name__)


def with_bundled(config: Config) -> Config:
    """The configuration as it is, or with `[PIMMS] weights = bundled` that of a run with the bundled network.

    Which network it is and how its scans are prepared then comes with the weights, whatever else the file says of it;
    where files lie, which subjects are segmented and how results are written is the file's.

    Raises:
        ConfigError: the task is not segmentation into two classes, or names modalities the weights do not know.
    """
    if not config.pimms.weights:
        return config
    record = bundled_preparation()
    if config.task_name == "CLASSIFICATION" or config.task.num_classes not in (-1, record.num_classes):
        raise ConfigError(
            f"{config.path}: weights = {config.pimms.weights} in [PIMMS] segments {' and '.join(record.class_names)}; "
            f"write num_classes = {record.num_classes} in [{config.task_name}], or train a network of your own"
        )
    unknown = set(config.pimms.modalities) - set(record.modalities)
    if unknown:
        raise ConfigError(
            f"{config.path}: modalities in [PIMMS] has {', '.join(sorted(unknown))}, but the weights know "
            f"{', '.join(record.modalities)}; leave it out, and name the modality of each section in image_modalities"
        )
    scans = set(config.sources("image"))
    grid = {"axcodes": record.axcodes, "pixdim": record.pixdim_mm}
    sections = {*scans, *config.sources("label"), *config.sources("sampler")}
    choices = {name: value for name, value in record.choices.items() if hasattr(config.pimms, name)}
    log.info("weights = bundled: what the network is and how scans are prepared comes with the weights")
    return replace(
        config,
        network=replace(
            config.network,
            name=f"pimms_{record.variant}",
            whitening=record.whitening,
            normalisation=record.standardises,
            normalise_foreground_only=record.foreground is not None,
            foreground_type=record.foreground or config.network.foreground_type,
            multimod_foreground_type=record.fusion,
            volume_padding_size=record.padding,
            volume_padding_to_size=(0,),
            window_sampling=config.network.window_sampling.replace("resize", "uniform"),
        ),
        task=replace(config.task, num_classes=record.num_classes, label_normalisation=False),
        pimms=replace(
            config.pimms,
            preset=record.preset,
            modalities=record.modalities,
            blank_outside=record.blank_outside,
            zero_background=record.zero_background,
            classifier_slices=record.classifier_slices,
            classifier_scope=record.classifier_scope,
            **choices,
        ),
        inputs={
            name: replace(section, **grid) if name in sections else section for name, section in config.inputs.items()
        },
    )
