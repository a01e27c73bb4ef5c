"""Loopback, encryption, and a worker process that really starts and opens a slide."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from wsi_lmc.doctor.check import Check, expect, tried

_WAIT_S = 10.0
_HELLO = b"hello"


def checks(out: Path) -> Iterator[Check]:
    """What workers need; nothing here leaves this machine."""
    del out
    yield tried("loopback", _loopback, "Allow sockets on 127.0.0.1, or pass --workers 0, which needs none.")
    yield tried("TLS", _tls, "Use a Python with OpenSSL; only remote clusters need it.")
    yield tried(
        "worker process", _worker, "Run: pip install --force-reinstall 'dask[distributed]', or pass --workers 0."
    )


def _loopback() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S) as client:
            server.settimeout(_WAIT_S)
            accepted, _ = server.accept()
            with accepted:
                client.sendall(_HELLO)
                expect(accepted.recv(len(_HELLO)) == _HELLO, "what was sent does not arrive")
    return "a socket on 127.0.0.1 opens, connects and carries"


def _tls() -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expect(context.minimum_version >= ssl.TLSVersion.TLSv1_2, "it would accept TLS older than 1.2")
    return ssl.OPENSSL_VERSION


def _worker() -> str:
    """One worker of dask, on loopback, opens a slide as `tile` would."""
    from wsi_lmc.cluster import LocalWorkers, make_executor
    from wsi_lmc.cohort import SlideEntry
    from wsi_lmc.doctor.codecs import smooth_pixels, write_sample
    from wsi_lmc.doctor.packages import installed
    from wsi_lmc.steps.audit import AuditTask, audit_slide
    from wsi_lmc.steps.tile import TileConfig

    with TemporaryDirectory(prefix="wsi-lmc-doctor-") as folder:
        path = write_sample(Path(folder) / "slide.tif", smooth_pixels())
        with make_executor(LocalWorkers(1)) as executor:
            (outcome,) = executor.run(audit_slide, [AuditTask(SlideEntry(path, "slide"), TileConfig())])
    expect(outcome.state != "failed", f"{outcome.code}: {outcome.reason}")
    return f"dask {installed('dask')} starts one on loopback, which opens a slide"
