"""The viewer's server: on loopback alone, until it is interrupted."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tornado.httpserver import HTTPServer
from tornado.web import Application

from wsi_lmc.errors import UsageError
from wsi_lmc.viewer.handlers import ROUTES, Desk, MissingHandler, load_static
from wsi_lmc.viewer.session import LOOPBACK, Session
from wsi_lmc.viewer.viewing import ViewConfig, Viewer

_EYES, _MINDS = 4, 3  # threads that read pixels, and that compute values
_NO_BODY = 1024  # bytes: no question has one
_ON = "http://{}:{}/?key={}"


class ViewServer:
    """A server that listens already; :meth:`serve` answers."""

    def __init__(self, config: ViewConfig, port: int = 0) -> None:
        """Read the list of slides and listen.

        Raises:
            UsageError: a folder is not what it was named as, or the port is taken.
        """
        self.viewer, self.session = Viewer(config), Session()
        try:
            self._socket = socket.create_server((LOOPBACK, port))
        except OSError as error:
            raise UsageError(
                f"port {port}: {error.strerror}", "a free port of 1024 or more", "Choose another with --port, or 0."
            ) from error
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """The address, with its key, to be opened by whoever reads it."""
        return _ON.format(LOOPBACK, self.port, self.session.key)

    def ticket_url(self) -> str:
        """The address with a key that works once."""
        return _ON.format(LOOPBACK, self.port, self.session.ticket())

    def run(self, ready: Callable[[], None]) -> None:
        """Answer until this thread is interrupted; ``ready`` is called once questions are answered."""
        asyncio.run(self.serve(ready))

    async def serve(self, ready: Callable[[], None], until: asyncio.Event | None = None) -> None:
        """Answer until cancelled, or until an event."""
        with ThreadPoolExecutor(_EYES, "eyes") as eyes, ThreadPoolExecutor(_MINDS, "minds") as minds:
            desk = Desk(self.viewer, self.session, eyes, minds, load_static())
            routes = [(pattern, handler, {"desk": desk}) for pattern, handler in ROUTES]
            application = Application(
                routes, default_handler_class=MissingHandler, default_handler_args={"desk": desk},
                log_function=lambda _: None, compress_response=False,
            )  # fmt: skip
            server = HTTPServer(application, max_body_size=_NO_BODY, decompress_request=False)
            server.add_socket(self._socket)
            ready()
            try:
                await (until or asyncio.Event()).wait()
            finally:
                server.stop()
                await server.close_all_connections()
                for pool in (eyes, minds):
                    pool.shutdown(wait=False, cancel_futures=True)
                self.viewer.close()
