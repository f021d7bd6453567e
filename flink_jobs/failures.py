"""The root of a failure: finds in pages of Java and Python stack the one line that a person can act on."""

import re

_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
_CAUSE = re.compile(r"^(?:Caused by: )?(?P<name>[\w.$]+(?:Exception|Error|Throwable))(?:: (?P<text>.*))?$")
_OURS = re.compile(r"(?:^|/)((?:flink_jobs|udfs|models|bundle/pipeline)/.+)$")
OWN_PREFIX = "headrace: "
LINES_MAX = 12


def root_cause(stack: str) -> str:
    r"""Return what a stack trace comes to: the Python error with our own line, else the innermost Java cause.

    Examples
    --------
    >>> root_cause("a.TimerException: x\nCaused by: java.io.IOException: disk full\n\tat a.b(C.java:1)")
    'IOException: disk full'
    """
    if _TRACEBACK in stack:
        return _python_cause(stack.rpartition(_TRACEBACK)[2])
    causes = [match for line in stack.splitlines() if (match := _CAUSE.match(line.strip()))]
    if not causes:
        return next((line.strip() for line in stack.splitlines() if line.strip()), "no reason was given")
    return _named(causes[-1]["name"], causes[-1]["text"] or "")


def submission_cause(output: str) -> str:
    """Return the reason in what a failed `flink run` printed: the job's own message first of all."""
    lines = output.splitlines()
    for i, line in enumerate(lines):
        if OWN_PREFIX in line:
            return "\n".join([line.partition(OWN_PREFIX)[2], *_until_java(lines[i + 1 :])])
    if _TRACEBACK in output or any(_CAUSE.match(line.strip()) for line in lines):
        return root_cause(output)
    said = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("at ")]
    return "\n".join(said[-LINES_MAX:]) or "flink run said nothing"


def _until_java(lines: list[str]) -> list[str]:
    """Return the lines before the first that Java wrote."""
    kept: list[str] = []
    for line in lines:
        if not line.strip() or _CAUSE.match(line.strip()) or line.startswith(("\tat ", "org.apache.", "---")):
            break
        kept.append(line)
    return kept


def _python_cause(traceback: str) -> str:
    frames: list[re.Match[str]] = []
    text: list[str] = []
    for line in traceback.splitlines():
        if frame := _FRAME.match(line):
            frames.append(frame)
        elif text and (not line.strip() or line.startswith("\tat ")):
            break
        elif text or (frames and not line[:1].isspace()):
            text.append(line)
    name, _, message = "\n".join(text).partition(": ")
    ours = [frame for frame in frames if _OURS.search(frame["file"])]
    where = ""
    if ours:
        file = _OURS.search(ours[-1]["file"])
        where = f" (at {file[1]}:{ours[-1]['line']}, {ours[-1]['function']})" if file else ""
    return _named(name, message) + where


def _named(name: str, text: str) -> str:
    short = name.rpartition(".")[2]
    return f"{short}: {text}" if text else short
