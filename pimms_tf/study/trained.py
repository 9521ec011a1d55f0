"""Model folders → models with weights."""

import logging

import tensorflow as tf

from niftynet_compat import Config, ConfigError, ModelDir
from pimms_tf.inference.loading import assign
from pimms_tf.models import PIMMS
from pimms_tf.study import journal
from pimms_tf.study.network import network
from pimms_tf.study.task import Task, check_num_classes
from pimms_tf.training import Checkpoints, load_arrays
from pimms_tf.weights import bundled_arrays, bundled_model

log = logging.getLogger(__name__)


def trained_model(config: Config, task: Task) -> PIMMS:
    if task.segments:
        check_num_classes(config, task)
    folder = ModelDir(config.model_dir)
    if config.pimms.weights and not folder.iterations():
        return bundled_model()  # a model folder with checkpoints has gone on from there
    from_parts = config.segmenter_dir is not None and config.classifier_dir is not None
    if from_parts and not folder.iterations():
        # Hard and Soft need no training of their own: a HeMIS segmenter and a classifier are all there is.
        model = network(task)
        warm_start(config, model)
        return model
    if task.variant in ("hard", "soft") and not folder.iterations():
        raise ConfigError(
            f"{config.path}: model_dir {folder.root} has no checkpoint; train first, or name the model folders of a "
            "HeMIS network and of a classifier in [PIMMS] segmenter and classifier"
        )
    folder.prepare("inference")
    model = network(task)
    iteration = tf.Variable(0, dtype=tf.int64)
    journal.network_built(config)
    if config.pimms.use_best:
        Checkpoints(folder.checkpoints / "best", model, None, iteration).restore()
    else:
        number = folder.resolve(config.inference.inference_iter, zero_is_random=False)
        Checkpoints(folder.checkpoints, model, None, iteration).restore(number)
    return model


def warm_start(config: Config, model: PIMMS) -> None:
    """Loads the parts that were trained on their own: `[PIMMS] segmenter` and `classifier`, each a model folder.

    With `[PIMMS] weights` the whole is what the package brings, but for parts that are named.
    """
    if config.pimms.weights:
        assign(model, bundled_arrays())
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
