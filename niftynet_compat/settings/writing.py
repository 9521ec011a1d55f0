"""A configuration written out: NiftyNet's settings_*.txt, and an INI file that gives the same configuration again.

Source: `niftynet/engine/application_driver.py`, `niftynet/utilities/user_parameters_parser.py`.
"""

import dataclasses
import re
from datetime import datetime

from niftynet_compat.paths import search_folders
from niftynet_compat.schema import sections
from niftynet_compat.schema.sections import Value
from niftynet_compat.settings.config import Config


def settings_text(config: Config, when: datetime | None = None) -> str:
    """Returns the text of `settings_<action>.txt`: a time stamp, then every value as `-- key: value`.

    The task comes first as [CUSTOM], then [CONFIG_FILE], the input sections in capitals, and the system sections; a
    reader of NiftyNet's own files can read it. `when` is now unless given.
    """
    stamp = (when or datetime.now()).strftime("%Y-%m-%d %H:%M:%S")
    lines = [f"Input params at {stamp}."]
    lines += _listing("CUSTOM", config.task, name=config.application)
    lines += ["[CONFIG_FILE]", f"-- path: {config.path}"]
    for name, section in config.inputs.items():
        lines += _listing(name.upper(), section)
    lines += _listing("SYSTEM", config.system, model_dir=str(config.model_dir), action=config.action or "")
    for name in ("NETWORK", "TRAINING", "INFERENCE", "EVALUATION", "PIMMS"):
        lines += _listing(name, getattr(config, name.lower()))
    return "\n".join(lines) + "\n"


def ini_text(config: Config) -> str:
    """Returns an INI file with every resolved value; `load_config` of it gives `absolute_paths(config)` again.

    Paths that depend on the working directory or on the folder of the INI file are written from the root, so the file
    can be kept anywhere. Unset values are left out. Only `path`, `remarks` and origins of the two differ.
    """
    config = absolute_paths(config)
    parts = [
        *config.inputs.items(),
        *((name, getattr(config, name.lower())) for name in sections.SYSTEM_SECTIONS if name != "PIMMS"),
        (config.task_name, config.task),
        ("PIMMS", config.pimms),
    ]
    blocks = [f"# Every setting of {config.path.name} as it was in effect."]
    blocks += ["\n".join([f"[{name}]", *_assignments(section)]) for name, section in parts]
    return "\n\n".join(blocks) + "\n"


def absolute_paths(config: Config) -> Config:
    """Returns the same configuration with every path that depends on a folder outside the model folder absolute."""
    folder = config.working_folder
    inputs = {
        name: dataclasses.replace(
            section,
            path_to_search=", ".join(map(str, search_folders(section.path_to_search, folder))),
            csv_data_file=section.csv_data_file and str(config.values_file(name)),
        )
        for name, section in config.inputs.items()
    }
    pimms = dataclasses.replace(
        config.pimms,
        segmenter=str(config.segmenter_dir or ""),
        classifier=str(config.classifier_dir or ""),
        cache=str(config.cache_dir or config.pimms.cache),
    )
    system = dataclasses.replace(config.system, model_dir=str(config.model_dir))
    return dataclasses.replace(config, inputs=inputs, pimms=pimms, system=system)


def _listing(title: str, section: object, **more: str) -> list[str]:
    values = {key: getattr(section, key) for key in sections.key_specs(type(section))} | more
    return [f"[{title}]", *(f"-- {key}: {value}" for key, value in values.items())]


def _assignments(section: object) -> list[str]:
    lines = []
    for key, spec in sections.key_specs(type(section)).items():
        value = getattr(section, key)
        if value is None or (value in ("", ()) and value == spec.default):
            continue
        lines.append(f"{key} = {ini_value(value)}".rstrip())
    return lines


def ini_value(value: Value) -> str:
    """Returns a value as the text that an INI file gives for it."""
    if isinstance(value, tuple):
        words = [_word(item) for item in value]
        # Brackets keep an empty list from being no value at all, and a blank stands for an empty word.
        return f"({', '.join(word or ' ' for word in words)})" if "" in words or not words else ", ".join(words)
    text = str(value)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    if quoted or re.search(r"\s[;#]", text):
        text = f'"{text}"'
    return text.replace("%", "%%").replace("\n", "\n    ")


def _word(item: str | int | float) -> str:
    text = str(item)
    # Elements of a list may not have the + of an exponent.
    return format(item, "f") if isinstance(item, float) and "+" in text else text
