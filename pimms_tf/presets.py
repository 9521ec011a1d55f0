"""The tables of the questions on which paper and released code differ: what a variant and what a preset sets.

Plain values without Keras, so that a configuration can be checked before TensorFlow is there.
"""

# What makes a variant; everything else is a choice that all of them share. Hard and Soft take a segmenter trained as
# HeMIS and a classifier trained on its own, so no gradient passes from one to the other.
VARIANTS = {
    "hemis": {"attention": "label", "joint": False},
    "hard": {"attention": "hard", "joint": False},
    "soft": {"attention": "soft", "joint": False},
    "online": {"attention": "soft", "joint": True},
}

# Every cell of the table "paper versus code" that concerns the model. Loss choices are in pimms_tf.training.losses.
PRESETS = {
    "paper": {
        "null_class": False,
        "attention_normalise": "none",
        "abstraction_missing": "exclude",
        "abstraction_ddof": 0,
        "mask_scope": "sample",
        "frontend": "paper",
        "norm": "batch",
        "norm_scope": "present",
        "init": "he_normal",
        "classifier_features": (16, 64, 128, 256),
        "classifier_blocks": 9,
        "classifier_pool": "spatial",
        "classifier_head_bn": False,
        "classifier_extra_bn": False,
        "classifier_average": "debiased",
        "regularise": "all",
    },
    "niftynet2018": {
        "null_class": False,
        "attention_normalise": "none",
        "abstraction_missing": "zeros",
        "abstraction_ddof": 0,
        "mask_scope": "batch",
        "frontend": "highres_1x1",
        "norm": "batch",
        "norm_scope": "all",
        "init": "niftynet",
        "classifier_features": (16, 64, 128, 256),
        "classifier_blocks": 9,
        "classifier_pool": "spatial_and_channel",
        "classifier_head_bn": True,
        "classifier_extra_bn": False,
        "classifier_average": "debiased",
        "regularise": "classifier",
    },
}

# The released Online network is another program than the released offline ones; these cells differ.
_ONLINE_2018 = {
    "null_class": True,
    "attention_normalise": "sum",
    "norm_scope": "slot",
    "classifier_blocks": 10,
    "classifier_head_bn": False,
    "classifier_average": "plain",
    "regularise": "all",
}

# What `[PIMMS] resampling` and `[PIMMS] augmentation` leave to the preset.
RESAMPLING = {"paper": "mended", "niftynet2018": "niftynet"}
AUGMENTATION = {"paper": "composed", "niftynet2018": "chained"}


def preset_choices(variant: str, preset: str) -> dict:
    """Returns the arguments of `PIMMS` that a preset sets for a variant ("classifier" is the classifier on its own)."""
    if preset not in PRESETS:
        raise ValueError(f"preset is one of {', '.join(PRESETS)}, got {preset!r}")
    choices = dict(PRESETS[preset])
    if preset == "niftynet2018" and variant == "online":
        choices |= _ONLINE_2018
    return choices
