"""Where settings meet objects: from a configuration to a run, prepared."""

__all__ = ["Scoring", "Study", "evaluation_study", "inference_study", "training_study"]


def __getattr__(name: str):
    # On first use, since `journal`, which the command line needs at once, lives here too and reads no images.
    if name in __all__:
        from pimms_tf.study import scoring, study

        return getattr(scoring if name in ("Scoring", "evaluation_study") else study, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
