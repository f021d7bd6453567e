"""The client of Flink's REST interface, against answers as Flink gives them."""

from collections.abc import Iterator
from typing import Any

import pytest

from flink_jobs.rest import FlinkError, FlinkRest

JOB = "9167bb058e48b231037d0f40a8d120df"
OTHER = "91aa00000000000000000000000000ff"
STACK = "a.b.JobException: x\n\tat a.B(C.java:1)\nCaused by: a.TopicException: no such topic\n"


def overview(state: str, running: int, job: str = JOB) -> dict[str, Any]:
    return {
        "jid": job,
        "name": "headrace-flights",
        "state": state,
        "duration": 7,
        "tasks": {"running": running, "total": 8},
    }


class Answers(FlinkRest):
    """A cluster that goes through the given states of its jobs and stays at the last."""

    def __init__(self, *states: list[dict[str, Any]], restarts: int = 0) -> None:
        super().__init__("http://flink:8081/")
        self._states, self._restarts, self.asked = list(states), restarts, [""]

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> Any:
        self.asked.append(f"{method} {path} {body or ''}".strip())
        if path == "/jobs/overview":
            return {"jobs": self._states.pop(0) if len(self._states) > 1 else self._states[0]}
        if "metrics" in path:
            return [{"id": "numRestarts", "value": str(self._restarts)}]
        if path.endswith("/exceptions"):
            return {"exceptionHistory": {"entries": [{"stacktrace": STACK}]}}
        if path.endswith("/stop"):
            return {"request-id": "t1"}
        if "/savepoints/" in path:
            return {"status": {"id": "COMPLETED"}, "operation": {"failure-cause": {"stack-trace": STACK}}}
        return {"counts": {"failed": 1}, "latest": {"completed": None}}


def ticking() -> Iterator[float]:
    yield from (float(second) for second in range(10_000))


def wait(answers: Answers) -> str:
    clock = ticking()
    return answers.wait_running(JOB, timeout_s=30, clock=lambda: next(clock), sleep=lambda _s: None).state


def test_it_waits_until_every_task_runs() -> None:
    states = [[overview("CREATED", 0)], [overview("RUNNING", 3)], [overview("RUNNING", 8)]]
    assert wait(Answers(*states)) == "RUNNING"


@pytest.mark.parametrize(
    ("state", "restarts", "message"),
    [
        ("FAILED", 0, "is FAILED instead of running: TopicException: no such topic"),
        ("RESTARTING", 5, "restarted 5 times instead of running: TopicException: no such topic"),
        ("INITIALIZING", 0, "is INITIALIZING instead of running"),
    ],
)
def test_a_job_that_does_not_come_up_is_given_up_with_its_cause(state: str, restarts: int, message: str) -> None:
    with pytest.raises(FlinkError, match=message):
        wait(Answers([overview(state, 0)], restarts=restarts))


def test_a_job_is_found_by_name_or_by_the_start_of_its_id() -> None:
    one = Answers([overview("RUNNING", 8), overview("CANCELED", 0, OTHER)])
    assert one.find("headrace-flights").job_id == one.find("9167").job_id == JOB
    with pytest.raises(FlinkError, match=f"no live job matches 'x'; live jobs: headrace-flights {JOB}"):
        one.find("x")
    both = Answers([overview("RUNNING", 8), overview("RUNNING", 8, OTHER)])
    with pytest.raises(FlinkError, match="2 jobs match '91'"):
        both.find("91")


def test_a_refused_savepoint_says_why_and_that_the_job_goes_on() -> None:
    answers = Answers([overview("RUNNING", 8)])
    with pytest.raises(FlinkError, match="goes on: TopicException"):
        answers.stop_with_savepoint(JOB, "file:///s")
    assert f"POST /jobs/{JOB}/stop {{'drain': False, 'targetDirectory': 'file:///s'}}" in answers.asked


def test_health_before_the_first_checkpoint() -> None:
    health = Answers([overview("RUNNING", 8)], restarts=2).health(JOB)
    assert (health.restarts, health.checkpoints_failed, health.checkpoint_at_ms) == (2, 1, None)
