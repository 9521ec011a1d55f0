"""A NiftyNet INI file as one checked, frozen value: `load_config`.

All mistakes of a file are reported together. What NiftyNet accepts but ignores, or understands otherwise than the
writer meant, becomes a remark; nothing is dropped in silence.

Source: `niftynet/utilities/user_parameters_parser.py` and `niftynet/engine/application_driver.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from niftynet_compat import ini
from niftynet_compat.paths import absolute, expanded, find_config, first_file, niftynet_home
from niftynet_compat.schema import programs, sections
from niftynet_compat.schema.sections import (
    ClassificationSection,
    EvaluationSection,
    InferenceSection,
    InputSection,
    MultitaskSection,
    NetworkSection,
    PimmsSection,
    SegmentationSection,
    SystemSection,
    TaskSection,
    TrainingSection,
    Value,
)
from niftynet_compat.settings import requirements
from niftynet_compat.settings.command_line import option_words
from niftynet_compat.settings.reading import Findings, SectionReader
from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError, Remark

__all__ = [
    "ClassificationSection",
    "Config",
    "ConfigError",
    "EvaluationSection",
    "InferenceSection",
    "InputSection",
    "MultitaskSection",
    "NetworkSection",
    "PimmsSection",
    "Remark",
    "SegmentationSection",
    "SystemSection",
    "TaskSection",
    "TrainingSection",
    "find_config",
    "load_config",
    "niftynet_home",
]


@dataclass(frozen=True)
class Config:
    """Every setting of one run. Sections hold the values of the file (paths as written); properties give whole paths.

    `application` is net_segment, net_classify or net_multitask; `action` is training, inference, evaluation, export or
    None; `inputs` has one section per kind of file, in the order of the file.
    """

    path: Path
    application: str
    action: str | None
    system: SystemSection
    network: NetworkSection
    training: TrainingSection
    inference: InferenceSection
    evaluation: EvaluationSection
    task: TaskSection
    pimms: PimmsSection
    inputs: Mapping[str, InputSection]
    remarks: tuple[Remark, ...] = ()
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)
    working_folder: Path = field(default_factory=Path.cwd, compare=False, repr=False)

    def origin(self, section: str, key: str) -> str:
        """Returns where a value comes from: `default`, `file:line`, `--key`, or `-a` for what a program always did."""
        return self.origins.get((section, key), "default")

    @property
    def model_dir(self) -> Path:
        """The model folder: absolute, relative names taken from the working directory; it need not exist."""
        given = self.working_folder / expanded(self.system.model_dir or self.path.parent / "model")
        home = niftynet_home()
        if given.is_file():
            given = given.parent
        elif not given.is_dir() and home is not None and (home / self.system.model_dir).is_dir():
            given = home / self.system.model_dir
        return absolute(given)

    @property
    def split_file(self) -> Path:
        """The list of subject,phase; relative names are taken from the model folder."""
        return self._in_model_dir(self.system.dataset_split_file)

    @property
    def histogram_file(self) -> Path | None:
        """The file of landmarks and label maps, relative to the model folder; None if the key is set to nothing."""
        name = self.network.histogram_ref_file
        return self._in_model_dir(name) if name else None

    @property
    def save_seg_dir(self) -> Path:
        """The folder of results; relative names are taken from the model folder."""
        return self._in_model_dir(self.inference.save_seg_dir)

    @property
    def save_csv_dir(self) -> Path:
        """The folder of evaluation tables; relative names are taken from the model folder."""
        return self._in_model_dir(self.evaluation.save_csv_dir)

    @property
    def segmenter_dir(self) -> Path | None:
        """The model folder of `[PIMMS] segmenter`, relative to the INI's folder; None if unset."""
        return self._beside_ini(self.pimms.segmenter)

    @property
    def classifier_dir(self) -> Path | None:
        """The model folder of `[PIMMS] classifier`, relative to the INI's folder; None if unset."""
        return self._beside_ini(self.pimms.classifier)

    @property
    def cache_dir(self) -> Path | None:
        """The folder of `[PIMMS] cache`, relative to the working directory; None if unset or off."""
        name = self.pimms.cache
        return None if not name or self.cache_is_off else absolute(self.working_folder / expanded(name))

    @property
    def cache_is_off(self) -> bool:
        """Whether `[PIMMS] cache` says that prepared scans are kept nowhere."""
        return self.pimms.cache.lower() in ("off", "no", "none", "false", "0")

    def values_file(self, section: str) -> Path:
        """The list that `csv_data_file` of an input section names: in the working folder, else beside the INI file.

        Where it is in neither, the place in the working folder is returned, as NiftyNet's.
        """
        given = expanded(self.inputs[section].csv_data_file)
        places = [self.working_folder / given, self.path.parent / given]
        return first_file(places) or absolute(places[0])

    def sources(self, key: str) -> tuple[str, ...]:
        """Returns the input sections named by a key of the task, such as `image`; () for a key the task lacks."""
        return getattr(self.task, key, ())

    def common(self, key: str, setting: str) -> Value:
        """Returns the one value of an input setting among the sections named by a key of the task.

        Sections that leave `spatial_window_size`, `pixdim` or `axcodes` empty count like the others. A section
        called like the key itself provides a window when none of the named ones has any, as in NiftyNet.

        Raises:
            ConfigError: no section is named, or two of them differ.
        """
        names_ = self.sources(key)
        if not names_:
            raise ConfigError(
                f"{key} is not set in [{self.task_name}]; name the input sections it consists of", path=self.path
            )
        values = {name: getattr(self.inputs[name], setting) for name in names_}
        if setting == "spatial_window_size" and not any(values.values()) and key in self.inputs:
            return self.inputs[key].spatial_window_size
        first = values[names_[0]]
        for name, value in values.items():
            if value != first:
                raise ConfigError(
                    f"[{names_[0]}] {setting} = {first} and [{name}] {setting} = {value} differ, but both are sources "
                    f"of {key} in [{self.task_name}]; give them the same value",
                    path=self.path,
                )
        return first

    @property
    def modality_names(self) -> tuple[str, ...]:
        """The modality classes in order: `[PIMMS] modalities`, or those of the sections in `image`, each once."""
        return self.pimms.modalities or tuple(dict.fromkeys(self.scan_modalities))

    @property
    def scan_modalities(self) -> tuple[str, ...]:
        """The modality of each section in `image`: `[PIMMS] image_modalities`, or the section's own name."""
        return self.pimms.image_modalities or self.task.image

    @property
    def task_name(self) -> str:
        """SEGMENTATION, CLASSIFICATION or MULTITASK."""
        return programs.APPLICATIONS[self.application]

    def _in_model_dir(self, name: str) -> Path:
        return absolute(self.model_dir / expanded(name))

    def _beside_ini(self, name: str) -> Path | None:
        return absolute(self.path.parent / expanded(name)) if name else None


def load_config(
    path: str | Path,
    overrides: Mapping[str, str] | Sequence[str] | None = None,
    application: str | None = None,
    action: str | None = None,
) -> Config:
    """Returns the checked settings of an INI file, with `overrides`: {key: text}, or the words of a command line.

    An override goes to the first section of the file that has the key; input sections cannot be overridden. In words
    a value may stand behind other options, if their sections come first. Without an `application` the task is whichever
    task section the file has. With an `action` the sections and keys that the action needs must be there.

    Raises:
        ConfigError: the file is not found or not readable, or has mistakes: one sentence each, one per line.

    Source: order of checks as `niftynet/utilities/user_parameters_parser.py`, `run`.
    """
    inspection = inspect_config(path, overrides, application, action)
    inspection.findings.raise_if_any()
    return inspection.config


class Inspection(NamedTuple):
    """A file as read, whatever is wrong with it: text, findings, and values with the default where one is wrong.

    Without a mistake `config` is what `load_config` returns. A file without task has no `application` and no `task`.
    """

    file: ini.IniFile
    findings: Findings
    config: Config


def inspect_config(
    path: str | Path,
    overrides: Mapping[str, str] | Sequence[str] | None = None,
    application: str | None = None,
    action: str | None = None,
) -> Inspection:
    """Returns what `load_config` sees of a file, whose mistakes are in `.findings.mistakes` instead of raised.

    Raises:
        ConfigError: the file is not found or not readable, or `application` or `action` is not a word for one.
    """
    path = find_config(path)
    action = None if action is None else programs.canonical_action(action)
    wanted = None if application in (None, "net_run") else programs.application_section(application)
    file = ini.read_ini(path)
    findings = Findings(path, list(file.mistakes), list(file.remarks))
    found = {section.name: section for section in file.sections}
    task = _task_of(found, wanted, findings)
    words = option_words(overrides) if isinstance(overrides, Mapping) else list(overrides or ())
    reader = SectionReader(findings, found, task, words)

    parts = {name.lower(): reader.section(name) for name in sections.SYSTEM_SECTIONS}
    task_part = reader.section(task) if task else None
    inputs = {name: reader.input_section(name) for name in found if reader.is_input(name)}
    reader.finish(task_part, parts, inputs)

    named = _named_sections(task_part)
    inputs = {
        name: dataclasses.replace(_with_csv_path(section, path), referenced=name in named)
        for name, section in inputs.items()
    }
    if not parts["system"].model_dir:
        default = str(absolute(path.parent / "model"))
        parts["system"] = dataclasses.replace(parts["system"], model_dir=default)
    _take_rank_of_windows(parts, task_part, inputs, findings)
    if task_part is not None:
        task_part, parts = requirements.as_the_program(application, task, task_part, parts, findings)
        requirements.check_needs(action, task, task_part, parts, found, findings)
        requirements.check_references(task, task_part, parts["pimms"], inputs, findings)
        requirements.remark_on_idle_values(task, task_part, parts, findings)
    config = Config(
        path=path,
        application=programs.APPLICATION_OF_SECTION.get(task, ""),
        action=action,
        task=task_part,
        inputs=inputs,
        remarks=tuple(sorted(dict.fromkeys(findings.remarks), key=lambda remark: remark.line)),
        origins=dict(findings.origins),
        working_folder=Path.cwd(),
        **parts,
    )
    return Inspection(file, findings, config)


def _take_rank_of_windows(
    parts: dict[str, object], task_part: TaskSection | None, inputs: Mapping[str, InputSection], findings: Findings
) -> None:
    """Lets windows that are volumes ask for a network of volumes, as NiftyNet's networks take their rank from them."""
    for name in getattr(task_part, "image", ()):
        window = inputs[name].spatial_window_size if name in inputs else ()
        if len(window) >= 3 and min(window[:3]) > 1 and ("PIMMS", "spatial_rank") not in findings.origins:
            parts["pimms"] = dataclasses.replace(parts["pimms"], spatial_rank=3)
            findings.origins["PIMMS", "spatial_rank"] = findings.origins[name, "spatial_window_size"]


def _task_of(found: Mapping[str, ini.IniSection], wanted: str | None, findings: Findings) -> str | None:
    present = [name for name in sections.TASK_SECTIONS if name in found]
    if wanted in present:
        return wanted
    if wanted is None and len(present) == 1:
        return present[0]
    if wanted is None and present:
        both = " and ".join(f"[{name}]" for name in present)
        findings.mistake(
            f"has {both}; say with -a which application is meant: net_segment, net_classify, net_multitask"
        )
        return None
    options = [wanted] if wanted else list(sections.TASK_SECTIONS)
    others = [name for name in (*sections.TASK_SECTIONS, *sections.OTHER_TASKS) if name in found]
    near = [name for name in found if nearest(name, options) and name not in sections.TASK_SECTIONS]
    hint = f"did you mean that by [{near[0]}]?" if near else "add it with the keys image, label and num_classes"
    if others and not near:
        program = programs.APPLICATION_OF_SECTION.get(others[0])
        what = f"that of -a {program}" if program else "a task of NiftyNet that is not built here"
        hint = f"it has [{others[0]}], {what}"
    listed = " or ".join(f"[{name}]" for name in options)
    findings.mistake(f"requires the section {listed}, which is not there; {hint}")
    return None


def _named_sections(part: TaskSection | None) -> set[str]:
    if part is None:
        return set()
    specs = sections.key_specs(type(part)).values()
    return {name for spec in specs if spec.names_sections for name in getattr(part, spec.name)}


def _with_csv_path(section: InputSection, ini_path: Path) -> InputSection:
    if not section.csv_file:
        return section
    given = expanded(section.csv_file)
    home = niftynet_home()
    beside = ini_path.parent / given
    # A list that is nowhere keeps the place beside the INI; reading subjects will say that it is missing.
    place = first_file([Path.cwd() / given, beside, *([home / given] if home else [])]) or absolute(beside)
    return dataclasses.replace(section, csv_file=str(place))
