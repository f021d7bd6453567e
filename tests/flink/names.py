"""Names that no other run has, so that one broker and one store serve all of them."""

import uuid


def fresh_prefix(name: str) -> str:
    """Return what is put before every topic name and store key of one run; another one each time."""
    return f"{name}-{uuid.uuid4().hex[:8]}."
