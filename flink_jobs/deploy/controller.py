"""The controller of one pipeline: takes an attempt from step to step, each written down before and after it is done.

After a crash the next controller reads the ledger, asks the cluster, and goes on where this one was. Each step may be
done twice: a stop carries its own id, a start the id of its job, and the cluster knows both.
"""

import fcntl
import getpass
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flink_jobs.deploy import health
from flink_jobs.deploy.attempts import (
    Attempt,
    Result,
    Standing,
    Step,
    attempts_of,
    next_step,
    outcome,
    previous,
    reason,
    rollback_source,
    standing,
)
from flink_jobs.deploy.client import Client, clear
from flink_jobs.deploy.cluster import Cluster
from flink_jobs.deploy.ledger import Ledger, Line
from flink_jobs.deploy.target import Target
from flink_jobs.rest import FlinkError, Job
from flink_jobs.submit import SubmissionError
from models.promotion import set_alias
from models.registry import resolve
from models.tracking import RegistryDownError, connect
from models.versions import find_version
from udfs.core.errors import HeadraceError, ModelError
from udfs.core.model.refusals import ModelRefusedError

HALT_TIMEOUT_S = 60.0


class DeployError(HeadraceError):
    """A deployment cannot be made, or another controller makes it."""


class Controller:
    """Deploys versions of one pipeline; hold `alone` around what changes anything.

    Parameters
    ----------
    target : what is deployed, and where
    report : gets a line for people per step
    """

    def __init__(self, target: Target, report: Callable[[str], None] = lambda _text: None) -> None:
        self.target, self._report = target, report
        self.environment = target.environment
        self.rules, self.folder = self.environment.deploy, target.folder
        self.ledger = Ledger(self.folder)
        self.cluster = Cluster(self.environment.flink.rest_url)
        self._client: tuple[str, Client] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one controller of this pipeline, on this machine.

        Raises
        ------
        DeployError : there is another one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                msg = f"{self.target.job_name}: another controller works on it, see `headrace deploy status`"
                raise DeployError(msg) from error
            try:
                yield
            finally:
                self.close()

    def close(self) -> None:
        """End a client that waits."""
        if self._client is not None:
            self._client[1].close()
            self._client = None

    def note(self, event: str, **fields: Any) -> Line:
        """Write a line."""
        return self.ledger.append(event, int(time.time() * 1000), **fields)

    def now(self) -> Standing:
        """Return what the ledger says of now."""
        return standing(self.ledger.lines())

    def alias_version(self) -> str:
        """Return the version that the alias points at.

        Raises
        ------
        ModelError : there is none, or MLflow cannot be asked.
        """
        model = self.target.declared.model
        with connect(self.environment.mlflow.tracking_uri) as client:
            return str(find_version(client, model.name, model.alias).version)

    def running(self) -> tuple[Job | None, str | None]:
        """Return the job that runs, and the version that it scores with; none, if none runs.

        Raises
        ------
        DeployError : there are two.
        """
        live = self.cluster.live(self.target.job_name)
        if len(live) > 1:
            found = ", ".join(job.job_id for job in live)
            msg = f"{self.target.job_name}: runs twice ({found}), which must never be; stop one: headrace stop ID"
            raise DeployError(msg)
        if not live:
            return None, None
        version = self.cluster.version(live[0].job_id)
        kafka = self.environment.kafka.bootstrap_servers
        return live[0], version or health.last_version(kafka, self.target.topics.predictions)

    def recover(self) -> Attempt | None:
        """Go on with the attempt that a controller left behind; one that touched nothing is closed."""
        for attempt in attempts_of(self.ledger.lines()):
            if attempt.ended is None:
                if not attempt.has_touched:
                    clear(self.folder / "clients")
                    return self._end(attempt, Result.ABANDONED, "the controller ended before the old job was touched")
                self._report(f"going on with attempt {attempt.id}")
                return self.advance(attempt.id)
        return None

    def deploy(
        self,
        version: str,
        why: str,
        *,
        request: int | None = None,
        savepoint: str | None = None,
        config: str | None = None,
        who: str | None = None,
    ) -> Attempt:
        """Run a version in place of the one that runs.

        Parameters
        ----------
        version : of the pipeline's model
        why : a person reads it in the history
        request : number of the line that asked for it
        savepoint : where the job goes on if none runs
        config : definition that was kept; default: as it is now
        who : asked for it; default: this user
        """
        opened = next((one.id for one in attempts_of(self.ledger.lines()) if one.ended is None), None)
        if opened is not None:
            msg = (
                f"{self.target.job_name}: attempt {opened} is not through; it is finished first: headrace deploy watch"
            )
            raise DeployError(msg)
        model = self.target.declared.model
        job, running = self.running()
        if job is None and savepoint is None:
            savepoint = self._where_it_ended()
        line = self.note(
            "begun",
            attempt=uuid.uuid4().hex[:12],
            model=model.name,
            alias=model.alias,
            version=version,
            why=why,
            who=who or getpass.getuser(),
            request=request,
            old_job=job.job_id if job else None,
            old_version=running,
            old_config=self.cluster.config(job.job_id) if job else None,
            config=config or self.target.keep(),
            savepoint=savepoint,
        )
        return self.advance(line.fields["attempt"])

    def _where_it_ended(self) -> str | None:
        """Return the newest savepoint or checkpoint of the last job; None if there never was one.

        Raises
        ------
        DeployError : there was one, and nobody knows where it ended; a start from the first record doubles its rows.
        """
        ended = [one.ended["job"] for one in attempts_of(self.ledger.lines()) if one.ended and one.ended["job"]]
        if ended and self.cluster.known(ended[-1]) is not None:
            newest = self.cluster.final_progress(ended[-1]).newest
            if newest is not None:
                return newest
        kafka = self.environment.kafka.bootstrap_servers
        if ended or health.last_version(kafka, self.target.topics.predictions) is not None:
            msg = (
                f"{self.target.job_name}: no job runs, and the cluster does not know where the last one ended; name its"
                " savepoint or newest checkpoint with --from"
            )
            raise DeployError(msg)
        return None

    def advance(self, attempt_id: str) -> Attempt:
        """Take an attempt to its end.

        Raises
        ------
        HeadraceError : the cluster or Kafka is away in the middle of it; the attempt stays open, `recover` goes on.
        """
        while True:
            attempt = next(one for one in attempts_of(self.ledger.lines()) if one.id == attempt_id)
            step = next_step(attempt)
            if step is None:
                return attempt
            if step is Step.END:
                return self._end(attempt, outcome(attempt), reason(attempt))
            self._do(attempt, step)

    def _end(self, attempt: Attempt, result: Result, why: str) -> Attempt:
        self.close()
        started = attempt.job_id(Step.RESTORE if result is Result.ROLLED_BACK else Step.START)
        untouched = result in (Result.REFUSED, Result.ABANDONED)
        self.note(
            "ended",
            attempt=attempt.id,
            result=result,
            version=attempt.asked["version"],
            reason=why,
            job=attempt.asked["old_job"] if untouched else started if result is not Result.FAILED else None,
        )
        self._report(f"version {attempt.asked['version']}: {result}{f': {why}' if why else ''}")
        if result is Result.DEPLOYED:
            self._point_previous(attempt.asked["version"])
        return next(one for one in attempts_of(self.ledger.lines()) if one.id == attempt.id)

    def _point_previous(self, running: str) -> None:
        """Point the alias of the previous version at what a rollback would go to; nothing depends on it at once."""
        before, model = previous(self.ledger.lines(), running), self.target.declared.model
        if before is None:
            return
        try:
            set_alias(model.name, before, model.serving.previous, self.environment.mlflow.tracking_uri)
        except ModelError as error:
            self._report(f"the alias {model.serving.previous} stays where it was: {error}")

    def _do(self, attempt: Attempt, step: Step) -> None:
        """Do one step between its two lines."""
        if step not in attempt.intents:
            attempt.intents[step] = self.note(
                "intent", attempt=attempt.id, step=step, **self._intent(attempt, step)
            ).fields
        done = {
            Step.CHECK: self._check,
            Step.PREPARE: self._prepare,
            Step.STOP: self._stop,
            Step.START: self._start,
            Step.WATCH: self._watch,
            Step.HALT: self._halt,
            Step.RESTORE: self._restore,
        }[step]
        began_s = time.monotonic()
        found = {"ok": True, **done(attempt)}
        took_ms = int((time.monotonic() - began_s) * 1000)
        self.note("result", attempt=attempt.id, step=step, took_ms=took_ms, **found)
        self._report(f"{step:<8} {took_ms / 1000:6.1f} s  {'' if found['ok'] else found['reason']}")

    def _intent(self, attempt: Attempt, step: Step) -> dict[str, Any]:
        """Return what must be known after a crash in the step."""
        if step is Step.STOP:
            return {"job": attempt.asked["old_job"], "trigger": attempt.job_id(step)}
        if step is Step.HALT:
            return {"job": attempt.job_id(Step.START), "trigger": attempt.job_id(step)}
        if step in (Step.START, Step.RESTORE):
            ends = health.ends(self.environment.kafka.bootstrap_servers, self.target.topics)
            return {"job": attempt.job_id(step), "ends": ends}
        return {}

    def _check(self, attempt: Attempt) -> dict[str, Any]:
        asked, mlflow = attempt.asked, self.environment.mlflow
        try:
            feature_set = self.target.feature_set(asked["config"])
            found = resolve(
                asked["model"],
                asked["alias"],
                mlflow.tracking_uri,
                feature_set,
                version=asked["version"],
                cache=mlflow.cache,
            )
            shutil.rmtree(found.folder, ignore_errors=True)
            plan = self.target.refuse_unfit(asked["old_config"], asked["config"])
        except RegistryDownError as error:
            return {"ok": False, "reason": str(error), "is_away": True}
        except ModelRefusedError as error:
            return {"ok": False, "reason": str(error), "refusal": str(error.reason)}
        except HeadraceError as error:
            return {"ok": False, "reason": str(error), "refusal": type(error).__name__}
        return {"digests": found.digests, "feature_set": feature_set, "state": plan}

    def _prepare(self, attempt: Attempt) -> dict[str, Any]:
        try:
            self._ready(attempt, Step.START, attempt.asked["version"], attempt.asked["config"])
        except SubmissionError as error:
            return {"ok": False, "reason": str(error), "refusal": "submission"}
        return {}

    def _ready(self, attempt: Attempt, step: Step, version: str, config: str) -> Client:
        """Return the client of a step, its job built; the one that waits already, if there is one."""
        client = self._build(attempt, step, version, config)
        client.wait_ready()
        return client

    def _build(self, attempt: Attempt, step: Step, version: str, config: str) -> Client:
        """Return the client of a step, which builds its job meanwhile."""
        if self._client is not None and self._client[0] == f"{attempt.id} {step}":
            return self._client[1]
        self.close()
        folder = self.folder / "clients"
        clear(folder)
        arguments = ["--pipeline", str(self.target.kept(config)), "--environment", str(self.target.environment_file)]
        arguments += ["--model-version", version]
        client = Client(folder, arguments, self.environment.flink, local=self.target.is_local)
        self._client = (f"{attempt.id} {step}", client)
        return client

    def _stop(self, attempt: Attempt) -> dict[str, Any]:
        intent = attempt.intents[Step.STOP]
        folder = self.environment.flink.savepoints
        try:
            is_native = self._is_checked(attempt, Step.START)
            return {"savepoint": self.cluster.stop_as(intent["trigger"], intent["job"], folder, is_native=is_native)}
        except FlinkError as error:
            job = self.cluster.known(intent["job"])
            if job is None:
                raise
            if not job.ended:
                return {"ok": False, "reason": str(error)}
            # It died on its own; what it committed is in its newest checkpoint.
            newest = self.cluster.final_progress(job.job_id).newest
            if newest is None:
                raise
            return {"savepoint": newest, "note": str(error)}

    def _start(self, attempt: Attempt) -> dict[str, Any]:
        stopped = attempt.results.get(Step.STOP, {})
        savepoint = stopped.get("savepoint", attempt.asked["savepoint"])
        return self._submit(attempt, Step.START, attempt.asked["version"], attempt.asked["config"], savepoint)

    def _submit(self, attempt: Attempt, step: Step, version: str, config: str, savepoint: str | None) -> dict[str, Any]:
        job_id = attempt.job_id(step)
        if self._client is None:
            clear(self.folder / "clients")  # the client of a controller that died may be about to submit
        if self.cluster.known(job_id) is None:
            try:
                client = self._ready(attempt, step, version, config)
                is_checked = savepoint is not None and self._is_checked(attempt, step)
                client.go(job_id, savepoint, lambda: self.cluster.is_taken(job_id), is_checked=is_checked)
            except SubmissionError as error:
                if self.cluster.known(job_id) is None:
                    self.close()
                    return {"ok": False, "reason": str(error)}
        return {"job": job_id, "version": version, "savepoint": savepoint}

    def _is_checked(self, attempt: Attempt, step: Step) -> bool:
        """Say whether the step `check` has held the state that a step starts from to its definition."""
        old, new = attempt.asked["old_config"], attempt.asked["config"]
        return old is not None and (old == new if step is Step.RESTORE else self.target.is_kept(old))

    def _watch(self, attempt: Attempt) -> dict[str, Any]:
        started = attempt.intents[Step.START]
        return self._see(started["job"], attempt.asked["version"], started["ends"])

    def _see(self, job_id: str, version: str, ends: health.Ends) -> dict[str, Any]:
        kafka = self.environment.kafka.bootstrap_servers
        try:
            return health.watch(self.cluster, job_id, version, ends, self.target.topics, kafka, self.rules)
        except health.UnhealthyError as error:
            return {"ok": False, "reason": str(error)}

    def _halt(self, attempt: Attempt) -> dict[str, Any]:
        intent, stopped = attempt.intents[Step.HALT], attempt.results.get(Step.STOP, {})
        original = stopped.get("savepoint", attempt.asked["savepoint"])
        # The old version's job is built beside the halt: nothing runs until it does.
        asked = attempt.asked
        self._build(attempt, Step.RESTORE, asked["old_version"], asked["old_config"] or asked["config"])
        job = self.cluster.known(intent["job"])
        if job is not None and not job.ended:
            self._halt_job(job, intent["trigger"], is_native=self._is_checked(attempt, Step.RESTORE))
        # Only now nothing more can be committed.
        progress = self.cluster.final_progress(intent["job"]) if job is not None else None
        was_submitted = bool(attempt.is_ok(Step.START)) or job is not None
        source = rollback_source(progress, original, was_submitted=was_submitted)
        if source is None:
            msg = "nobody can tell what the new job committed; start it by hand from its newest checkpoint"
            return {"ok": False, "reason": msg}
        return {"savepoint": source[0], "why": source[1]}

    def _halt_job(self, job: Job, trigger: str, *, is_native: bool) -> None:
        """End a job: with a savepoint if it can, else at once."""
        if job.state == "RUNNING":
            folder = self.environment.flink.savepoints
            try:
                self.cluster.stop_as(trigger, job.job_id, folder, is_native=is_native, timeout_s=HALT_TIMEOUT_S)
            except FlinkError as error:
                self._report(f"the new job gives no savepoint, it is cancelled: {error}")
        if not (self.cluster.known(job.job_id) or job).ended:
            self.cluster.cancel(job.job_id)

    def _restore(self, attempt: Attempt) -> dict[str, Any]:
        asked, savepoint = attempt.asked, attempt.results[Step.HALT]["savepoint"]
        config = asked["old_config"] or asked["config"]
        found = self._submit(attempt, Step.RESTORE, asked["old_version"], config, savepoint)
        if not found.get("ok", True):
            return found
        try:
            self.cluster.wait_running(found["job"], self.rules.healthy_within_ms / 1000)
        except FlinkError as error:
            self.cluster.jobs()
            return {"ok": False, "reason": str(error)}
        return found


def process_of_lock(controller: Controller) -> bool:
    """Say whether a controller works on the pipeline now."""
    lock = controller.folder / "lock"
    if not lock.exists():
        return False
    opened = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False
