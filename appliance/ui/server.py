"""WebServer: uvicorn as one part among others."""

import asyncio
import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

log = logging.getLogger(__name__)

GRACE_S = 1


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to the process."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class WebServer:
    """Serves the page at `host:port` until cancelled; a taken port is an OSError, not an exit."""

    def __init__(self, bind: str, app: FastAPI) -> None:
        host, _, port = bind.rpartition(":")
        self._host, self._port = host.strip("[]") or "127.0.0.1", int(port)
        self._app = app
        self.port: int | None = None
        """The port it listens on, once it does; tells which one port 0 became."""

    async def run(self) -> None:
        """Serve; when cancelled, end the live streams first, so that nothing waits for a browser."""
        stopping: asyncio.Event = self._app.state.stopping
        stopping.clear()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with socket.create_server((self._host, self._port), family=family) as listener:
            self.port = listener.getsockname()[1]
            config = uvicorn.Config(
                self._app,
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=GRACE_S,
            )
            server = _Server(config)
            log.info("page: listening on http://%s:%d", self._host, self.port)
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(server.serve(sockets=[listener]), name="uvicorn")
                try:
                    await asyncio.shield(serving)
                finally:
                    self.port = None
                    stopping.set()
                    server.should_exit = True
                    await serving  # Before the group would cancel it: uvicorn closes its connections in order.
