"""The dry run of evaluation: which pairs of files would be scored, and whether they can be."""

from niftynet_compat import Config
from pimms_tf.check.files import Progress, Wanted, examine, say_files
from pimms_tf.check.labels import check_label_values
from pimms_tf.check.report import FILES, LABELS, SUBJECTS, Report
from pimms_tf.evaluation.pairs import check_pair
from pimms_tf.study.scoring import evaluation_study


def check_evaluation(config: Config, fast: bool, progress: Progress, report: Report) -> None:
    """Reports on references and segmentations: which subjects have both, on which grids, with which label values."""
    scoring = evaluation_study(config, report.collecting)
    label, named = scoring.task.label, config.sources("inferred")
    pairs = [pair for part in scoring.pairs.values() for pair in part]
    origin = f"[{named[0]}]" if () in scoring.inferred and named else f"lists in {config.save_seg_dir}"
    count = sum(map(len, scoring.inferred.values()))
    report.fact(SUBJECTS, "references", len(scoring.references), f"{len(scoring.references)} in [{label}]")
    report.fact(SUBJECTS, "segmentations", count, f"{count} in {origin}")
    report.fact(SUBJECTS, "pairs", len(pairs))
    loader = config.inputs[label].loader
    wanted = [Wanted(pair.subject_id, label, pair.reference, loader, counts_values=True) for pair in pairs]
    wanted += [Wanted(pair.subject_id, "inferred", pair.inferred) for pair in pairs]
    facts = examine(list(dict.fromkeys(wanted)), fast, max(config.system.num_threads, 4), progress)
    say_files(facts, report)
    check_label_values(config, scoring.task, facts, set(), report, LABELS)
    usable = {each.wanted.path for each in facts if not each.error}
    for pair in pairs:
        if {pair.reference, pair.inferred} <= usable:
            with report.collecting(FILES):
                check_pair(pair, loader)
