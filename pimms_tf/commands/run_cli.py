"""The verbs that run what an INI file describes, and those that keep their books: from `train` to `report`."""

import argparse
import logging
import os
from contextlib import nullcontext, suppress
from pathlib import Path

from niftynet_compat import Config, load_config
from niftynet_compat.schema.programs import network_complaint
from pimms_tf.actions.sharding import environment_command, read_shard, remarks_on_count, submission, write_batch_scripts
from pimms_tf.actions.stopping import StopSignals
from pimms_tf.actions.versions import check_output
from pimms_tf.cluster import cluster_for, ranked_log
from pimms_tf.commands.parser import AddVerb
from pimms_tf.commands.progress import counting, figures_of, progress
from pimms_tf.commands.running import announce, import_tensorflow
from pimms_tf.errors import InputError
from pimms_tf.study import journal
from pimms_tf.study.task import resumed, task_of


def add_verbs(verb: AddVerb) -> None:
    """Adds the verbs; `verb` makes the parser of one from its name, function and help."""
    sub = verb("train", _train, "train the network that an INI file describes")
    sub.add_argument("--resume", action="store_true", help="go on from the latest checkpoint, if there is one")
    for name, run, text in (
        ("inference", _inference, "segment subjects with a trained network"),
        ("evaluation", _evaluation, "score segmentations against reference labels"),
    ):
        sub = verb(name, run, text)
        sub.add_argument("--subsets", action="store_true", help="every non-empty subset of the modalities in turn")
        if name == "inference":
            sub.add_argument("--resume", action="store_true", help="pass over subjects that are done already")
            part = sub.add_mutually_exclusive_group()
            part.add_argument("--shard", metavar="I/N", help="one of N parts of the subjects; slurm: by array task")
            part.add_argument("--merge", type=int, metavar="N", help="write the lists of a cohort done in N shards")
    sub = verb("slurm", _slurm, "write the batch scripts that run an inference in shards on a Slurm cluster")
    sub.add_argument("--shards", type=int, default=8, metavar="N", help="tasks of the array; default: 8")
    sub.add_argument("--at-once", type=int, default=0, metavar="K", help="tasks that may run at a time; default: all")
    sub.add_argument("--output", type=Path, default=Path("run.sbatch"), metavar="FILE", help="default: run.sbatch")
    sub.add_argument("--subsets", action="store_true", help="every non-empty subset of the modalities in turn")
    sub = verb("check", _check, "say what an action would find, miss and cost, without writing anything")
    actions = ("train", "inference", "evaluation")
    sub.add_argument("--action", choices=actions, default="train", help="what is to be run; default: train")
    sub.add_argument("--fast", action="store_true", help="read headers only and take no steps with the network")
    sub.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    sub = verb("export", _export, "write a trained network as a SavedModel for TensorFlow Serving")
    sub.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of numbered versions")
    sub.add_argument("--weights", choices=["bundled"], help="those that come with the package, without any INI file")
    sub.add_argument("--model", type=Path, metavar="DIR", help="a model folder, without any INI file")
    sub.add_argument("--model_version", type=int, metavar="N", help="its number; default: the next free one")
    text = "onnx adds prepared windows as an ONNX file, for machines without TensorFlow; default: saved_model"
    sub.add_argument("--format", choices=["saved_model", "onnx"], default="saved_model", help=text)
    text = "make a model folder of a checkpoint of the released NiftyNet code"
    sub = verb("import-checkpoint", _import_checkpoint, text, overrides=False)
    sub.add_argument("prefix", type=Path, metavar="CHECKPOINT", help="its name up to .index: models/model.ckpt-26000")
    networks = "hemis, modality_classifier, pimms_online, or NiftyNet's name for one"
    sub.add_argument("--network", required=True, metavar="NAME", help=networks)
    sub.add_argument("--output", type=Path, required=True, metavar="DIR", help="new model folder")
    sub.add_argument("--iteration", type=int, metavar="N", help="number of the new checkpoint; default: the old one's")
    sub.add_argument("--recorded", type=Path, metavar="NPZ", help="input and outputs of the original to compare with")
    sub = verb("report", _report, "tabulate result files of evaluation; test two for a difference", overrides=False)
    text = "evaluation.csv of one or more models, or the folder of a study, of which the report is written again"
    sub.add_argument("results", nargs="+", type=Path, metavar="CSV|FOLDER", help=text)
    text = "copy what the report of a study is made of, without scans and weights, to this folder"
    sub.add_argument("--keep", type=Path, metavar="DIR", help=text)
    text = "write the report's tables of a study into the marked parts of this page of Markdown, too"
    sub.add_argument("--page", type=Path, metavar="FILE", help=text)


def _config(arguments: argparse.Namespace, words: list[str], action: str) -> Config:
    path = arguments.conf
    if path is None:
        raise InputError(f"no configuration file given: pimms-tf {action} CONFIG.ini")
    flags = [f"--{name}=True" for name in ("subsets", "resume") if getattr(arguments, name, False)]
    config = load_config(path, [*words, *flags], arguments.app, action)
    announce(config)
    return config


def _train(arguments: argparse.Namespace, words: list[str]) -> int:
    config = _config(arguments, words, "train")
    with ranked_log(cluster_for(config.pimms.strategy, os.environ)):
        return _trained(resumed(config))


def _trained(config: Config) -> int:
    from pimms_tf.study import training_study

    stop, reason = StopSignals(), "at once"
    lines = progress(config.training.max_iter, figures_of(task_of(config).variant))
    with suppress(KeyboardInterrupt), journal.application(config), stop, lines as report:
        study = training_study(config)
        import_tensorflow()
        from pimms_tf.actions.train import train

        reason = train(study, journal.also(report, config), stop, report.prepared, report.waiting)
    if reason in ("finished", "early"):
        return 0
    logging.getLogger(__name__).warning("%s", stop.farewell(is_saved=reason == "interrupted"))
    return stop.exit_code


def _inference(arguments: argparse.Namespace, words: list[str]) -> int:
    config = _config(arguments, words, "inference")
    shard = None if arguments.shard is None else read_shard(arguments.shard)
    from pimms_tf.study import inference_study

    if arguments.merge is not None:
        study = inference_study(config)
        import_tensorflow()
        from pimms_tf.actions.inference import merge

        merge(study, arguments.merge)
        return 0
    with journal.application(config):
        study = inference_study(config)
        from pimms_tf.actions.ahead import reading_ahead

        # What is done already is not read again.
        ahead = nullcontext() if config.pimms.resume else reading_ahead(study, shard)
        with ahead as loader:
            import_tensorflow()
            from pimms_tf.actions.inference import inference

            inference(study, shard, config.pimms.resume, loader)
    return 0


def _slurm(arguments: argparse.Namespace, words: list[str]) -> int:
    config = _config(arguments, words, "inference")
    asked = ["--subsets"] if arguments.subsets else []
    app = ["-a", arguments.app] if arguments.app else []
    command = [*environment_command(), "inference", str(arguments.conf), *app, *asked, *words]
    output = arguments.output.absolute()
    written = write_batch_scripts(output, command, Path.cwd(), arguments.shards, arguments.at_once)
    for remark in remarks_on_count(arguments.shards, _num_subjects(config)):
        logging.getLogger(__name__).warning("%s", remark)
    print(f"Saved {written[0]} and {written[1]}. Look whether they suit your site, then start both:\n")
    print("\n".join(f"    {line}" for line in submission(*written)))
    return 0


def _num_subjects(config: Config) -> int | None:
    """How many subjects an inference would take; None if that cannot be known here, as before the training."""
    from pimms_tf.study import inference_study

    with suppress(InputError):
        return len(inference_study(config).used)
    return None


def _evaluation(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.actions.evaluation import evaluation

    config = _config(arguments, words, "evaluation")
    from pimms_tf.study import evaluation_study

    with journal.application(config):
        summary = evaluation(evaluation_study(config))
    print(summary)
    return 0


def _check(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.check import check_config

    if arguments.conf is None:
        raise InputError("no configuration file given: pimms-tf check CONFIG.ini")
    report = check_config(
        arguments.conf,
        words,
        arguments.app,
        arguments.action,
        arguments.fast,
        counting("files read"),
        import_tensorflow,
    )
    print(report.json() if arguments.json else report.text())
    return report.exit_code


def _export(arguments: argparse.Namespace, words: list[str]) -> int:
    if arguments.model and (arguments.weights or arguments.conf):
        raise InputError("--model says which network to export, and so does the other argument; give one of them")
    output = (arguments.output, arguments.model_version, arguments.format == "onnx")
    check_output(*output[:2])
    if arguments.conf is None and (arguments.weights or arguments.model):
        import_tensorflow()
        from pimms_tf.actions.export import export_bundled, export_folder

        print(export_folder(arguments.model, *output) if arguments.model else export_bundled(*output))
        return 0
    words = [*words, "--weights", arguments.weights] if arguments.weights else words
    config = _config(arguments, words, "export")
    import_tensorflow()
    from pimms_tf.actions.export import export

    print(export(config, *output))
    return 0


def _import_checkpoint(arguments: argparse.Namespace, words: list[str]) -> int:
    if complaint := network_complaint(arguments.network):
        raise InputError(f"--network {arguments.network} {complaint}")
    import_tensorflow()
    from pimms_tf.actions.import_checkpoint import import_checkpoint

    done = import_checkpoint(
        arguments.prefix,
        arguments.network,
        arguments.output,
        iteration=arguments.iteration,
        recorded=arguments.recorded,
    )
    print(done.text())
    old = arguments.prefix.parent.parent
    for name in ("dataset_split.csv", "histogram_ref_file.txt"):
        if (old / name).is_file() and not (arguments.output / name).exists():
            print(f"{old / name} belongs to the model, too: copy it to {arguments.output}")
    return 0


def _report(arguments: argparse.Namespace, words: list[str]) -> int:
    if len(arguments.results) == 1 and arguments.results[0].is_dir():
        from pimms_tf.comparison import fill_page, keep, read_comparison, write_comparison

        folder, comparison = arguments.results[0], read_comparison(arguments.results[0])
        print(f"Saved {write_comparison(comparison, folder)}")
        if arguments.keep is not None:
            keep(folder, arguments.keep)
            print(f"Saved {arguments.keep}")
        if arguments.page is not None:
            print(f"Saved {fill_page(arguments.page, comparison)}")
        return 0
    if arguments.keep is not None or arguments.page is not None:
        raise InputError("--keep and --page go with the folder of one study")
    from pimms_tf.evaluation import side_by_side

    print(side_by_side(arguments.results))
    return 0
