"""The sender, a program of its own, so that nothing else in the drill can slow it: python -m scripts.drill.send

Payments in an open loop, until its standard input is closed. Their ids go to a ledger, one a line, before they are
sent; the program ends well only if the broker has acknowledged every one.
"""

import argparse
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scripts.drill.accounting import I64
from scripts.load.send import Sender, send_paced
from scripts.load.settings import BLOCK, Load
from scripts.load.stream import batches

BATCH = 500
ID = slice(len(b'{"payment_id":"'), len(b'{"payment_id":"') + 12)
"""Where the id of a payment stands in its text."""
_MANY = 10**6 * BLOCK


def send(bootstrap: str, topic: str, rate: float, ledger: Path, is_over: threading.Event, load: Load) -> int:
    """Send until it is over; return how many payments."""
    with ledger.open("wb") as book:

        def given() -> Iterator[tuple[list[bytes], list[bytes | None]]]:
            for part in batches(load, _MANY, BATCH):
                if is_over.is_set():
                    return
                book.write(b"".join((value or b"")[ID] + b"\n" for value in part.values))
                yield part.keys, part.values

        return send_paced(Sender(bootstrap, topic, linger_ms=5.0), given(), rate).sent


def read_ids(ledger: Path) -> I64:
    """Return the numbers of the payments in a ledger."""
    lines = np.frombuffer(ledger.read_bytes(), np.uint8).reshape(-1, 13)
    return np.asarray(lines[:, 1:12].astype(np.int64) @ (10 ** np.arange(10, -1, -1)) - 48 * 11_111_111_111, np.int64)


def main() -> None:
    """Send until standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    chosen = parser.parse_args()
    is_over = threading.Event()

    def wait() -> None:
        sys.stdin.buffer.read()
        is_over.set()

    threading.Thread(target=wait, daemon=True).start()
    # Event time goes as fast as the clock on the wall.
    load = Load(event_rate=chosen.rate)
    print(send(chosen.bootstrap, chosen.topic, chosen.rate, chosen.ledger, is_over, load))


if __name__ == "__main__":
    main()
