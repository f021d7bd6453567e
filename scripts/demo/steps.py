"""Progress lines: one per step, with its time when it took long enough to be noticed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

NOTICED_S = 0.5


class Steps:
    """Prints what the demo does.

    Parameters
    ----------
    console : where
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        #: (text, seconds) of each step that is through
        self.done: list[tuple[str, float]] = []

    def title(self, text: str) -> None:
        """Open a part."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def say(self, text: str) -> None:
        """Print a line of something that takes no time."""
        self.console.print(f"  [green]✓[/green] {escape(text)}", highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner while the block runs, and a line with its time afterwards; yields what changes the text."""
        started_s, last = time.monotonic(), text
        with self.console.status(escape(text)) as status:

            def note(changed: str) -> None:
                nonlocal last
                last = changed
                status.update(escape(changed))

            yield note
        took_s = time.monotonic() - started_s
        self.done.append((last, took_s))
        self.say(f"{last}  ({took_s:.1f} s)" if took_s >= NOTICED_S else last)
