"""The cache of last-known-good models on this machine, by digest, for when the registry is down.

versions/<sha256 of contract.json>/   the three files as they were registered
known/<sha256 of the question>.json   which version answered it last: registry, model, alias or version

What is read back is held to its digests and to every rule of `check` again, as if it came from the registry.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from udfs.core.model.files import CONTRACT_FILE, FILES, MAX_BYTES, plain_name, read_file, sha256
from udfs.core.model.refusals import ModelRefusedError, Refusal

KEPT = 50
"""Answers that are kept, the newest ones."""


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that was fetched and passed every check."""

    tracking_uri: str
    name: str
    #: `@alias` or `/version`
    asked: str
    version: str
    #: file -> SHA-256
    digests: dict[str, str]
    #: when it was last fetched and checked, epoch milliseconds
    seen_ms: int


@dataclass(frozen=True, slots=True)
class ModelCache:
    """A cache in a folder that only this user can write to."""

    root: Path

    @classmethod
    def default(cls) -> "ModelCache":
        """Return the cache of this user: `HEADRACE_MODEL_CACHE`, else `headrace/models` in the user's cache folder."""
        own = os.environ.get("HEADRACE_MODEL_CACHE")
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        return cls(Path(own or base / "headrace" / "models").expanduser())

    def remember(self, known: Known, files: Mapping[str, bytes]) -> None:
        """Keep a version that was just fetched and checked.

        Raises
        ------
        OSError : the folder cannot be written to.
        ModelRefusedError : `path`: others can write to it.
        """
        self._open()
        target = self._version(known.digests)
        if not target.is_dir():
            made = Path(tempfile.mkdtemp(dir=self.root / "versions"))
            for file in FILES:
                (made / file).write_bytes(files[file])
            try:
                made.rename(target)
            except OSError:  # somebody else was quicker, with the same bytes
                shutil.rmtree(made, ignore_errors=True)
                if not target.is_dir():
                    raise
        note = self._note(known.tracking_uri, known.name, known.asked)
        with tempfile.NamedTemporaryFile(dir=note.parent, delete=False) as written:
            written.write(msgspec.json.encode(known))
        Path(written.name).replace(note)
        self._prune()

    def recall(self, tracking_uri: str, name: str, asked: str) -> tuple[Known, dict[str, bytes]] | None:
        """Return the version that answered last, with its files as registered; None if there was none.

        Raises
        ------
        ModelRefusedError : `digest`: a file is not the one that was kept. `path`: others can write to the cache.
        """
        note = self._note(tracking_uri, name, asked)
        if not note.is_file():
            return None
        self._open()
        try:
            known = msgspec.json.decode(read_file(note.parent, note.name, MAX_BYTES[CONTRACT_FILE]), type=Known)
        except msgspec.DecodeError as error:
            msg = f"{note}: is no note of a known model: {error}; remove it"
            raise ModelRefusedError(Refusal.CONTRACT, msg) from error
        folder = self._version(known.digests)
        files = {file: read_file(folder, file) for file in FILES}
        for file, content in files.items():
            if sha256(content) != known.digests.get(file):
                msg = (
                    f"{folder / file}: has sha256 {sha256(content)}; it had {known.digests.get(file)} when it was kept"
                )
                raise ModelRefusedError(Refusal.DIGEST, msg)
        return known, files

    def _open(self) -> None:
        for folder in (self.root, self.root / "versions", self.root / "known"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
                msg = f"{folder}: must be a folder of this user that nobody else can write to; chmod 700 it, or name"
                raise ModelRefusedError(Refusal.PATH, f"{msg} another in HEADRACE_MODEL_CACHE")

    def _version(self, digests: Mapping[str, str]) -> Path:
        return self.root / "versions" / plain_name(digests.get(CONTRACT_FILE, ""))

    def _note(self, tracking_uri: str, name: str, asked: str) -> Path:
        question = "\0".join((tracking_uri.rstrip("/"), name, asked))
        return self.root / "known" / f"{sha256(question.encode())}.json"

    def _prune(self) -> None:
        """Forget the oldest answers, and the versions that no answer names."""
        notes = sorted((self.root / "known").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        named = set()
        for note in notes[:KEPT]:
            named.add(msgspec.json.decode(note.read_bytes(), type=Known).digests[CONTRACT_FILE])
        for note in notes[KEPT:]:
            note.unlink(missing_ok=True)
        for folder in (self.root / "versions").iterdir():
            # A new one may be about to be named.
            if folder.name not in named and time.time() - folder.stat().st_mtime > 3600:
                shutil.rmtree(folder, ignore_errors=True)
