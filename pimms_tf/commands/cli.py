"""argv → one call → exit code. Nothing heavy is imported before the chosen command needs it."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from niftynet_compat import Config, keys_help, load_config
from niftynet_compat.runs.console import RunLog, is_ours
from niftynet_compat.schema.programs import network_complaint
from niftynet_compat.schema.sections import KNOWN_KEYS
from niftynet_compat.settings.command_line import join_signed, split_config
from niftynet_compat.spelling import nearest
from pimms_tf import __version__
from pimms_tf.actions.sharding import read_shard, write_batch_script
from pimms_tf.actions.stopping import INTERRUPTED, StopSignals
from pimms_tf.commands.completion import SHELLS, completion_script, options_of
from pimms_tf.commands.migrate_cli import add_verbs
from pimms_tf.commands.progress import counting, figures_of, progress
from pimms_tf.errors import InputError
from pimms_tf.study import journal
from pimms_tf.study.task import resumed, task_of

_QUIET = ("absl", "tensorflow", "h5py", "matplotlib")  # loggers of which only errors are of use
_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 done, 2 a mistake in the input, 130 or 143 interrupted.

    Any other exception is a fault of ours: it keeps its traceback, and Python ends with 1.
    """
    # What a run says in NiftyNet's words is for its log file; here it would say everything twice.
    console, debug = logging.StreamHandler(sys.stdout), False
    console.addFilter(is_ours)

    def work() -> int:
        nonlocal debug
        arguments, rest = _parser().parse_known_args(argv)
        debug = arguments.debug
        return arguments.run(arguments, _take_words(arguments, rest))

    return guarded(console, work, lambda error, cause: _complain(error, debug, cause))


def guarded(
    console: logging.Handler, work: Callable[[], int], complain: Callable[[InputError, Exception | None], int]
) -> int:
    """Runs `work` with logs to the console and to the log file of the run; returns the exit code.

    `complain` turns a mistake into one; it also gets the exception that stands behind it, if that is another.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    file = RunLog()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console, file], force=True)
    logging.captureWarnings(True)
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        code = work()
        sys.stdout.flush()
        return code
    except InputError as error:
        return complain(error, None)
    except BrokenPipeError:
        return _leave_broken_pipe()
    except OSError as error:
        if error.filename is None:
            raise
        return complain(InputError(f"{error.filename}: {error.strerror}"), error)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        logging.getLogger().removeHandler(file)
        file.close()


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints end like every other mistake, as one sentence, with what was probably meant."""

    words: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):
        self.words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(self._misspelt() or f"{message}; {self.prog} --help lists what there is")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # argparse's own complaint would have to be taken apart again.
        if action.choices is not None and value not in action.choices:
            raise InputError(self._no_choice(action, str(value)))

    def _no_choice(self, action: argparse.Action, word: str) -> str:
        choices = [str(choice) for choice in action.choices]
        # NiftyNet's other words for its actions are not near ours by their letters.
        meant = {"infer": "inference", "eval": "evaluation", "merge": "inference --merge N"}
        known = meant.get(word) if "inference" in choices and not action.option_strings else None
        known = known or nearest(word, choices)
        hint = f"did you mean {known}?" if known else f"choose one of {', '.join(choices)}"
        if action.option_strings:
            return f"{'/'.join(action.option_strings)} {word} is not one of its words; {hint}"
        if self.words and self.words[0].startswith("-"):
            return f"{self.words[0]} stands before the verb; write {self.prog} VERB ... {self.words[0]} {word}"
        kind = f"verb of {self.prog}" if isinstance(action, argparse._SubParsersAction) else "shell"
        return f"{word} is not a {kind}; {hint}"

    def _misspelt(self) -> str:
        """The complaint about a word that stands there in place of an option that is required, "" if none does."""
        wanted = [flag for action in self._actions if action.required for flag in action.option_strings]
        for word in self.words:
            option = word.partition("=")[0]
            if option.startswith("--") and option not in options_of(self) and (known := nearest(option, wanted)):
                return f"{word} is not an option of {self.prog}; did you mean {known}?"
        return ""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pimms-tf",
        description="Segments white matter hyperintensities from any number of MR scans, in any order, without labels.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pimms-tf {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable, text: str, overrides: bool = True) -> argparse.ArgumentParser:
        listed = f"Keys of the INI file, with defaults; those of [SECTIONS] are options too:\n\n{keys_help(name)}"
        sub = verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog=listed if overrides else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.add_argument("--debug", action="store_true", help="show the traceback of a mistake in the input")
        sub.set_defaults(run=run, takes_overrides=overrides, parser=sub)
        if overrides:
            # The INI file itself is no positional argument here: argparse would take the value of an override for it.
            sub.usage = "%(prog)s [options] CONFIG [--key value ...]"
            sub.add_argument("-c", "--conf", type=Path, metavar="CONFIG", help="the INI file, as NiftyNet spells it")
            sub.add_argument("-a", "--app", metavar="APP", help="net_segment, …, if the file has several task sections")
        return sub

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
    sub = verb("slurm", _slurm, "write the batch script that runs an inference in shards on a Slurm cluster")
    sub.add_argument("--shards", type=int, default=8, metavar="N", help="tasks of the array; default: 8")
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
    sub.add_argument("--model_version", type=int, metavar="N", help="its number; default: the next free one")
    text = "make a model folder of a checkpoint of the released NiftyNet code"
    sub = verb("import-checkpoint", _import_checkpoint, text, overrides=False)
    sub.add_argument("prefix", type=Path, metavar="CHECKPOINT", help="its name up to .index: models/model.ckpt-26000")
    networks = "hemis, modality_classifier, pimms_online, or NiftyNet's name for one"
    sub.add_argument("--network", required=True, metavar="NAME", help=networks)
    sub.add_argument("--output", type=Path, required=True, metavar="DIR", help="new model folder")
    sub.add_argument("--iteration", type=int, metavar="N", help="number of the new checkpoint; default: the old one's")
    sub.add_argument("--recorded", type=Path, metavar="NPZ", help="input and outputs of the original to compare with")
    sub = verb("report", _report, "tabulate result files of evaluation; test two for a difference", overrides=False)
    sub.add_argument("results", nargs="+", type=Path, metavar="CSV", help="evaluation.csv of one or more models")
    add_verbs(verb)
    text = "write simulated subjects with lesions, as hospitals scan them, and configurations that train on them"
    sub = verb("simulate", _simulate, text, overrides=False)
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="new folder")
    sub.add_argument("--subjects", type=int, default=10, metavar="N")
    sub.add_argument("--seed", type=int, default=0)
    text = "whole-head label maps in FreeSurfer's codes; default: the packaged ICBM152 brain"
    sub.add_argument("--label_maps", type=Path, metavar="DIR", help=text)
    text = "real lesion masks in MNI space; default: lesions are grown"
    sub.add_argument("--lesion_masks", type=Path, metavar="DIR", help=text)
    text = "how many hospitals are drawn, or a JSON file of them; default: 1"
    sub.add_argument("--hospitals", default="1", metavar="N|FILE", help=text)
    text = "scans that drawn hospitals take, such as T1,T2,FLAIR; default: T1,T2,FLAIR; usual: what hospitals take"
    sub.add_argument("--contrasts", default="T1,T2,FLAIR", metavar="LIST", help=text)
    text = "kept, defaced, stripped or badly stripped; default: as the hospital does"
    sub.add_argument("--head", metavar="WORD", help=text)
    text = "edge of the voxels; default: as the hospital has them"
    sub.add_argument("--spacing_mm", type=float, metavar="MM", help=text)
    text = "smallest and largest lesion load; 0 0: healthy"
    sub.add_argument("--load_ml", type=float, nargs=2, metavar=("LOW", "HIGH"), help=text)
    sub.add_argument("--num_threads", type=int, default=1, metavar="N", help="subjects made at a time")
    text = f"print the script that completes commands in a shell: {', '.join(SHELLS)}"
    sub = verb("completion", _completion, text, overrides=False)
    sub.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    sub = verb("demo", _demo, "train, segment, evaluate and export on simulated scans, in minutes", overrides=False)
    sub.add_argument("folder", nargs="?", type=Path, default=Path("pimms-demo"), metavar="FOLDER")
    return parser


def _take_words(arguments: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """Returns the words for the sections of the INI file, which itself is found among them if no option named it.

    Raises:
        InputError: the verb reads no INI file and there are words.
    """
    words = join_signed(rest)
    if arguments.takes_overrides and arguments.conf is None:
        arguments.conf, words = split_config(words)
    own = options_of(arguments.parser)
    for word in words if arguments.takes_overrides else words[:1]:
        option = word.partition("=")[0]
        keys = [f"--{key}" for key in KNOWN_KEYS] if arguments.takes_overrides else []
        known = nearest(option, [*own, *keys]) if option.startswith("--") and option not in keys else None
        if known in own or not arguments.takes_overrides:
            hint = f"did you mean {known}?" if known else "--help lists them"
            raise InputError(f"{option} is not an option of {arguments.parser.prog}; {hint}")
    return words


def _config(arguments: argparse.Namespace, words: list[str], action: str) -> Config:
    path = arguments.conf
    if path is None:
        raise InputError(f"no configuration file given: pimms-tf {action} CONFIG.ini")
    flags = [f"--{name}=True" for name in ("subsets", "resume") if getattr(arguments, name, False)]
    config = resumed(load_config(path, [*words, *flags], arguments.app, action))
    announce(config)
    return config


def announce(config: Config) -> None:
    """Says what is remarkable about a configuration, refuses what no run can have, and chooses devices.

    All that settings alone can tell is told here, before the seconds that TensorFlow takes to be imported.

    Raises:
        ConfigError: a network that is not built here, or modalities and classes that do not fit together.
    """
    for remark in config.remarks:
        logging.getLogger(__name__).warning("%s", remark)
    task_of(config)
    choose_devices(config)


def _leave_broken_pipe() -> int:
    """Returns the exit code for a reader of the output, such as `head`, that has had enough."""
    # Python would complain again when it flushes.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE


def choose_devices(config: Config) -> None:
    """Hands `cuda_devices` to CUDA if it holds a digit, as NiftyNet does; before TensorFlow is imported."""
    if any(character.isdigit() for character in config.system.cuda_devices):
        os.environ["CUDA_VISIBLE_DEVICES"] = config.system.cuda_devices


def import_tensorflow() -> None:
    """Imports TensorFlow, which takes seconds, without what its libraries print about the machine while they load.

    They print to the error stream, whatever log level is set, and nothing can be done about it here, so the stream is
    closed for that long.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(
            f"training, inference and export need Keras on TensorFlow, but KERAS_BACKEND is {backend}; unset it"
        )
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _train(arguments: argparse.Namespace, words: list[str]) -> int:
    config = _config(arguments, words, "train")
    from pimms_tf.study import training_study

    stop, reason = StopSignals(), "at once"
    lines = progress(config.training.max_iter, figures_of(task_of(config).variant))
    with suppress(KeyboardInterrupt), journal.application(config), stop, lines as report:
        study = training_study(config)
        import_tensorflow()
        from pimms_tf.actions.train import train

        reason = train(study, journal.also(report, config), stop, report.prepared)
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
        import_tensorflow()
        from pimms_tf.actions.inference import inference

        inference(study, shard, config.pimms.resume)
    return 0


def _slurm(arguments: argparse.Namespace, words: list[str]) -> int:
    _config(arguments, words, "inference")
    asked = ["--subsets"] if arguments.subsets else []
    app = ["-a", arguments.app] if arguments.app else []
    command = ["pimms-tf", "inference", str(arguments.conf), *app, *asked, *words]
    write_batch_script(arguments.output, command, Path.cwd(), arguments.shards)
    print(f"Saved {arguments.output}; its first lines say how to use it")
    return 0


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
    if arguments.weights and arguments.conf is None:
        import_tensorflow()
        from pimms_tf.actions.export import export_bundled

        print(export_bundled(arguments.output, arguments.model_version))
        return 0
    words = [*words, "--weights", arguments.weights] if arguments.weights else words
    config = _config(arguments, words, "export")
    import_tensorflow()
    from pimms_tf.actions.export import export

    print(export(config, arguments.output, arguments.model_version))
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
    from pimms_tf.evaluation import side_by_side

    print(side_by_side(arguments.results))
    return 0


def _simulate(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.commands.simulate import simulated_hospitals, write_simulation

    a = arguments
    if a.seed < 0:
        raise InputError(f"seed {a.seed} is negative: give 0 or more")
    hospitals = simulated_hospitals(a.hospitals, a.seed, a.contrasts.split(","), a.head, a.spacing_mm)
    write_simulation(
        a.folder,
        a.subjects,
        hospitals,
        seed=a.seed,
        label_maps=a.label_maps,
        lesion_masks=a.lesion_masks,
        load_ml=None if a.load_ml is None else tuple(a.load_ml),
        num_threads=a.num_threads,
    )
    return 0


def _completion(arguments: argparse.Namespace, words: list[str]) -> int:
    print(completion_script(arguments.shell, _parser()), end="")
    return 0


def _demo(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.commands.demo import demo_commands, demo_picture, segment_demo, write_demo

    write_demo(arguments.folder)
    import_tensorflow()
    print("\nThe weights that come with the package, on scans without names in a random order:", flush=True)
    for line in segment_demo(arguments.folder):
        print(line, flush=True)
    print("\nNow a network trained from nothing on the other scans:", flush=True)
    # The commands are those of a user in that folder, so the paths that they print hold there.
    before = Path.cwd()
    os.chdir(arguments.folder)
    try:
        for command in demo_commands():
            print(f"\n$ {shlex.join(command)}", flush=True)
            code = main(command[1:])
            if code != 0:
                return code
        demo_picture(Path("."), Path("demo.png"))
    finally:
        os.chdir(before)
    print(
        f"\nEverything is in {arguments.folder}; {arguments.folder / 'demo.png'} shows scans with true and predicted "
        "outlines.\nA few minutes of training on simulated scans prove the path, not the accuracy."
    )
    return 0


def _complain(error: InputError, debug: bool, cause: Exception | None) -> int:
    if debug:
        raise cause or error
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code
