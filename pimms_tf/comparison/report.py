"""A comparison in words and tables: `report.md` with its tables and pictures, and the marked parts of another page."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pimms_tf.comparison.figures import write_boxes, write_contours
from pimms_tf.comparison.scales import HOLDOUT_SUBSETS, MODALITIES, NETWORKS, UNLABELLED
from pimms_tf.comparison.summary import PUBLISHED_ACCURACY, Comparison, Sorted, published, trends
from pimms_tf.errors import InputError
from pimms_tf.evaluation import METRICS, SubjectResult, Table, paired_wilcoxon, summarise
from pimms_tf.evaluation.results import table_text
from pimms_tf.evaluation.statistics import Summary, WilcoxonResult
from pimms_tf.files import write_text

_MARK = re.compile(r"(<!-- report: ([^>]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Writes `report.md`, tables per holdout (`table_NAME.csv`, `scores_NAME.csv`) and pictures; returns the first.

    `contours.png` shows simulated subjects alone; where their scans are not kept it stays as it is.
    """
    folder = Path(folder)
    for holdout, table in comparison.tables.items():
        write_text(folder / f"table_{holdout}.csv", table.csv())
        write_text(folder / f"scores_{holdout}.csv", _scores_csv(comparison, holdout))
    write_boxes(comparison.tables, comparison.results, folder / "boxes.png")
    if "online" in comparison.results.get("mixed", {}) and (folder / "mixed" / "data").is_dir():
        write_contours(folder, comparison.results["mixed"]["online"], folder / "contours.png")
    return write_text(folder / "report.md", report_text(comparison))


def report_text(comparison: Comparison) -> str:
    """The comparison as Markdown: a heading before each of its parts."""
    lines = [
        f"# The paper's comparison, scale {comparison.scale}, seed {comparison.seed}",
        "",
        "HeMIS is told which scan is which. Soft, Hard and Online get the scans unlabelled and in shuffled order.",
        "",
    ]
    for name, text in parts(comparison).items():
        lines += [f"## {name}", "", text]
    return "\n".join(lines)


def fill_page(path: Path, comparison: Comparison) -> Path:
    """Writes the marked parts of a page of Markdown, see `with_parts`; returns the page.

    Raises:
        InputError: the page cannot be read, or marks what the comparison does not have.
    """
    try:
        page = with_parts(Path(path).read_text(encoding="utf-8"), comparison)
    except (OSError, ValueError) as error:
        raise InputError(f"--page {path}: {error}") from error
    return write_text(Path(path), page)


def with_parts(page: str, comparison: Comparison) -> str:
    """A page of Markdown whose marked parts are those of the comparison.

    A part stands between `<!-- report: NAME -->` and `<!-- end -->`, NAME a heading of `report_text`.

    Raises:
        ValueError: the comparison has no part of that name.
    """
    known = parts(comparison)
    if unknown := {name for _, name, _, _ in _MARK.findall(page)} - set(known):
        raise ValueError(f"the comparison has no part {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    return _MARK.sub(lambda found: f"{found[1]}\n{known[found[2]]}\n{found[4]}", page)


def parts(comparison: Comparison) -> dict[str, str]:
    """{heading: Markdown} of all that is there of a comparison, in order; each ends with a line break."""
    known = published()
    found: dict[str, list[str]] = {}
    if comparison.missing:
        found["Missing"] = ["Stages that are not done yet:", "", *(f"- {name}" for name in comparison.missing), ""]
    for holdout, table in comparison.tables.items():
        title = holdout.capitalize()
        found[title] = table.markdown().splitlines()
        found[f"{title} beside the paper"] = [*_beside(table, holdout, known), ""]
        found[f"{title}, all scores"] = [*_scores_lines(comparison, holdout), ""]
    lines = ["| trend | rows that agree | holds |", "| --- | --: | :-: |"]
    lines += [
        f"| {t.text} | {t.num_agreeing} of {t.num_rows} | {'yes' if t.holds else 'no'} |" for t in trends(comparison)
    ]
    found["What the paper found"] = [*lines, ""]
    found["Which scan is which"] = _modalities(comparison)
    if UNLABELLED in comparison.modalities.get("mixed", {}):
        found["Never told which scan is which"] = _unlabelled(comparison.modalities["mixed"][UNLABELLED])
    if comparison.volumes is not None:
        found["In three dimensions"] = comparison.volumes.markdown().splitlines()
    for holdout, tables in comparison.repeats.items():
        found[f"{holdout.capitalize()}, other seeds"] = _repeats(tables)
    found["Cost"] = _costs(comparison)
    return {name: "\n".join(lines).rstrip("\n") + "\n" for name, lines in found.items()}


def _beside(table: Table, holdout: str, known: Mapping) -> list[str]:
    found = {(cell.subset, cell.variant): cell for cell in table.cells}
    networks = [name for name in NETWORKS if any(variant == name for _, variant in found)]
    heads = [f"{metric} {name}" for metric in ("Dice", "ASD/mm") for name in networks]
    lines = [_row(["scans", *heads]), _row(["---", *["--:"] * len(heads)])]
    for subset in dict.fromkeys(subset for subset, _ in found):
        row = [found[subset, name] for name in networks]
        dice, asd = known[holdout, subset, "dice"], known[holdout, subset, "asd_mm"]
        cells = [f"{cell.dice.mean:.2f} / {dice[cell.variant]:.2f}" for cell in row]
        cells += [f"{_number(cell.asd_mm.median, 2)} / {asd[cell.variant]:.2f}" for cell in row]
        lines.append(_row(["+".join(subset), *cells]))
    return [*lines, "", "Ours / published; Dice is the mean over subjects, ASD the median."]


def _scores(
    comparison: Comparison, holdout: str
) -> list[tuple[tuple[str, ...], str, dict[str, Summary], WilcoxonResult | None]]:
    """A row per subset and network: its summary of every score, and the test of its Dice against HeMIS."""
    rows = []
    networks = comparison.results[holdout]
    for subset in HOLDOUT_SUBSETS[holdout]:
        theirs = _by_subject(networks["hemis"], subset)
        for network, results in networks.items():
            mine = _by_subject(results, subset)
            if not mine:
                continue
            scores = {metric: summarise([getattr(r.scores, metric) for r in mine.values()]) for metric in METRICS}
            both = sorted(mine.keys() & theirs.keys())
            test = None
            if network != "hemis":
                pairs = [[side[subject].scores.dice for subject in both] for side in (mine, theirs)]
                test = paired_wilcoxon(*pairs, alternative="greater")
            rows.append((subset, network, scores, test))
    return rows


def _by_subject(results: Sequence[SubjectResult], subset: tuple[str, ...]) -> dict[str, SubjectResult]:
    return {result.subject_id: result for result in results if result.subset == subset}


def _scores_lines(comparison: Comparison, holdout: str) -> list[str]:
    heads = ["scans", "network", "Dice", "ASD/mm", "95 % Hausdorff/mm", "lesion recall", "lesion F1", "undefined"]
    heads += ["p above HeMIS", "p two-sided"]
    lines = [_row(heads), _row(["---", "---", *["--:"] * (len(heads) - 2)])]
    for subset, network, scores, test in _scores(comparison, holdout):
        cells = [
            f"{_number(scores[metric].mean, digits)} ({_number(scores[metric].median, digits)})"
            for metric, digits in (("dice", 3), ("asd_mm", 2), ("hd95_mm", 1), ("lesion_recall", 2), ("lesion_f1", 2))
        ]
        ps = ["", ""] if test is None else [_p(test.p), _p(test.p_two_sided)]
        lines.append(_row(["+".join(subset), network, *cells, str(scores["asd_mm"].num_undefined), *ps]))
    return [
        *lines,
        "",
        "Mean (median) over subjects; undefined: subjects left out of the distances because one mask is empty.",
        "p: Wilcoxon signed-rank test of Dice against HeMIS over subjects; bold below 0.01.",
    ]


def _scores_csv(comparison: Comparison, holdout: str) -> str:
    header = ["subset", "network", *(f"{metric}_{field}" for metric in METRICS for field in Summary._fields)]
    header += ["dice_p_above_hemis", "dice_p_two_sided", "num_pairs"]
    rows = []
    for subset, network, scores, test in _scores(comparison, holdout):
        tested = ["", "", ""] if test is None else [test.p, test.p_two_sided, test.num_pairs]
        rows.append(["+".join(subset), network, *(value for metric in METRICS for value in scores[metric]), *tested])
    return table_text(header, rows)


def _repeats(tables: Mapping[int, Table]) -> list[str]:
    lines = [_row(["scans", *(f"seed {seed}" for seed in tables)]), _row(["---", *["--:"] * len(tables)])]
    cells: dict[tuple[str, ...], list[str]] = {}
    for table in tables.values():
        for hemis, online in zip(table.cells[::2], table.cells[1::2], strict=True):
            p = "" if online.test is None else f" ({_p(online.test.p_two_sided)})"
            cells.setdefault(online.subset, []).append(f"{hemis.dice.mean:.3f} → {online.dice.mean:.3f}{p}")
    lines += [_row(["+".join(subset), *row]) for subset, row in cells.items()]
    return [*lines, "", "Mean Dice of HeMIS → Online (p two-sided), both trained from that seed on the same subjects."]


def _modalities(comparison: Comparison) -> list[str]:
    lines = [
        _row(["holdout", "classifier of", "scans", "right", "published"]),
        _row(["---", "---", "--:", "--:", "--:"]),
    ]
    named = [
        (holdout, network, found)
        for holdout, networks in comparison.modalities.items()
        for network, found in networks.items()
        if network in NETWORKS
    ]
    for holdout, network, found in named:
        paper = f"{100 * PUBLISHED_ACCURACY[holdout]:.0f} %"
        lines.append(_row([holdout, network, str(found.counts.sum()), _percent(found.accuracy), paper]))
    lines += [
        "",
        "Soft and Hard have one and the same classifier. All scans of the holdout's largest subset are counted.",
        "",
    ]
    for holdout, network, found in named:
        if network != "soft":
            name = "Soft and Hard" if network == "hard" else network.capitalize()
            lines += [f"{holdout.capitalize()}, {name}:", "", *_confusion(found, MODALITIES), ""]
    return lines


def _unlabelled(found: Sorted) -> list[str]:
    slots = [f"slot {number}" for number in range(1, len(MODALITIES) + 1)]
    order, by_chance = found.best_order(), _percent(found.accuracy_by_chance())
    named = ", ".join(f"{slots[place]} is {name}" for name, place in zip(MODALITIES, order, strict=True))
    return [
        *_confusion(found, slots),
        "",
        f"Best names for the slots: {named}. With them {_percent(found.best_accuracy())} of {found.counts.sum()} scans "
        f"are in the slot of their contrast. Of scans put into slots at random {by_chance} would be, on average, the "
        f"best names being taken likewise. Mean probability of the best slot: {found.confidence:.2f}.",
        "",
        "Slots have no names, and its Dice (above, `online_unlabelled`) does not depend on any.",
    ]


def _confusion(found: Sorted, columns: Sequence[str]) -> list[str]:
    lines = [_row(["is \\ taken for", *columns]), _row(["---", *["--:"] * len(columns)])]
    return lines + [_row([name, *map(str, row)]) for name, row in zip(MODALITIES, found.counts, strict=True)]


def _costs(comparison: Comparison) -> list[str]:
    lines = ["| stage | seconds | processor seconds |", "| --- | --: | --: |"]
    spent = {name: (done["seconds"], done.get("processor_seconds", 0.0)) for name, done in comparison.done.items()}
    lines += [f"| {name} | {seconds:.0f} | {processor:.0f} |" for name, (seconds, processor) in spent.items()]
    totals = [sum(column) for column in zip(*spent.values(), strict=True)] or [0.0, 0.0]
    lines.append(f"| all | {totals[0]:.0f} | {totals[1]:.0f} |")
    machines = list(dict.fromkeys(done.get("machine", "") for done in comparison.done.values()))
    return [*lines, "", *(f"On {machine}; pimms-tf {comparison.version}." for machine in machines if machine), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, digits: int) -> str:
    return "–" if value != value else f"{value:.{digits}f}"


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"


def _p(p: float) -> str:
    if p != p:
        return "–"
    text = f"{p:.2g}"
    return f"**{text}**" if p < 0.01 else text
