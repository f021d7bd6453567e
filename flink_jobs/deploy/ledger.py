"""The ledger: append-only JSON lines, each with the SHA-256 of the one before and its own; one writer at a time.

An edited, missing or reordered line breaks the chain. A cut tail does not: the number and digest of the last line stand
in a file beside it. Whoever may rewrite both files may forge all; note the head's digest elsewhere to see that, too.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from udfs.core.errors import HeadraceError

START = "0" * 64
"""What the first line says of the line before it."""


class LedgerError(HeadraceError):
    """The ledger is not what was written: names the first line that is wrong."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, as it stands in the file."""

    number: int
    at_ms: int
    #: SHA-256 of the line before
    before: str
    event: str
    fields: dict[str, Any]
    #: SHA-256 of all above
    sha256: str

    def encode(self) -> bytes:
        """Return the line with its end."""
        return _canonical({**_content(self), "sha256": self.sha256}) + b"\n"


@dataclass(frozen=True, slots=True)
class Head:
    """The last line that is known to be whole on disk."""

    number: int
    sha256: str


class Ledger:
    """A ledger in a folder: `ledger.jsonl`, `head.json` and a lock file.

    Parameters
    ----------
    folder : made if it is not there
    """

    def __init__(self, folder: Path) -> None:
        self.file, self._head, self._lock = folder / "ledger.jsonl", folder / "head.json", folder / "ledger.lock"

    def lines(self) -> tuple[Line, ...]:
        """Return all lines, checked; a torn last one is left out, `append` repairs it.

        Raises
        ------
        LedgerError : see `check`.
        """
        return check(self._bytes(), self._known_head())[0]

    def append(self, event: str, at_ms: int, **fields: Any) -> Line:
        """Write one line, and see it on disk before this returns.

        Raises
        ------
        LedgerError : what stands there is not what was written; nothing is added to it.
        """
        with self._alone():
            lines, torn = check(self._bytes(), self._known_head())
            last = lines[-1] if lines else None
            if torn:
                with self.file.open("r+b") as file:
                    file.truncate(file.seek(0, os.SEEK_END) - len(torn))
                note = {"torn_bytes": len(torn), "torn_sha256": hashlib.sha256(torn).hexdigest()}
                last = self._write(following(last, "repaired", at_ms, note))
            return self._write(following(last, event, at_ms, fields))

    def verify(self, head: str | None = None) -> tuple[Line, ...]:
        """Return all lines, if they are what was written.

        Parameters
        ----------
        head : SHA-256 of a line that was noted elsewhere; it must be among them

        Raises
        ------
        LedgerError : names the first line that is wrong.
        """
        lines, torn = check(self._bytes(), self._known_head())
        if torn:
            msg = f"{self.file}: line {len(lines) + 1} is torn after {len(torn)} bytes; the next line repairs that"
            raise LedgerError(msg)
        if head is not None and not any(line.sha256 == head for line in lines):
            msg = f"{self.file}: no line has the digest {head}; the ledger was cut before it, or written anew"
            raise LedgerError(msg)
        return lines

    @property
    def has_head(self) -> bool:
        """Say whether a cut tail would be seen."""
        return self._head.is_file()

    def _write(self, line: Line) -> Line:
        is_new = not self.file.exists()
        with self.file.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        draft = self._head.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(_canonical({"number": line.number, "sha256": line.sha256}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._head)
        if is_new:
            _sync_folder(self.file.parent)
        return line

    def _bytes(self) -> bytes:
        return self.file.read_bytes() if self.file.exists() else b""

    def _known_head(self) -> Head | None:
        if not self._head.exists():
            return None
        try:
            found = json.loads(self._head.read_bytes())
            return Head(int(found["number"]), str(found["sha256"]))
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{self._head}: cannot be read as the head of a ledger: {error}"
            raise LedgerError(msg) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def following(last: Line | None, event: str, at_ms: int, fields: dict[str, Any]) -> Line:
    """Return the line that comes after `last`.

    Examples
    --------
    >>> first = following(None, "paused", 5, {"who": "ada"})
    >>> following(first, "resumed", 6, {}).before == first.sha256
    True
    """
    number, before = (last.number + 1, last.sha256) if last else (1, START)
    # As it will be read back: a tuple would come back as a list, and the digest is of the text.
    plain = json.loads(_canonical(fields))
    draft = Line(number, at_ms, before, event, plain, "")
    return Line(number, at_ms, before, event, plain, _digest(draft))


def check(content: bytes, head: Head | None) -> tuple[tuple[Line, ...], bytes]:
    """Read a ledger and hold it to its chain and its head.

    Parameters
    ----------
    content : of the file
    head : last line known to be whole; None: a cut tail is not seen

    Returns
    -------
    The lines, and what a crash left of one after them that was never whole.

    Raises
    ------
    LedgerError : names the first line that was edited, is missing, stands elsewhere or was cut.
    """
    *whole, torn = content.split(b"\n")
    lines: list[Line] = []
    for number, text in enumerate(whole, 1):
        before = lines[-1].sha256 if lines else START
        line = _decode(text, number)
        if line.sha256 != _digest(line):
            msg = f"line {number} was edited: its digest is {_digest(line)}, it says {line.sha256}"
            raise LedgerError(msg)
        if line.number != number:
            msg = f"line {number} is missing or was moved: number {line.number} stands in its place"
            raise LedgerError(msg)
        if line.before != before:
            msg = f"line {number - 1 or 1} was exchanged or written anew: line {number} follows {line.before}"
            raise LedgerError(msg)
        if head is not None and head.number == number and head.sha256 != line.sha256:
            msg = f"line {number} was written anew: its digest is {line.sha256}, the head says {head.sha256}"
            raise LedgerError(msg)
        lines.append(line)
    if head is not None and head.number > len(lines):
        msg = f"line {len(lines) + 1} is missing: the ledger was cut, its head is line {head.number}"
        raise LedgerError(msg)
    return tuple(lines), torn


def _decode(text: bytes, number: int) -> Line:
    try:
        found = json.loads(text)
        line = Line(**{name: found[name] for name in ("number", "at_ms", "before", "event", "fields", "sha256")})
        if line.encode() == text + b"\n" and isinstance(line.number, int):
            return line
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    msg = f"line {number} was edited: it is no line of a ledger"
    raise LedgerError(msg)


def _content(line: Line) -> dict[str, Any]:
    names = ("number", "at_ms", "before", "event", "fields")
    return {name: getattr(line, name) for name in names}


def _digest(line: Line) -> str:
    return hashlib.sha256(_canonical(_content(line))).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
