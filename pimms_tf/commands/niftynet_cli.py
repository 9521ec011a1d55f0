"""`net_segment`, `net_classify` and `net_run` as NiftyNet has them: argv → one call → exit code.

Output goes where NiftyNet's goes, in its form: the version, all settings, then lines of a log.
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence

from niftynet_compat import Config, ConfigError, load_config, settings_text
from niftynet_compat.runs.console import JOURNAL, console_handler
from niftynet_compat.schema.programs import application_section
from niftynet_compat.schema.sections import SPECS, SYSTEM_SECTIONS, TASK_SECTIONS, shown
from niftynet_compat.settings.command_line import PROGRAMS, Asked, Call, parse_command
from pimms_tf import __version__
from pimms_tf.actions.stopping import StopSignals
from pimms_tf.cluster import cluster_for, ranked_log
from pimms_tf.commands.running import announce, guarded, import_tensorflow
from pimms_tf.errors import UsageError
from pimms_tf.study import journal
from pimms_tf.study.task import resumed

_FAILED = 1
_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line, program name first, and returns the exit code.

    0 done; 2 words or values that cannot be read; 1 any other mistake; 130 or 143 interrupted. A mistake is one
    sentence on the error stream, with `--debug` a traceback. A fault of ours keeps its traceback, and Python ends
    with 1.
    """
    words = sys.argv if argv is None else argv

    def work() -> int:
        call = parse_command(words)
        if not isinstance(call, Asked):
            return _run(call)
        print(_help(call.program) if call.what == "help" else _version(), flush=True)
        return 0

    return guarded(console_handler(), work, lambda error, cause: _complain(error, "--debug" in words))


def _run(call: Call) -> int:
    config = _config(call)
    print(_version())
    print(settings_text(config).partition("\n")[2], end="", flush=True)
    announce(config)
    return {"training": _train, "inference": _inference, "evaluation": _evaluation}[call.action](config)


def _train(config: Config) -> int:
    with ranked_log(cluster_for(config.pimms.strategy, os.environ)):
        return _trained(config)


def _trained(config: Config) -> int:
    from pimms_tf.study import training_study

    stop = StopSignals()
    with journal.application(config), stop:
        try:
            study = training_study(config)
            import_tensorflow()
            from pimms_tf.actions.train import train

            reason = train(study, journal.reporter(config), stop)
        except KeyboardInterrupt:
            reason = "interrupted"
        if reason != "interrupted":
            return 0
        logging.getLogger(JOURNAL).warning("User cancelled application")
        return stop.exit_code


def _inference(config: Config) -> int:
    from pimms_tf.study import inference_study

    with journal.application(config):
        study = inference_study(config)
        import_tensorflow()
        from pimms_tf.actions.inference import inference

        inference(study, resume=config.pimms.resume)
    return 0


def _evaluation(config: Config) -> int:
    from pimms_tf.actions.evaluation import evaluation
    from pimms_tf.study import evaluation_study

    with journal.application(config):
        summary = evaluation(evaluation_study(config))
    print(summary)
    return 0


def _config(call: Call) -> Config:
    if call.config is None:
        action = {"training": "train"}.get(call.action, call.action)
        raise ConfigError(f"no configuration file is given; write {call.program} {action} -c CONFIG.ini")
    config = resumed(load_config(call.config, call.options, call.application, call.action))
    # Scripts around these commands look for the files that NiftyNet's last release wrote, under their names.
    pimms, evaluation = config.pimms, config.evaluation
    if pimms.output_names == "auto":
        pimms = dataclasses.replace(pimms, output_names="niftynet06")
    if not evaluation.evaluations:
        evaluation = dataclasses.replace(evaluation, evaluations="dice,jaccard,average_distance")
    return dataclasses.replace(config, pimms=pimms, evaluation=evaluation)


def _complain(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    print(f"error: {error}", file=sys.stderr)
    return _USAGE if isinstance(error, UsageError) else _FAILED


def _version() -> str:
    return f"pimms-tf version {__version__}"


def _help(program: str) -> str:
    """The meta options, and every key with its default that the program's sections take from the command line."""
    lines = [
        f"usage: {program} {{train,inference,evaluation}} [-h] [-v] [-c CONF] [-a APPLICATION_NAME] [--key value ...]",
        "",
        "  -h, --help                 show this and end",
        "  -v, --version              show the version and end",
        "  -c, --conf CONF            the INI file",
        "  -a, --application_name     net_segment, net_classify, … ; for net_run alone",
        "  --debug                    show the traceback of a mistake in the input",
        "",
        "Any key outside the input sections can be given as --key value. Keys and defaults:",
    ]
    own = [application_section(program)] if program in PROGRAMS else list(TASK_SECTIONS)
    for name in [*SYSTEM_SECTIONS, *own]:
        keys = [spec for spec in SPECS[name].values() if spec.command_line]
        lines += ["", f"[{name}]", *(f"  --{spec.name:32} {spec.meaning} ({shown(spec.default)})" for spec in keys)]
    return "\n".join(lines)
