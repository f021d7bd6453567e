"""One line per service while services start or stop."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_FINAL = ("up", "down")


@contextmanager
def service_lines(console: Console | None, names: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
    """Yield `report(name, text)`, which shows what a service is doing; `up` and `down` end its clock.

    On a terminal the lines are redrawn in place; elsewhere a line is printed when a service is through.
    """
    if console is None:
        yield lambda _name, _text: None
    elif console.is_terminal:
        yield from _redrawn(console, names)
    else:
        lock = threading.Lock()

        def report(name: str, text: str) -> None:
            if text in _FINAL:
                with lock:
                    console.print(f"{name:<7} {text}")

        yield report


def _redrawn(console: Console, names: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
    columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.fields[service]:<7}"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
        tasks = {name: progress.add_task("", total=1, service=name) for name in names}

        def report(name: str, text: str) -> None:
            progress.update(tasks[name], description=text, completed=1 if text in _FINAL else 0)

        yield report
