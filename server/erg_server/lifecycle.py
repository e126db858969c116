"""A server's life: start, serve, drain, stop. Signals arrive here; what they mean is decided nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

import uvloop

from erg_server import heap
from erg_server.bootstrap import Server, build_server
from erg_server.build import build_kind
from erg_server.errors import UnavailableError
from erg_server.settings import ServeSettings

log = logging.getLogger(__name__)

BALANCE_S = 10.0
"""Between two looks at what each model keeps devices busy with: several times what bringing a model elsewhere takes."""
MEMORY_RETRY_S = 60.0
"""After a look at workers' memory that failed."""


class StopOrders:
    """SIGTERM and SIGINT as they come: the first asks for an end, the second for an end without the delay."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def take(self) -> None:
        """A signal came."""
        (self.hurry if self.stop.is_set() else self.stop).set()


def run_server(settings: ServeSettings) -> int:
    """Serve until SIGTERM or SIGINT and return the process's exit status: 0 after a clean drain, 1 otherwise."""
    factory = uvloop.new_event_loop if settings.event_loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: ServeSettings) -> int:
    heap.keep_freed_memory()
    orders = StopOrders()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, orders.take)
    server = build_server(settings)
    try:
        starting = loop.create_task(start(server))
        stopping = loop.create_task(orders.stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            log.info("told to stop while starting")
            starting.cancel()
            await asyncio.wait((starting,))
        elif error := starting.exception():
            raise error
        heap.collect_seldom()
        await stopping
        await leave(server, settings.drain_delay_secs, orders.hurry)
        log.info("draining for at most %g s", settings.exit_timeout_secs)
        return 0 if await drain(server, settings.exit_timeout_secs) else 1
    finally:
        await close(server)


async def start(server: Server) -> None:
    """Open the ports first, so that health tells of a long start, then load the models."""
    try:
        await server.endpoints.start()
    except OSError as error:
        raise UnavailableError(
            f"metrics cannot listen on {server.endpoints.address}: {error.strerror or error}; choose another with "
            "--metrics-address and --metrics-port"
        ) from error
    if server.energy is not None:
        every_s = server.settings.energy_sample_ms / 1e3
        server.sampling = asyncio.get_running_loop().create_task(server.energy.run(every_s))
    await asyncio.gather(*(worker.start() for worker in server.workers))
    for transport in server.transports:
        await transport.start()
    server.tasks.add(asyncio.get_running_loop().create_task(_watch_memory(server)))
    await server.registry.start(list(server.settings.load_model))
    if server.settings.model_control_mode == "poll":
        server.tasks.add(asyncio.get_running_loop().create_task(_poll(server)))
    server.tasks.add(asyncio.get_running_loop().create_task(_balance(server)))
    addresses = ", ".join(address for transport in server.transports for address in transport.addresses)
    log.info(
        "serving %d models over gRPC on %s; metrics on http://%s/metrics (%s)",
        len({served.name for served in server.registry.served()}),
        addresses,
        server.endpoints.address,
        build_kind(),
    )


async def leave(server: Server, delay_s: float, hurry: asyncio.Event) -> None:
    """Turn health to NOT_SERVING, and serve on for `delay_s` or until `hurry`: balancers hear of it meanwhile."""
    server.leaving.set()
    server.registry.notify()
    if delay_s:
        log.info("told to stop: health says NOT_SERVING, requests are still taken for %g s", delay_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await hurry.wait()


async def drain(server: Server, timeout_s: float) -> bool:
    """Take no new requests, let accepted ones finish. False if some did not within `timeout_s`."""
    server.draining.set()
    server.registry.notify()
    for task in server.tasks:
        task.cancel()
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(transport.drain(timeout_s) for transport in server.transports))
            await server.registry.drain()
    except TimeoutError:
        log.warning("requests were still unfinished after %g s; they are given up", timeout_s)
        return False
    return True


async def close(server: Server) -> None:
    """Stop everything that is still running; safe to call at any time."""
    for task in (*server.tasks, *([server.sampling] if server.sampling else [])):
        task.cancel()
    for transport in server.transports:
        with contextlib.suppress(Exception):
            await transport.stop()
    await asyncio.gather(*(worker.stop(1.0) for worker in server.workers), return_exceptions=True)
    await server.endpoints.stop()
    server.close_resources()


async def _poll(server: Server) -> None:
    while True:
        await asyncio.sleep(server.settings.repository_poll_secs)
        try:
            await server.registry.poll()
        except Exception:
            log.exception("looking at the repository failed; it is tried again")


async def _watch_memory(server: Server) -> None:
    while True:
        pause_s = MEMORY_RETRY_S
        try:
            pause_s = await server.memory_watch.look()
        except Exception:
            log.exception("looking at workers' memory failed; it is tried again")
        await asyncio.sleep(pause_s)


async def _balance(server: Server) -> None:
    while True:
        await asyncio.sleep(BALANCE_S)
        try:
            server.placer.sample_loads()
        except Exception:
            log.exception("placing models by their load failed; it is tried again")
