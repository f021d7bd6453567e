"""Following aliases: MLflow is asked at intervals, which is the truth; a webhook only makes the next look sooner."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from flink_jobs.config import Webhook
from flink_jobs.deploy.attempts import Attempt, why_not
from flink_jobs.deploy.controller import Controller
from flink_jobs.deploy.webhook import Notices, listening
from udfs.core.errors import HeadraceError
from udfs.core.references import resolve

MISSING = "no job runs, and no savepoint of one is known; start it: headrace deploy apply"


def watch(
    controllers: Sequence[Controller],
    report: Callable[[str], None],
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Follow the aliases of some pipelines until it is over; one redeploy at a time.

    Parameters
    ----------
    report : gets what keeps a pipeline as it is, each time that this changes

    Raises
    ------
    DeployError : another controller follows one of them.
    """
    hint, said = threading.Event(), dict.fromkeys(controllers, "")
    interval_s = min(one.rules.poll_interval_ms for one in controllers) / 1000
    webhooks = {one.rules.webhook for one in controllers if one.rules.webhook}
    with ExitStack() as held:
        for one in controllers:
            held.enter_context(one.alone())
        for webhook in webhooks:
            held.enter_context(_listening(webhook, hint.set))
        while not is_over():
            hint.clear()
            for one in controllers:
                try:
                    found = look(one)
                except HeadraceError as error:
                    found = str(error)
                if isinstance(found, str) and found != said[one]:
                    report(f"{one.target.job_name}: {found}")
                said[one] = found if isinstance(found, str) else ""
            hint.wait(interval_s)


def look(one: Controller) -> Attempt | str:
    """Look once: finish what is open, answer what a person asked for, follow the alias; or say why nothing is done."""
    if (recovered := one.recover()) is not None:
        return recovered
    now = one.now()
    if now.requests:
        request = now.requests[0]
        asked = request.fields
        try:
            version = asked["version"] or one.alias_version()
            return one.deploy(
                version, asked["why"], request=request.number, savepoint=asked["savepoint"], who=asked["who"]
            )
        except HeadraceError as error:
            one.note("answered", request=request.number, reason=str(error))
            raise
    version = one.alias_version()
    job, running = one.running()
    if job is None:
        return MISSING
    at_ms, rules = int(time.time() * 1000), one.rules
    is_manual = rules.approve == "manual"
    if is_manual and version not in {running, now.proposed} and version not in now.held:
        one.note("proposed", version=version, running=running)
    kept = why_not(now, version, running, at_ms, rules.cooldown_ms, is_manual=is_manual)
    if kept is not None:
        return kept
    alias = one.target.declared.model.alias
    return one.deploy(version, f"{alias} moved from version {running} to {version}")


def _listening(webhook: Webhook, hint: Callable[[], None]) -> AbstractContextManager[object]:
    secret = resolve(webhook.secret, os.environ)
    return listening(webhook.port, Notices(secret, webhook.window_ms / 1000), hint)
