"""`headrace status`: the jobs of a cluster and, for the local environment, its services."""

import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flink_jobs.rest import FlinkRest, Health, Job
from udfs.core.declare.durations import UNITS_MS


def jobs_status(rest: FlinkRest) -> list[dict[str, Any]]:
    """Return the live jobs, and those that ended, as plain data; with the last failure of those that had one."""
    found = []
    for job in rest.jobs():
        health = rest.health(job.job_id)
        failure = rest.failure(job.job_id) if health.restarts or job.state == "FAILED" else None
        found.append({**asdict(job), **asdict(health), "failure": failure, "page": rest.page(job.job_id)})
    return found


def print_jobs(rest: FlinkRest, console: Console, *, all_jobs: bool) -> None:
    """Print the jobs; those that ended only on request."""
    jobs = [job for job in rest.jobs() if all_jobs or not job.ended]
    if not jobs:
        console.print(f"no job runs on {rest.url}", highlight=False)
        return
    table = Table("job", "id", "state", "for", "tasks", "restarts", "last checkpoint", box=None)
    pages, failures = [], []
    for job in jobs:
        health = rest.health(job.job_id)
        tasks = f"{job.tasks_running}/{job.tasks}"
        table.add_row(
            job.name, job.job_id[:8], job.state, ago(job.duration_ms), tasks, str(health.restarts), _checkpoint(health)
        )
        pages.append(rest.page(job.job_id))
        failures += _failures(rest, job, health)
    console.print(table)
    console.print()
    for line in (*pages, *failures):
        console.print(line, highlight=False, soft_wrap=True)


def print_services(console: Console) -> bool:
    """Print the local services and say whether Flink is up."""
    from scripts.services import services

    found = services.status()
    table = Table("service", "state", "address", box=None)
    for service in found:
        table.add_row(service.name, service.state, service.address)
    console.print(table)
    console.print()
    return any(service.name == "flink" and service.state == "up" for service in found)


def ago(duration_ms: int) -> str:
    """Return a duration to its largest telling unit.

    Examples
    --------
    >>> ago(4_321), ago(3_999_000), ago(200_000_000)
    ('4s', '66m', '55h')
    """
    for unit, least in (("d", 3), ("h", 3), ("m", 3), ("s", 1)):
        if duration_ms >= least * UNITS_MS[unit]:
            return f"{duration_ms // UNITS_MS[unit]}{unit}"
    return f"{duration_ms}ms"


def _checkpoint(health: Health) -> str:
    if health.checkpoint_at_ms is None:
        return "none yet"
    since = ago(max(int(time.time() * 1000) - health.checkpoint_at_ms, 0))
    return f"{since} ago, {health.checkpoint_took_ms} ms, {(health.checkpoint_bytes or 0) / 1000:,.0f} kB"


def _failures(rest: FlinkRest, job: Job, health: Health) -> list[str]:
    if not health.restarts and job.state != "FAILED":
        return []
    cause = rest.failure(job.job_id)
    return [f"[yellow]{job.job_id[:8]} failed last with:[/yellow] {escape(cause)}"] if cause else []
