"""Trained weights that come with the package: what they are says MODEL_CARD.md beside them, how good docs/weights.md.

`bundled.npz` holds arrays by variable path, `bundled.json` the record of how scans are prepared and what the network
is, `bundled.sha256` the checksums of both, as `sha256sum -c` reads them.
"""

from pimms_tf.weights.files import bundled_arrays, bundled_preparation

_WITH_TENSORFLOW = ("bundled", "bundled_model")

__all__ = ["bundled", "bundled_arrays", "bundled_model", "bundled_preparation"]


def __getattr__(name: str):
    if name in _WITH_TENSORFLOW:
        from pimms_tf.weights import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
