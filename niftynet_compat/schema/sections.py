"""All sections of an INI file and all keys in them: the one table that every part looks up.

Field names and defaults are NiftyNet 0.6's, with the keys that the PIMMS fork added; `PimmsSection` is ours.
"""

from niftynet_compat.schema.keys import KeySpec, Ruling, Value, Verdict, key_specs, no_effect, shown
from niftynet_compat.schema.pimms import PimmsSection
from niftynet_compat.schema.system import (
    EvaluationSection,
    InferenceSection,
    NetworkSection,
    SystemSection,
    TrainingSection,
)
from niftynet_compat.schema.task import ClassificationSection, InputSection, MultitaskSection, SegmentationSection

__all__ = [
    "ALIASES",
    "INPUT",
    "KNOWN_KEYS",
    "OTHER_KEYS",
    "OTHER_KEY_RULING",
    "OTHER_TASKS",
    "SPECS",
    "SYSTEM_SECTIONS",
    "TASK_SECTIONS",
    "ClassificationSection",
    "EvaluationSection",
    "InferenceSection",
    "InputSection",
    "KeySpec",
    "MultitaskSection",
    "NetworkSection",
    "PimmsSection",
    "Ruling",
    "SegmentationSection",
    "SystemSection",
    "TaskSection",
    "TrainingSection",
    "Value",
    "Verdict",
    "key_specs",
    "sections_of",
    "shown",
]

TaskSection = SegmentationSection | ClassificationSection | MultitaskSection

SYSTEM_SECTIONS: dict[str, type] = {
    "SYSTEM": SystemSection,
    "NETWORK": NetworkSection,
    "TRAINING": TrainingSection,
    "INFERENCE": InferenceSection,
    "EVALUATION": EvaluationSection,
    "PIMMS": PimmsSection,
}
TASK_SECTIONS: dict[str, type] = {
    "SEGMENTATION": SegmentationSection,
    "CLASSIFICATION": ClassificationSection,
    "MULTITASK": MultitaskSection,
}
# Stands for every input section in `SPECS`; no section of a file can be called so.
INPUT = "[input]"

SPECS: dict[str, dict[str, KeySpec]] = {
    name: key_specs(section) for name, section in {**SYSTEM_SECTIONS, **TASK_SECTIONS, INPUT: InputSection}.items()
}

# Keys of tasks that are not built, which NiftyNet therefore knows everywhere, and keys that only PyYAML switches on.
OTHER_KEYS: dict[str, str] = {
    **dict.fromkeys(("loss_border", "error_map", "output"), "REGRESSION"),
    **dict.fromkeys(("inference_type", "noise_stddev", "n_interpolations", "feature"), "AUTOENCODER"),
    **dict.fromkeys(("noise_size", "conditioning"), "GAN"),
    **dict.fromkeys(("fixed_image", "fixed_label", "moving_image", "moving_label"), "REGISTRATION"),
    **dict.fromkeys(("weight_initializer_args", "bias_initializer_args"), "NETWORK"),
}
OTHER_KEY_RULING = no_effect("no task or network here has it")
OTHER_TASKS = ("REGRESSION", "AUTOENCODER", "GAN", "REGISTRATION")

# The later fork renamed this key; both spellings mean the same.
ALIASES: dict[str, str] = {"csv_path_file": "csv_file"}

KNOWN_KEYS: frozenset[str] = frozenset([*(key for specs in SPECS.values() for key in specs), *OTHER_KEYS, *ALIASES])


def sections_of(key: str) -> list[str]:
    """Returns the sections that have a key, in the order of `SPECS`; [] for one that none has."""
    key = ALIASES.get(key, key)
    return [name for name, specs in SPECS.items() if key in specs]
