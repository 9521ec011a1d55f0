"""Why NiftyNet 0.6 would not run a file, in the order of its own checks.

Source: `niftynet/utilities/user_parameters_parser.py`, `niftynet/engine/application_driver.py`.
"""

from collections.abc import Iterator

from niftynet_compat import ini
from niftynet_compat.ini import Entry
from niftynet_compat.runs.model_dir import ModelDir
from niftynet_compat.schema import sections
from niftynet_compat.schema.programs import STOCK_NETWORKS
from niftynet_compat.settings.config import Config, Inspection
from pimms_tf.errors import one_line

# What NiftyNet 0.6 knows in any section: everything but our keys and the fork's.
STOCK_KEYS: frozenset[str] = frozenset(
    [
        *sections.OTHER_KEYS,
        *(
            key
            for name, specs in sections.SPECS.items()
            if name != "PIMMS"
            for key, spec in specs.items()
            if not spec.fork
        ),
    ]
)
_TASKS = ("SEGMENTATION", "CLASSIFICATION", "REGRESSION", "AUTOENCODER", "GAN", "REGISTRATION")
_SYSTEM = ("SYSTEM", "NETWORK", "TRAINING", "INFERENCE", "EVALUATION")


def original_outcome(inspection: Inspection) -> tuple[str, ...]:
    """Returns why NiftyNet 0.6 stops at the file, one sentence per reason; () if it would run it, given the data."""
    config = inspection.config
    reasons = [*_grammar(inspection), *_sections(inspection), *_values(inspection)]
    if config.application:
        reasons += [*_network(config), *_combinations(inspection)]
    return tuple(dict.fromkeys(reasons))


def _grammar(inspection: Inspection) -> Iterator[str]:
    if inspection.file.mistakes:
        yield f"its parser refuses {len(inspection.file.mistakes)} of the lines that are refused here"
    try:
        begins = inspection.file.path.read_bytes()[:3]
    except OSError:
        begins = b""
    if begins == b"\xef\xbb\xbf":
        yield "the file begins with a byte-order mark, which it takes for a line outside any section"


def _sections(inspection: Inspection) -> Iterator[str]:
    found = {section.name for section in inspection.file.sections}
    if "SYSTEM" not in found:
        yield "[SYSTEM] is missing"
    if not found & set(_TASKS):
        other = "[MULTITASK] is no task of it: " if "MULTITASK" in found else ""
        yield f"{other}the task section is missing, one of {', '.join(_TASKS[:-1])}"
    unknown = [
        (entry.line, key, section.name)
        for section in inspection.file.sections
        for key, entry in section.entries.items()
        if key not in STOCK_KEYS
    ]
    if unknown:
        line, key, name = min(unknown)
        more = sorted({other for _, other, _ in unknown} - {key})
        also = f", nor are {', '.join(more)}" if more else ""
        yield f"{key} of [{name}] in line {line} is no key of it{also}"
    task = next((name for name in _TASKS if name in found), None)
    for section in inspection.file.sections:
        if section.name in (*_SYSTEM, task):
            continue
        if not {"csv_file", "path_to_search", "csv_data_file"} & set(section.entries):
            yield f"[{section.name}] counts as an input section and has neither path_to_search nor csv_file"


def _values(inspection: Inspection) -> Iterator[str]:
    task = inspection.config.application and inspection.config.task_name
    for section in inspection.file.sections:
        name = section.name
        specs = sections.SPECS.get(name if name in _SYSTEM or name == task else sections.INPUT, {})
        for key, entry in section.entries.items():
            spec = specs.get(key)
            if spec is None:
                continue
            place = f"{key} in line {entry.line}"
            if entry.quoted and (spec.parse is not ini.to_str or spec.choices or key == "name"):
                yield f"{place} has quotes, which it takes as part of the value"
            if entry.text == "" and spec.parse in (ini.to_int, ini.to_float, ini.to_bool):
                yield f"{place} is empty, where it wants a value"
            if entry.text == "None" and key in ("loader", "axcodes", "pixdim"):
                yield f"{place} is None, which it takes as a word"
            words = [word.strip() for word in entry.text.split(",")] if spec.several else [entry.text]
            if spec.choices and not spec.fold and any(_other_case(word, spec.choices) for word in words):
                yield f"{place} is {one_line(entry.text)}, which it knows in another spelling of capitals only"
            yield from _refused(inspection, name, key, entry)


def _refused(inspection: Inspection, section: str, key: str, entry: Entry) -> Iterator[str]:
    spec = sections.SPECS.get(section, {}).get(key)
    if inspection.findings.has_mistake(section, key) and key in STOCK_KEYS and not (spec and spec.names_sections):
        yield f"{key} in line {entry.line} has a value that is refused here too, or fails later"
    if key == "evaluations" and any(word != word.strip() for word in entry.text.split(",")):
        yield f"{key} in line {entry.line} has blanks beside a comma, which it takes as part of a metric's name"


def _other_case(word: str, choices: tuple[str, ...]) -> bool:
    return word not in choices and word.lower() in {choice.lower() for choice in choices}


def _network(config: Config) -> Iterator[str]:
    name = config.network.name
    if not name:
        yield "name of [NETWORK] is not set"
    elif name not in STOCK_NETWORKS:
        yield f"the network {name} cannot be imported: it is not part of NiftyNet 0.6"


def _combinations(inspection: Inspection) -> Iterator[str]:
    config = inspection.config
    task, network, training = config.task, config.network, config.training
    labels = config.sources("label")
    for key in ("image", "label", "sampler"):
        for name in config.sources(key):
            if name not in config.inputs:
                yield f"{key} names [{name}], which is not in the file"
    if getattr(task, "label_normalisation", False) and len(labels) > 1:
        yield f"label_normalisation with {len(labels)} sections of label is not implemented"
    if config.task_name == "CLASSIFICATION" and network.window_sampling != "resize":
        yield f"classification knows only window_sampling = resize, and here it is {network.window_sampling}"
    elif network.window_sampling == "patch":
        yield "window_sampling = patch has no sampler in it"
    if network.window_sampling in ("weighted", "balanced") and not config.sources("sampler"):
        yield f"window_sampling = {network.window_sampling} needs sampler in [{config.task_name}]"
    valued = [name for key in ("image", "label") for name in config.sources(key) if _is_values(config, name)]
    for name in dict.fromkeys(valued):
        yield f"[{name}] has csv_data_file, and its applications do not load such sections"
    if network.multimod_foreground_type == "multi" and network.normalise_foreground_only and len(task.image) > 1:
        yield "multimod_foreground_type = multi gives it an empty mask"
    windows = [config.inputs[name].spatial_window_size for name in config.sources("image") if name in config.inputs]
    if windows and not windows[-1] and not ("image" in config.inputs and config.inputs["image"].spatial_window_size):
        yield f"[{config.sources('image')[-1]}] has no spatial_window_size"
    if training.validation_every_n > 0 and training.exclude_fraction_for_validation == 0 and not has_split(config):
        yield "validation_every_n needs validation subjects, and there is neither a split file nor a fraction"
    yield from _checkpoints(config)


def _is_values(config: Config, name: str) -> bool:
    return name in config.inputs and bool(config.inputs[name].csv_data_file)


def has_split(config: Config) -> bool:
    """Returns whether the split file is there."""
    try:
        return config.split_file.is_file()
    except OSError:
        return False


def _checkpoints(config: Config) -> Iterator[str]:
    start = config.training.starting_iter
    try:
        present = ModelDir(config.model_dir).iterations()
    except OSError:
        present = []
    if start < 0 and not present:
        yield f"starting_iter = {start} needs a checkpoint in model_dir, which has none: training stops"
    elif start > 0 and start not in present:
        yield f"starting_iter = {start} needs that checkpoint in model_dir: training stops"
