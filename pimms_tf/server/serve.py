"""Both protocols in one loop, versions loaded beside it, and an end that lets what runs finish."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from aiohttp import web

from pimms_tf.errors import InputError
from pimms_tf.server.grpc_service import add_services
from pimms_tf.server.requests import Runner
from pimms_tf.server.rest import application
from pimms_tf.server.versions import Versions

log = logging.getLogger(__name__)

_GRACE_S = 30.0


@dataclass(frozen=True)
class Settings:
    """What is served, where, and how much at a time."""

    base: Path  # of numbered versions
    name: str = "pimms"
    host: str = "127.0.0.1"
    rest_port: int = 8501  # 0 is any free one
    grpc_port: int = 8500
    num_versions: int = 1  # newest ones that answer
    labels: Mapping[str, int] = field(default_factory=dict)
    num_threads: int = 2  # requests that run at a time
    most_waiting: int = 1000
    most_mb: int = 512  # of a request
    poll_s: float = 1.0


def serve(settings: Settings, listening: Callable[[int, int], None] = lambda rest_port, grpc_port: None) -> int:
    """Answers clients until the process is told to stop (SIGINT, SIGTERM), then returns 0.

    `listening` is called with both ports once a version answers.

    Raises:
        InputError: there is no version that can be loaded, or an address is taken.
    """
    return asyncio.run(_serve(settings, listening))


async def _serve(settings: Settings, listening: Callable[[int, int], None]) -> int:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    versions = Versions(Path(settings.base), settings.num_versions, settings.labels)
    await loop.run_in_executor(None, versions.refresh)
    if not any(each.state == "AVAILABLE" for each in versions.status()):
        reasons = "; ".join(each.error for each in versions.status() if each.error)
        raise InputError(f"{settings.base} has no version that can be served{': ' if reasons else ''}{reasons}")
    runner, most_bytes = Runner(settings.num_threads, settings.most_waiting), settings.most_mb * 2**20
    rest = web.AppRunner(
        application(settings.name, versions, runner, most_bytes), access_log=None, handler_cancellation=True
    )
    await rest.setup()
    options = [("grpc.max_receive_message_length", most_bytes), ("grpc.max_send_message_length", -1)]
    grpc_server = grpc.aio.server(options=options)
    add_services(grpc_server, settings.name, versions, runner)
    try:
        site = web.TCPSite(rest, settings.host, settings.rest_port, shutdown_timeout=_GRACE_S)
        await site.start()
        grpc_port = grpc_server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    except (OSError, RuntimeError) as error:
        await rest.cleanup()
        raise InputError(f"{settings.host} cannot be listened at ({error}); give another port or host") from error
    await grpc_server.start()
    watching = asyncio.create_task(_watch(versions, settings.poll_s))
    listening(rest.addresses[0][1], grpc_port)
    await stopped.wait()
    log.info("stopping: what runs is finished, nothing new is taken")
    watching.cancel()
    await asyncio.gather(grpc_server.stop(_GRACE_S), rest.cleanup())
    await runner.close()
    return 0


async def _watch(versions: Versions, poll_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(poll_s)
        try:
            await loop.run_in_executor(None, versions.refresh)
        except OSError as error:  # the folder is being moved, or its disk is away for a moment
            log.warning("%s cannot be looked at: %s", versions.base, error)
