"""The bundled weights in their network."""

from pimms_tf.inference import Segmenter
from pimms_tf.inference.loading import assign
from pimms_tf.inference.network import build_network
from pimms_tf.inference.preparation import Method
from pimms_tf.models import PIMMS
from pimms_tf.weights.files import bundled_arrays, bundled_preparation


def bundled(method: Method = "auto") -> Segmenter:
    """The segmenter whose weights come with the package: any number of T1, T2 and FLAIR scans, without names.

    Raises:
        InputError: the files of the installation are damaged.
    """
    return Segmenter(bundled_model(), bundled_preparation(), method)


def bundled_model() -> PIMMS:
    """The network of `bundled`, whose weights are found by name and shape alone.

    Raises:
        InputError: the files of the installation are damaged.
    """
    model = build_network(bundled_preparation())
    assign(model, bundled_arrays())
    return model
