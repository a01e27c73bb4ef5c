"""Who may look: whoever has the key that was printed, from a page of this server, under a name of this machine.

The key is exchanged for a cookie that scripts cannot read and that other sites' pages do not send. The name by which
the server is asked must be one of loopback's, so that a foreign name that was made to point here (DNS rebinding) gets
nothing; its port may be any, because a tunnel has its own.
"""

import hmac
import secrets
from collections.abc import Mapping
from threading import Lock

LOOPBACK = "127.0.0.1"
_NAMES = frozenset({LOOPBACK, "localhost", "[::1]"})
_SITES = frozenset({"same-origin", "none"})
_BYTES = 24

_EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Of an empty style element: it keeps OpenSeadragon from adding one of its own, which would hide the focus."""
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY}; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",  # pixels of patients do not belong on a browser's disk
}
"""Of every answer."""


class Session:
    """The key of one server, its cookie, and tickets that open the page once."""

    def __init__(self) -> None:
        self.key, self._token = secrets.token_urlsafe(_BYTES), secrets.token_urlsafe(_BYTES)
        self.cookie = f"wsi_lmc_{secrets.token_hex(4)}"  # cookies know no ports: two servers must not share one
        self._tickets: set[str] = set()
        self._lock = Lock()

    @property
    def token(self) -> str:
        """What the cookie holds."""
        return self._token

    def ticket(self) -> str:
        """A key that works once: for a browser that is started here, whose command line others may read."""
        made = secrets.token_urlsafe(_BYTES)
        with self._lock:
            self._tickets.add(made)
        return made

    def opens(self, key: str) -> bool:
        """Whether a key opens the page; a ticket does so once."""
        with self._lock:
            if key in self._tickets:
                self._tickets.remove(key)
                return True
        return _same(key, self.key)

    def knows(self, cookie: str | None) -> bool:
        """Whether a cookie is the one that was given."""
        return cookie is not None and _same(cookie, self._token)


def is_from_here(host: str, site: str | None, origin: str | None) -> bool:
    """Whether a request asks this machine by its own name, and no other site's page sent it.

    Args:
        host: header ``Host``.
        site: header ``Sec-Fetch-Site``, None where a client sends none.
        origin: header ``Origin``, likewise.
    """
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower() in _NAMES and site in {None, *_SITES} and origin in {None, f"http://{host}"}


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())
