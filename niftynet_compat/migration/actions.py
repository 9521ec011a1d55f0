"""What each action comes to with a file: the results that NiftyNet would give, others, or none."""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from niftynet_compat.migration.joining import Join
from niftynet_compat.migration.original import has_split
from niftynet_compat.migration.verdicts import VERBS, KeyStatus
from niftynet_compat.runs.model_dir import ModelDir
from niftynet_compat.schema import programs, sections
from niftynet_compat.settings import requirements
from niftynet_compat.settings.config import Config, Inspection
from niftynet_compat.settings.reading import Findings
from pimms_tf.errors import ConfigError, Mistake

_SECTIONS = {"train": "TRAINING", "inference": "INFERENCE", "evaluation": "EVALUATION"}


class Outcome(enum.IntEnum):
    """What comes of an action, or of a file; its number is the exit code."""

    CLEAN = 0
    CHANGES = 1
    STOPS = 2

    def __str__(self) -> str:
        return ("clean", "results change", "cannot run")[self]


@dataclass(frozen=True)
class ActionOutcome:
    """What comes of one verb, and why it cannot run; `is_meant` if the file has settings for it."""

    verb: str
    outcome: Outcome
    reasons: tuple[str, ...]
    is_meant: bool


def action_outcomes(inspection: Inspection, keys: Sequence[KeyStatus], join: Join | None) -> tuple[ActionOutcome, ...]:
    """Returns what each verb comes to.

    Settings, the verdicts on them, and data and model as far as they are at hand decide. A file is meant for an action
    whose section it has; an empty [EVALUATION], which all files of NiftyNet carry along, asks for nothing.
    """
    rows = []
    for verb in VERBS:
        stopping = [key for key in keys if key.stops and verb in key.verbs]
        reasons = [*_lacks(inspection, verb, stopping), *_first(stopping)]
        reasons += [join.obstacle] if join is not None and join.obstacle else []
        changes = any(key.changes_results and verb in key.verbs for key in keys)
        outcome = Outcome.STOPS if reasons else Outcome.CHANGES if changes else Outcome.CLEAN
        rows.append(ActionOutcome(verb, outcome, tuple(dict.fromkeys(reasons)), _is_meant(inspection, verb)))
    return tuple(rows)


def not_loaded() -> tuple[ActionOutcome, ...]:
    """Returns what comes of a file that cannot even be read."""
    return tuple(ActionOutcome(verb, Outcome.STOPS, ("the file does not load",), True) for verb in VERBS)


def _is_meant(inspection: Inspection, verb: str) -> bool:
    section = next((each for each in inspection.file.sections if each.name == _SECTIONS[verb]), None)
    return section is not None and (verb != "evaluation" or bool(section.entries))


def _first(rows: Sequence[KeyStatus]) -> list[str]:
    if not rows:
        return []
    first = rows[0]
    place = " ".join(filter(None, (f"[{first.section}]" if first.section else "", first.key)))
    more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
    return [": ".join(filter(None, (place, first.sentence))) + more]


def _lacks(inspection: Inspection, verb: str, stopping: Sequence[KeyStatus]) -> list[str]:
    """What the file, or its model folder, lacks for a verb: the first reason, if there is one."""
    file, known, config = inspection
    if not config.application:
        return ["the file has no task section"]
    found = {section.name: section for section in file.sections}
    parts = {name.lower(): getattr(config, name.lower()) for name in sections.SYSTEM_SECTIONS}
    findings = Findings(file.path, list(known.mistakes), lines=known.lines)
    requirements.check_needs(programs.canonical_action(verb), config.task_name, config.task, parts, found, findings)
    told = {(row.section, row.key) for row in stopping if row.key}
    new = findings.mistakes[len(known.mistakes) :]
    reasons = [_reason(mistake) for mistake in new if (mistake.section, mistake.key) not in told]
    if verb != "evaluation":
        reasons.append(_window(config))
    if verb == "train":
        reasons.append(_rank(config))
    reasons += [_in_folders(find, config) for find in _FOLDER_REASONS.get(verb, ())]
    if verb == "evaluation" and config.task_name == "CLASSIFICATION":
        reasons.append("evaluation scores segmentations, and a classifier makes none")
    return [reason for reason in reasons if reason][:1]


def _reason(mistake: Mistake) -> str:
    """A mistake as the reason why a verb cannot run, in a report that has named the file."""
    return str(mistake if mistake.key else replace(mistake, path=None))


def _window(config: Config) -> str:
    try:
        window = config.common("image", "spatial_window_size")
    except ConfigError as error:
        return _reason(error.mistakes[0])
    except KeyError:  # a section that is not there, which a mistake says
        return ""
    if window or config.inference.spatial_window_size:
        return ""
    return "spatial_window_size is set neither in the input sections of image nor in [INFERENCE]"


def _rank(config: Config) -> str:
    try:
        window = config.common("image", "spatial_window_size") or config.inference.spatial_window_size
    except (ConfigError, KeyError):
        return ""
    resolved = programs.NETWORKS.get(config.network.name)
    if not window or resolved is None or resolved.ours is None:
        return ""
    return requirements.rank_complaint(window, config.pimms.spatial_rank) or ""


def _validation(config: Config) -> str:
    training = config.training
    if training.validation_every_n <= 0 or training.exclude_fraction_for_validation > 0 or has_split(config):
        return ""
    is_inside = config.split_file.is_relative_to(config.model_dir)
    if not _is_at_hand(config.model_dir if is_inside else config.split_file):
        return ""  # wherever that list lies, it may name validation subjects
    return (
        f"validation_every_n = {training.validation_every_n} needs validation subjects, but "
        "exclude_fraction_for_validation is 0 and there is no split file "
        f"{config.system.dataset_split_file}; NiftyNet stops there too"
    )


def _start(config: Config) -> str:
    """Why training could not begin where `starting_iter` says, in a model folder that is at hand."""
    start = config.training.starting_iter
    present = _checkpoints(config)
    if present is None:
        return ""
    if present and _is_niftynets(config, present[-1]):
        return "model_dir holds NiftyNet's checkpoints; pimms-tf import-checkpoint makes a model_dir of them"
    if start == 0 and present:
        return f"starting_iter = 0 would write over the checkpoints up to {present[-1]} in model_dir, which is refused"
    if start != 0 and (not present or (start > 0 and start not in present)):
        what = f"checkpoint {start}" if start > 0 else "checkpoint"
        return f"starting_iter = {start}, but model_dir has no {what}; NiftyNet stops there too"
    return ""


def _model(config: Config) -> str:
    """Why inference could not load its weights, where a model folder has some."""
    wanted, present = config.inference.inference_iter, _checkpoints(config)
    if not present:
        return ""  # training makes them
    if _is_niftynets(config, present[-1]):
        return "model_dir holds NiftyNet's checkpoints; pimms-tf import-checkpoint makes a model_dir of them"
    if wanted >= 0 and wanted not in present:
        return f"inference_iter = {wanted}, but model_dir has checkpoints up to {present[-1]} without it"
    return ""


def _checkpoints(config: Config) -> list[int] | None:
    """The checkpoints in the model folder; None if neither it nor the folder around it is there to look at."""
    return ModelDir(config.model_dir).iterations() if _is_at_hand(config.model_dir) else None


def _is_niftynets(config: Config, iteration: int) -> bool:
    return ModelDir(config.model_dir).is_niftynets(iteration)


def _is_at_hand(path: Path) -> bool:
    return path.exists() or path.parent.is_dir()


def _in_folders(find: Callable[[Config], str], config: Config) -> str:
    """The reason found, "" where the system does not let folders be looked at."""
    try:
        return find(config)
    except OSError:
        return ""


_FOLDER_REASONS = {"train": (_validation, _start), "inference": (_model,)}
