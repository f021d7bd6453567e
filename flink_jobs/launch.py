"""Launching a job: all that must hold is seen to or checked first, so that a mistake is said in seconds."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flink_jobs.bootstrap import bootstrap_from
from flink_jobs.config import Environment, archive_of, load_environment
from flink_jobs.package import pack
from flink_jobs.project import archive_jars, shown
from flink_jobs.rest import FlinkError, FlinkRest, Job
from flink_jobs.submit import ARCHIVE, SCORE, Submission, submission, submit
from udfs.core.declare.arms import CHAMPION
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import DefinitionError, ModelError
from udfs.core.offline.archive import is_begun
from udfs.core.plan.checking import CheckedPipeline, check_pipeline
from udfs.core.state.header import StateHeader

SHOWN_ENTITIES = 5
"""Of more models per entity than these only their number is said."""
LOCAL_REFERENCE = "${services:"


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be launched."""

    pipeline: Path
    environment: Path
    #: savepoint to start from
    savepoint: str | None = None
    #: state snapshot to start from, in place of a savepoint
    bootstrap: str | None = None
    #: True: show the `flink run` line and stop there
    dry_run: bool = False
    running_timeout_s: float = 120.0


def is_local(environment: Path) -> bool:
    """Say whether an environment file means the local services."""
    return environment.is_file() and LOCAL_REFERENCE in environment.read_text(encoding="utf-8")


def launch_score(what: Launch, console: Console) -> Job | None:
    """Check, prepare, submit, and wait until every task of the job runs; None for a dry run.

    Raises
    ------
    HeadraceError : anything is not fit to run; nothing was submitted then, unless the message names a job.
    """
    checked, local = check_pipeline(what.pipeline), is_local(what.environment)
    _say(console, f"{shown(what.pipeline)} is valid, feature set {checked.feature_set}")
    if local:
        _start_services(console)
    environment = load_environment(what.environment)
    if what.bootstrap is not None:
        _check_bootstrap(what, checked, environment, console)
    rest = FlinkRest(environment.flink.rest_url)
    if not what.dry_run:
        _refuse_twin(rest, environment.job_name(checked.pipeline.name))
    versions = _model_versions(checked, environment)
    entities = checked.pipeline.model.entities
    if len(entities) > SHOWN_ENTITIES:
        _say(console, f"{len(entities):,} models per entity, resolved and checked")
    for arm in checked.pipeline.model.models:
        if len(entities) > SHOWN_ENTITIES and arm in entities:
            continue
        what_for = "" if arm.name == CHAMPION else f"arm {arm.name}: "
        _say(console, f"{what_for}model {arm.model}@{arm.alias} is version {versions[arm.name]}")
    if local:
        _create_topics(checked.pipeline, environment, console)
    # The alias may move before the client asks.
    arguments = [
        "--model-version",
        versions.pop(CHAMPION),
        *(["--bootstrap", what.bootstrap] if what.bootstrap else []),
    ]
    for name, version in versions.items():
        arguments += ["--arm-version", f"{name}={version}"]
    return _run(what, _submission(what, SCORE, arguments, environment, local=local), rest, console)


def launch_archive(what: Launch, console: Console) -> Job | None:
    """Check, prepare, submit, and wait until every task of the archive job runs; None for a dry run.

    Raises
    ------
    HeadraceError : as `launch_score`.
    """
    pipeline, local = check_pipeline(what.pipeline).pipeline, is_local(what.environment)
    _say(console, f"{shown(what.pipeline)} is valid")
    if local:
        _start_services(console)
    environment = load_environment(what.environment)
    root, jars = archive_of(environment, what.environment).root, archive_jars()[0].parent
    rest = FlinkRest(environment.flink.rest_url)
    if not what.dry_run:
        _refuse_twin(rest, environment.archive_job_name(pipeline.name))
        if what.savepoint is None and environment.kafka.start == "earliest-offset":
            _refuse_doubles(root, pipeline.name)
    if local:
        _create_topics(pipeline, environment, console)
    _say(console, f"files go to {root}/{pipeline.name}")
    return _run(what, _submission(what, ARCHIVE, ("--jars", shown(jars)), environment, local=local), rest, console)


def _run(what: Launch, planned: Submission, rest: FlinkRest, console: Console) -> Job | None:
    """Show the line, submit, and wait until every task runs."""
    console.print(f"\n{planned.line}\n", style="dim", highlight=False, soft_wrap=True)
    if what.dry_run:
        return None
    with console.status("submitting: flink run plans the job"):
        job_id = submit(planned)
    _say(console, f"submitted job {job_id}")
    with console.status("waiting for its tasks to run"):
        job = rest.wait_running(job_id, what.running_timeout_s)
    _say(console, f"{job.name} runs, {job.tasks} tasks: {rest.page(job_id)}")
    return job


def topics_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Return every topic that a pipeline reads or writes, each once."""
    sinks = pipeline.sinks
    named = [pipeline.source.topic, *(enrichment.topic for enrichment in pipeline.enrichments)]
    named += [pipeline.label.topic] if pipeline.label else []
    named += [sinks.predictions.topic, sinks.rejects.topic, sinks.late.topic, sinks.order.topic]
    return tuple(dict.fromkeys(named))


def _submission(
    what: Launch, script: Path, arguments: Sequence[str], environment: Environment, *, local: bool
) -> Submission:
    arguments = ("--pipeline", shown(what.pipeline), "--environment", shown(what.environment), *arguments)
    return submission(script, pack(), arguments, environment.flink, local=local, savepoint=what.savepoint)


def _check_bootstrap(what: Launch, checked: CheckedPipeline, environment: Environment, console: Console) -> None:
    if what.savepoint is not None:
        msg = "got --from and --bootstrap; a savepoint has the state of its lanes already, give one of them"
        raise DefinitionError(msg)
    pipeline = checked.pipeline.with_topic_prefix(environment.kafka.topic_prefix)
    place = what.bootstrap or ""
    start = bootstrap_from(place, StateHeader.of(pipeline, what.pipeline))
    begins = "where it ends" if start.offsets else f"at {environment.kafka.start}, as it does not say where it ends"
    _say(console, f"{place} fits; the sources begin {begins}")


def _start_services(console: Console) -> None:
    from scripts.services import services

    missing = [service.name for service in services.status() if service.state != "up"]
    if missing:
        services.up(None, missing, console)
    _say(console, "local services are up")


def _refuse_twin(rest: FlinkRest, name: str) -> None:
    """Two jobs of one name would share a consumer group, and abort each other's transactions or write rows twice."""
    twin = next((job for job in rest.jobs() if job.name == name and not job.ended), None)
    if twin is not None:
        msg = f"{name} is {twin.state} already, as job {twin.job_id}; stop it first: headrace stop {twin.job_id[:8]}"
        raise FlinkError(msg)


def _model_versions(checked: CheckedPipeline, environment: Environment) -> dict[str, str]:
    """Resolve every arm's alias, fetch and check the models as the job's client will; return arm -> version."""
    from models.arms import discard, resolve_arms

    try:
        registry, cache = environment.mlflow.tracking_uri, environment.mlflow.cache
        found = resolve_arms(checked.pipeline.model, registry, checked.feature_set, checked.columns, cache=cache)
    except ModelError as error:
        msg = f"{error}\n{training_hint(checked)}"
        raise ModelError(msg) from error
    discard(found.values())
    return {name: one.contract.version for name, one in found.items()}


def _refuse_doubles(root: str, pipeline: str) -> None:
    """A job that starts at the first record again would write every row again."""
    try:
        begun = is_begun(root, pipeline)
    except OSError:  # only the cluster has the credentials
        return
    if begun:
        msg = (
            f"{root}/{pipeline}: holds rows already, and a start from the first record writes them again; go on with"
            " --from SAVEPOINT (of `headrace stop`, or a retained checkpoint), or move that folder away"
        )
        raise FlinkError(msg)


def training_hint(checked: CheckedPipeline) -> str:
    """Return the commands that train the model of a pipeline and point its alias at it."""
    folder, name = shlex.quote(shown(checked.folder)), checked.pipeline.name
    history = f"build/{name}/history.parquet"
    if name == "flights":
        days = "--train-until 2013-09-01 --test-until 2013-11-01"
        first = f"  headrace flights export {history} --from 2013-01-01 --to 2013-10-31\n"
    else:
        days = "--train-until YYYY-MM-DD --test-until YYYY-MM-DD"
        first = f"  headrace history --pipeline {folder} --out {history}\n"
    train = f"  headrace models train --pipeline {folder} --history {history} {days}"
    return f"train and register one with:\n{first}{train}"


def _create_topics(pipeline: Pipeline, environment: Environment, console: Console) -> None:
    from scripts.kafka.topics import Topic, create

    names = topics_of(pipeline.with_topic_prefix(environment.kafka.topic_prefix))
    created = create(environment.kafka.bootstrap_servers, [Topic(name) for name in names])
    _say(console, f"topics: {len(names)}" + (f", created {', '.join(created)}" if created else ", all there"))


def _say(console: Console, text: str) -> None:
    console.print(f"[green]✓[/green] {text}", highlight=False, soft_wrap=True)
