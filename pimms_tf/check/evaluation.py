"""The dry run of evaluation: which pairs of files would be scored, and whether they can be."""

from niftynet_compat import Config, ConfigError
from niftynet_compat.subjects.lists import read_file_list
from pimms_tf.check.files import Progress, Wanted, examine, say_files
from pimms_tf.check.labels import check_label_values
from pimms_tf.check.report import FILES, LABELS, SETTINGS, SUBJECTS, Report
from pimms_tf.evaluation.pairs import check_pair
from pimms_tf.evaluation.results import join_by_subject
from pimms_tf.study import cohort
from pimms_tf.study import task as tasks
from pimms_tf.study.task import Task


def check_evaluation(config: Config, task: Task, fast: bool, progress: Progress, report: Report) -> None:
    """Reports on references and segmentations: who has both, on which grids, with which label values."""
    if task.variant == "classifier":
        report.mistake(SETTINGS, f"evaluation scores segmentations, but {config.network.name} makes none")
        return
    pairs = []
    with report.collecting(SUBJECTS):
        tasks.require_section(config, task.label, "label")
        references = cohort.files_of_section(config, task.label)
        named = config.sources("inferred")
        listed = config.save_seg_dir / "inferred.csv"
        if config.pimms.subsets:
            report.note(SUBJECTS, "subsets: only the segmentations from all scans are looked at here")
        if not named and not listed.is_file():
            raise ConfigError(f"{listed} is not there, so there is nothing to evaluate: run inference first")
        inferred = (
            cohort.files_of_section(config, named[0]) if named else read_file_list(listed, "inferred", must_exist=False)
        )
        report.fact(SUBJECTS, "references", len(references), f"{len(references)} in [{task.label}]")
        report.fact(SUBJECTS, "segmentations", len(inferred), f"{len(inferred)} in {named[0] if named else listed}")
        expected = cohort.expected_subjects(config, references)
        due = {name: path for name, path in references.items() if name in inferred or name in expected}
        pairs = join_by_subject(due, inferred)
        report.fact(SUBJECTS, "pairs", len(pairs))
    loader = config.inputs[task.label].loader if task.label in config.inputs else None
    wanted = [Wanted(pair.subject_id, task.label, pair.reference, loader, counts_values=True) for pair in pairs]
    wanted += [Wanted(pair.subject_id, "inferred", pair.inferred) for pair in pairs]
    facts = examine(wanted, fast, max(config.system.num_threads, 4), progress)
    say_files(facts, report)
    check_label_values(config, task, facts, set(), report, LABELS)
    usable = {(each.wanted.subject_id, each.wanted.section) for each in facts if not each.error}
    for pair in pairs:
        if {(pair.subject_id, section) for section in (task.label, "inferred")} <= usable:
            with report.collecting(FILES):
                check_pair(pair, loader)
