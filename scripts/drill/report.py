"""The report of a drill: as JSON with stable keys, and as text with the targets met or not."""

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.drill.accounting import Books
from scripts.drill.settings import FIRST_MAX_MS, GAP_SLACK_MS, Settings


@dataclass(frozen=True, slots=True)
class Redeploy:
    """One promotion of a good version, and what became of it."""

    version: str
    result: str
    #: longest time between two committed predictions while it went on, by the broker's clock
    gap_ms: int
    #: from the promotion to the first prediction of the version; None if it gave none
    first_ms: int | None
    #: step -> milliseconds
    steps_ms: dict[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """One promotion of a bad version."""

    what: str
    version: str
    #: reason that it is to be refused for, and how the ledger says that it ended
    wanted: str
    result: str
    reason: str
    scored: int

    @property
    def is_as_wanted(self) -> bool:
        """Say whether it was refused for its reason and scored nothing."""
        return (self.result, self.reason, self.scored) == ("refused", self.wanted, 0)


@dataclass(frozen=True, slots=True)
class Report:
    """What a drill found."""

    settings: Settings
    books: Books
    redeploys: list[Redeploy]
    refused: list[Refused]
    longest_gap_ms: int
    #: longest time in which a live reader of committed records saw nothing new
    longest_unseen_ms: int
    #: what the final reader found is what the live one counted
    live_agrees: bool
    #: versions changed once per redeploy, in its order
    versions_in_order: bool
    #: the job that ran before the bad models ran after them, without a restart
    job_stayed: bool
    #: records of the other output topics
    letters: int
    wall_s: float
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def promote_to_first_ms(self) -> int | None:
        """The slowest promotion that was deployed."""
        return max((one.first_ms for one in self.redeploys if one.first_ms and one.result == "deployed"), default=None)


def as_json(report: Report) -> dict[str, Any]:
    """Return the report; the first ten keys are what others read."""
    books = report.books
    return {
        "promotions": sum(one.result == "deployed" for one in report.redeploys),
        "rollbacks": sum(one.result == "rolled_back" for one in report.redeploys),
        "produced": books.produced,
        "committed": books.committed,
        "missing": books.missing,
        "duplicates": books.duplicates,
        "longest_gap_ms": report.longest_gap_ms,
        "promote_to_first_ms": report.promote_to_first_ms,
        "bad_models_tried": len(report.refused),
        "bad_models_scored": sum(one.scored > 0 for one in report.refused),
        "invented": books.invented,
        "rejects_and_late": report.letters,
        "longest_unseen_ms": report.longest_unseen_ms,
        "versions_in_order": report.versions_in_order,
        "live_reader_agrees": report.live_agrees,
        "job_stayed_during_bad_models": report.job_stayed,
        "rate": report.settings.rate,
        "checkpoint_interval_ms": report.settings.checkpoint_interval_ms,
        "wall_s": round(report.wall_s, 1),
        "redeploys": [
            {"version": one.version, "result": one.result, "gap_ms": one.gap_ms, "first_ms": one.first_ms}
            | {"steps_ms": one.steps_ms}
            for one in report.redeploys
        ],
        "bad_models": [
            {"what": one.what, "version": one.version, "result": one.result, "reason": one.reason}
            | {"wanted": one.wanted, "scored": one.scored}
            for one in report.refused
        ],
        **report.more,
    }


def failures(report: Report) -> list[str]:
    """Return what must not be: the drill fails with any of these."""
    books, found = report.books, []
    counts = {"missing": books.missing, "duplicates": books.duplicates, "never sent": books.invented}
    found += [f"{count:,} predictions are {what}" for what, count in counts.items() if count]
    found += [f"{one.what}: scored {one.scored:,} events" for one in report.refused if one.scored]
    found += [
        f"{one.what}: ended as {one.result} [{one.reason}]; refused [{one.wanted}] is right"
        for one in report.refused
        if not one.is_as_wanted and not one.scored
    ]
    redeploys = [f"version {one.version}: {one.result}" for one in report.redeploys]
    if not report.versions_in_order:
        found.append(f"versions do not change once per redeploy; redeploys: {', '.join(redeploys)}")
    if not report.live_agrees:
        found.append("the live reader saw another number of predictions than the one that read all at the end")
    if not report.job_stayed:
        found.append("the job was stopped or restarted while bad models were promoted")
    wanted = (report.settings.promotions, report.settings.rollbacks)
    if (as_json(report)["promotions"], as_json(report)["rollbacks"]) != wanted:
        found.append(f"{wanted[0]} promotions and {wanted[1]} rollbacks were asked for; got {', '.join(redeploys)}")
    return found


def targets(report: Report) -> list[tuple[str, int | None, int]]:
    """Return what is only reported: name, milliseconds found, milliseconds allowed."""
    gap_max_ms = report.settings.checkpoint_interval_ms + GAP_SLACK_MS
    return [
        ("longest gap between two committed predictions, by the broker's clock", report.longest_gap_ms, gap_max_ms),
        ("longest time a live reader saw nothing new", report.longest_unseen_ms, gap_max_ms),
        ("from a promotion to the first prediction of its version", report.promote_to_first_ms, FIRST_MAX_MS),
    ]


def show(report: Report, console: Console) -> None:
    """Print the report."""
    books = report.books
    redeploys = Table("version", "result", "gap", "first answer", "steps", box=None, pad_edge=False)
    for one in report.redeploys:
        steps = ", ".join(f"{name} {ms / 1000:.1f}" for name, ms in one.steps_ms.items())
        first = "" if one.first_ms is None else f"{one.first_ms / 1000:.1f} s"
        redeploys.add_row(one.version, one.result, f"{one.gap_ms / 1000:.1f} s", first, f"{steps} s")
    console.print("\n[bold]Redeploys[/bold]")
    console.print(redeploys)
    console.print("\n[bold]Bad models[/bold]")
    bad = Table("what", "refused as", "scored", box=None, pad_edge=False)
    for model in report.refused:
        colour = "green" if model.is_as_wanted else "red"
        bad.add_row(model.what, f"[{colour}]{escape(model.reason or model.result)}[/]", f"{model.scored:,}")
    console.print(bad)
    console.print("\n[bold]Every event[/bold]")
    console.print(
        f"  {books.produced:,} sent, {books.committed:,} predictions committed; missing {books.missing:,}, duplicates "
        f"{books.duplicates:,}, never sent {books.invented:,}; rejects and late {report.letters:,}",
        highlight=False,
    )
    console.print("\n[bold]Targets[/bold]")
    for name, found, allowed in targets(report):
        is_met = found is not None and found <= allowed
        got = "none" if found is None else f"{found / 1000:.1f} s"
        mark = "[green]met[/green]    " if is_met else "[yellow]not met[/yellow]"
        console.print(f"  {mark} {name}: {got}, at most {allowed / 1000:g} s", highlight=False)
    wrong = failures(report)
    for sentence in wrong:
        console.print(f"[red]✗ {escape(sentence)}[/red]")
    if not wrong:
        console.print("[green]✓ every event answered once, by one version; no bad model scored[/green]")
