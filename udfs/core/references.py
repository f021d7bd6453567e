"""References in settings, so that no secret is written down: `${env:NAME}`, `${file:/path}`, `${services:kafka}`."""

import re
from collections.abc import Mapping
from pathlib import Path

from udfs.core.errors import DefinitionError, did_you_mean

REFERENCE = re.compile(r"\$\{(env|file|services):([^}]+)\}")


def resolve(
    text: str, environment: Mapping[str, str], services: Mapping[str, str] | None = None, *, secrets: bool = True
) -> str:
    """Return `text` with its references replaced.

    Parameters
    ----------
    environment : environment variables
    services : addresses of the local services, None if there are none
    secrets : False leaves `env` and `file` references standing, to be resolved where they are used

    Raises
    ------
    DefinitionError : a reference leads nowhere.

    Examples
    --------
    >>> resolve("redis://:${env:PASSWORD}@cache:6379/0", {"PASSWORD": "x"})
    'redis://:x@cache:6379/0'
    """

    def replacement(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        if kind == "services":
            if services is None:
                msg = f"{match[0]}: the local services are not up; start them with `headrace services up`"
                raise DefinitionError(msg)
            if name not in services:
                msg = f"{match[0]}: there is no local service {name!r}{did_you_mean(name, services)}"
                raise DefinitionError(msg)
            return services[name]
        if not secrets:
            return match[0]
        if kind == "env":
            if name not in environment:
                msg = f"{match[0]}: the environment variable {name} is not set"
                raise DefinitionError(msg)
            return environment[name]
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            msg = f"{match[0]}: cannot be read: {error.strerror}"
            raise DefinitionError(msg) from error

    return REFERENCE.sub(replacement, text)
