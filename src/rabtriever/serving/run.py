"""From settings to a running server, and its orderly end."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from rabtriever.errors import InputError
from rabtriever.serving.app import create_app
from rabtriever.serving.service import Service
from rabtriever.serving.settings import Settings

__all__ = ["is_loopback", "listen", "serve"]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_IDLE_SECONDS = 20
_log = logging.getLogger("rabtriever.serving")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Take the address before a model is loaded for it; port 0 is any that is free.

    Raises:
        InputError: It is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as error:
        place.close()
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen on {host}:{port}: {reason}", hint="choose another --host or --port") from None
    return place


def serve(service: Service, settings: Settings, place: socket.socket, started: Callable[[], None]) -> None:
    """Answer requests until SIGINT or SIGTERM; then finish what was accepted, and return.

    Args:
        service: What answers; closed at the end.
        settings: Keys, origins and limits.
        place: A bound socket; see :func:`listen`.
        started: Called once requests are taken.
    """
    config = uvicorn.Config(
        create_app(service, settings),
        loop="asyncio",  # and the parser below: what the limits were tested with, whatever else is installed
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        # A reading request is given up after its time anyway; a write may take longer, and is waited for.
        timeout_graceful_shutdown=int(settings.limits.write_seconds) + 10,
    )
    server = _Server(config, started)
    # After its orderly end uvicorn raises the signal anew for the handler that was there before.
    previous = {number: signal.signal(number, _ended) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[place])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()


def _ended(number: int, _: FrameType | None) -> None:
    _log.info("stopped", extra={"event": "stopped", "signal": signal.Signals(number).name})
