"""What a person is told of a failure, out of pages of stack."""

import pytest

from flink_jobs.failures import root_cause, submission_cause

PYTHON = """org.apache.flink.runtime.taskmanager.AsynchronousException: Caught exception while processing timer.
\tat org.apache.flink.streaming.runtime.tasks.StreamTask.run(StreamTask.java:1767)
Caused by: java.lang.RuntimeException: Error received from SDK harness: Traceback (most recent call last):
  File "/opt/venv/site-packages/apache_beam/runners/worker/sdk_worker.py", line 311, in _execute
    response = task()
               ^^^^^^
  File "pyflink/fn_execution/beam/beam_operations_fast.pyx", line 70, in pyflink.has_next
  File "/tmp/python-dist/headrace.zip/udfs/featurize.py", line 53, in process_element
    lane = self._lane()
udfs.core.errors.StateFormatError: segment 7 has version 9; this code reads 1 and 2
start from fresh state

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient.onNext(FnApiControlClient.java:180)
\t... 3 more
"""
NO_MODEL = """headrace: model flights: has no alias 'champoin'; did you mean 'champion'?
train one with: headrace models train
org.apache.flink.client.program.ProgramAbortException: java.lang.RuntimeException: Python process exits with code: 1
\tat org.apache.flink.client.python.PythonDriver.main(PythonDriver.java:140)
Caused by: java.lang.RuntimeException: Python process exits with code: 1
"""


def test_a_python_failure_is_its_message_and_our_own_line() -> None:
    assert root_cause(PYTHON) == (
        "StateFormatError: segment 7 has version 9; this code reads 1 and 2\nstart from fresh state"
        " (at udfs/featurize.py:53, process_element)"
    )


def test_a_java_failure_is_its_innermost_cause() -> None:
    stack = "a.b.RestException: x\n\tat a.B(C.java:1)\nCaused by: a.KafkaException: transaction\n\tat a.C(D.java:2)\n"
    assert root_cause(stack) == "KafkaException: transaction"


@pytest.mark.parametrize("stack", ["", "\n\n"])
def test_no_stack_is_said_to_be_none(stack: str) -> None:
    assert root_cause(stack) == "no reason was given"


def test_the_message_of_the_job_itself_comes_through_whole() -> None:
    assert submission_cause(NO_MODEL) == (
        "model flights: has no alias 'champoin'; did you mean 'champion'?\ntrain one with: headrace models train"
    )


def test_a_submission_without_our_message_says_the_cause() -> None:
    output = (
        "The program finished with the following exception:\n\no.a.f.FlinkException: Could not submit\n"
        "Caused by: java.net.ConnectException: Connection refused\n\tat a.B(C.java:1)"
    )
    assert submission_cause(output) == "ConnectException: Connection refused"
    assert (
        submission_cause("bin/flink: line 3: java: command not found\n") == "bin/flink: line 3: java: command not found"
    )
