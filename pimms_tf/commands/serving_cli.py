"""The verbs of exports: `verify` replays what one says of itself, `serve` answers clients with it."""

import argparse
from pathlib import Path

from pimms_tf.commands.parser import AddVerb
from pimms_tf.commands.running import import_tensorflow
from pimms_tf.errors import InputError


def add_verbs(verb: AddVerb) -> None:
    """Adds both verbs; `verb` makes the parser of one from its name, function and help."""
    text = "replay what an export says of itself with TensorFlow alone, and check its files"
    sub = verb("verify", _verify, text, overrides=False)
    sub.add_argument("export", type=Path, metavar="EXPORT", help="folder of numbered versions, or one of them")
    text = "answer clients as TensorFlow Serving does, by REST and gRPC"
    sub = verb("serve", _serve, text, overrides=False)
    sub.add_argument("base", type=Path, metavar="BASE", help="folder of numbered versions, which is watched")
    sub.add_argument("--name", default="pimms", metavar="NAME", help="of the model; default: pimms")
    sub.add_argument("--host", default="127.0.0.1", metavar="HOST", help="address; default: this machine alone")
    sub.add_argument("--rest_port", type=int, default=8501, metavar="N", help="0: any free one; default: 8501")
    sub.add_argument("--grpc_port", type=int, default=8500, metavar="N", help="0: any free one; default: 8500")
    sub.add_argument("--num_versions", type=int, default=1, metavar="N", help="newest ones that answer; default: 1")
    text = "a name for a version, such as stable=1; may be given several times"
    sub.add_argument("--label", action="append", default=[], metavar="NAME=N", help=text)
    sub.add_argument("--num_threads", type=int, default=2, metavar="N", help="requests at a time; default: 2")
    sub.add_argument("--most_waiting", type=int, default=1000, metavar="N", help="requests that queue; default: 1000")
    sub.add_argument("--most_mb", type=int, default=512, metavar="N", help="size of a request; default: 512")


def _verify(arguments: argparse.Namespace, words: list[str]) -> int:
    import_tensorflow()
    from pimms_tf.serving import verified

    for name, found in verified(arguments.export).items():
        if name not in ("folder", "mistakes"):
            print(f"{name}: {f'largest difference {found:.1e}' if isinstance(found, float) else found}")
    print(f"{arguments.export} is what it was when it was exported")
    return 0


def _serve(arguments: argparse.Namespace, words: list[str]) -> int:
    labels = dict(label.partition("=")[::2] for label in arguments.label)
    if not all(name and number.isdecimal() for name, number in labels.items()):
        raise InputError(f"--label {' '.join(arguments.label)}: give a name and the number of a version, as stable=1")
    import_tensorflow()
    try:
        from pimms_tf.server.serve import Settings, serve
    except ImportError as error:
        raise InputError(f"serving needs {error.name}; pip install 'pimms-tf[serving]' brings it") from None

    def listening(rest_port: int, grpc_port: int) -> None:
        host = arguments.host
        print(f"REST: http://{host}:{rest_port}/v1/models/{arguments.name}  gRPC: {host}:{grpc_port}", flush=True)

    names = ("name", "host", "rest_port", "grpc_port", "num_versions", "num_threads", "most_waiting", "most_mb")
    given = {name: getattr(arguments, name) for name in names}
    labels = {name: int(number) for name, number in labels.items()}
    return serve(Settings(arguments.base, labels=labels, **given), listening)
