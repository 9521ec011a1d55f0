"""NiftyNet's files and words: INI settings, subject discovery, data splits, model folders, mapping files."""

from niftynet_compat.migration.actions import ActionOutcome, Outcome
from niftynet_compat.migration.cleaning import cleaned_path, is_cleaned, write_cleaned
from niftynet_compat.migration.report import Migration, as_dict, migrate_file, migration_report
from niftynet_compat.migration.verdicts import KeyStatus
from niftynet_compat.runs.checkpoint import import_tf1
from niftynet_compat.runs.histogram_file import (
    LabelMapping,
    read_label_mapping,
    read_mapping,
    write_label_mapping,
    write_mapping,
)
from niftynet_compat.runs.model_dir import ModelDir
from niftynet_compat.schema.keys import Verdict
from niftynet_compat.schema.keys_text import explain_key, keys_help, keys_markdown
from niftynet_compat.schema.programs import NETWORKS, resolve_network
from niftynet_compat.settings.config import (
    ClassificationSection,
    Config,
    ConfigError,
    EvaluationSection,
    InferenceSection,
    InputSection,
    MultitaskSection,
    NetworkSection,
    PimmsSection,
    Remark,
    SegmentationSection,
    SystemSection,
    TrainingSection,
    load_config,
)
from niftynet_compat.settings.writing import ini_text, settings_text
from niftynet_compat.subjects.discovery import (
    Discovery,
    Dropped,
    SubjectFiles,
    Unmatched,
    discover,
    find_subjects,
    select_subjects,
)
from niftynet_compat.subjects.partition import Phase, phase_subjects, read_split, split_subjects, write_split
from pimms_tf.files import write_text

__all__ = [
    "ActionOutcome",
    "ClassificationSection",
    "Config",
    "ConfigError",
    "Discovery",
    "Dropped",
    "EvaluationSection",
    "InferenceSection",
    "InputSection",
    "KeyStatus",
    "LabelMapping",
    "Migration",
    "ModelDir",
    "MultitaskSection",
    "NETWORKS",
    "NetworkSection",
    "Phase",
    "Outcome",
    "PimmsSection",
    "Remark",
    "SegmentationSection",
    "SubjectFiles",
    "SystemSection",
    "TrainingSection",
    "Unmatched",
    "Verdict",
    "as_dict",
    "cleaned_path",
    "discover",
    "explain_key",
    "find_subjects",
    "import_tf1",
    "ini_text",
    "is_cleaned",
    "keys_help",
    "keys_markdown",
    "load_config",
    "migrate_file",
    "migration_report",
    "phase_subjects",
    "read_label_mapping",
    "read_mapping",
    "read_split",
    "resolve_network",
    "select_subjects",
    "settings_text",
    "split_subjects",
    "write_cleaned",
    "write_label_mapping",
    "write_mapping",
    "write_split",
    "write_text",
]
