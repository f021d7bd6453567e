"""MLflow's notices of moved aliases: signed, fresh, each taken once; they only make the next look at the alias sooner.

MLflow signs `DELIVERY_ID.TIMESTAMP.BODY` with HMAC-SHA256 and sends the three beside the body.
"""

import base64
import binascii
import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from udfs.core.errors import HeadraceError

SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
BODY_MAX_BYTES = 64 * 1024
KEPT_MAX = 10_000
READ_TIMEOUT_S = 5.0


class NoticeError(HeadraceError):
    """A notice that nobody may act on."""


class Notices:
    """Decides which notices count.

    Parameters
    ----------
    secret : that MLflow signs with
    window_s : how far a notice's time may be from now
    """

    def __init__(self, secret: str, window_s: float) -> None:
        if not secret:
            msg = "the secret of the webhook is empty; whoever reaches the port could sign"
            raise NoticeError(msg)
        self._secret, self._window_s = secret.encode(), window_s
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def accept(self, headers: Mapping[str, str], body: bytes, now_s: float) -> bool:
        """Say whether a notice is new: False for one that was taken before.

        Raises
        ------
        NoticeError : it is not signed, not by MLflow, or not of now.
        """
        delivery, timestamp, signature = (headers.get(name, "") for name in (DELIVERY, TIMESTAMP, SIGNATURE))
        if not (delivery and timestamp and signature):
            msg = f"a notice needs {DELIVERY}, {TIMESTAMP} and {SIGNATURE}"
            raise NoticeError(msg)
        signed = delivery.encode() + b"." + timestamp.encode() + b"." + body
        if not _is_signed(signature, hmac.digest(self._secret, signed, hashlib.sha256)):
            msg = "the signature is not that of the secret"
            raise NoticeError(msg)
        if not timestamp.isdecimal() or abs(now_s - int(timestamp)) > self._window_s:
            msg = f"its time {timestamp[:32]!r} is more than {self._window_s:g} s from now"
            raise NoticeError(msg)
        with self._lock:
            # What is older than two windows is refused by its time.
            while self._seen and (
                now_s - next(iter(self._seen.values())) > 2 * self._window_s or len(self._seen) >= KEPT_MAX
            ):
                self._seen.popitem(last=False)
            if delivery in self._seen:
                return False
            self._seen[delivery] = now_s
            return True


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the signature that MLflow sends.

    Examples
    --------
    >>> sign("s", "id", "0", b"{}").startswith("v1,")
    True
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()


def _is_signed(signature: str, wanted: bytes) -> bool:
    version, _, encoded = signature.partition(",")
    try:
        return version == "v1" and hmac.compare_digest(base64.b64decode(encoded, validate=True), wanted)
    except (binascii.Error, ValueError):
        return False


@contextmanager
def listening(port: int, notices: Notices, hint: Callable[[], None]) -> Iterator[int]:
    """Take notices on loopback while the block runs; yields the port, which is chosen if it is 0.

    Parameters
    ----------
    hint : called for each new notice; says nothing of what changed

    Raises
    ------
    NoticeError : the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_TIMEOUT_S

        def do_POST(self) -> None:
            self.close_connection = True
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
                self.send_error(413)
                return
            try:
                sent = {name: self.headers.get(name, "") for name in (DELIVERY, TIMESTAMP, SIGNATURE)}
                is_new = notices.accept(sent, self.rfile.read(int(length)), time.time())
            except NoticeError:
                self.send_error(401)
                return
            if is_new:
                hint()
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        msg = f"port {port}: cannot be listened on ({error.strerror}); choose another: deploy.webhook.port"
        raise NoticeError(msg) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
