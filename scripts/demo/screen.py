"""The report on a terminal: one screen of numbers, then what a prediction and an online row look like."""

from typing import Any

import msgspec
from rich.columns import Columns
from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from models.evaluation import Evaluation
from scripts.demo.report import Report, failures

_BAR_CHARS = 20


def show(report: Report, console: Console) -> None:
    """Print the report."""
    console.print()
    console.print(
        Columns([_panel("Every event, once", _accounting(report)), _panel("Rejects by reason", _rejects(report))])
    )
    console.print(Columns([_panel("Speed and exactness", _speed(report)), _panel("Quality", _quality(report))]))
    console.print(Panel(_prediction(report.sample), title="One prediction, as it stands in Kafka", title_align="left"))
    console.print(Panel(_row(report), title=f"Online store: {escape(report.row_key)}", title_align="left"))
    wrong = failures(report)
    for sentence in wrong:
        console.print(f"[red]✗ {escape(sentence)}[/red]")
    for example in (*report.checks.accounting.examples, *report.checks.parity.examples) if wrong else ():
        console.print(f"  {escape(example)}", soft_wrap=True)
    if not wrong:
        console.print(
            "[green]✓ every event has exactly one outcome, the right one; features and scores are bit-equal[/green]"
        )


def _panel(title: str, content: Table | Group) -> Panel:
    return Panel(content, title=title, title_align="left", expand=False)


def _pairs(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, text in rows:
        table.add_row(name, text)
    return table


def _accounting(report: Report) -> Table:
    books = report.checks.accounting
    return _pairs(
        [
            ("events in (poison included)", f"{books.events:,}"),
            ("predictions", f"{books.predictions:,}"),
            ("rejects", f"{books.rejects:,}"),
            ("late", f"{books.late:,}"),
            ("duplicates", _good_if_zero(books.duplicates)),
            ("missing", _good_if_zero(books.missing)),
            ("judged otherwise than expected", _good_if_zero(books.misjudged)),
            ("letters with other bytes than sent", _good_if_zero(books.altered)),
            ("weather records joined by event time", f"{report.weather:,}"),
            ("labels that arrived later", f"{report.labels:,}"),
        ]
    )


def _rejects(report: Report) -> Table:
    table = Table("reason", "expected", "found", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for reason, (expected, found) in report.checks.accounting.rejects_by_reason.items():
        table.add_row(reason, f"{expected:,}", f"{found:,}")
    return table


def _speed(report: Report) -> Table:
    timing, parity = report.timing, report.checks.parity
    return _pairs(
        [
            ("throughput, first append in to last append out", f"{timing.throughput_eps:,.0f} events/s"),
            ("  from when the whole backlog could be read", f"{timing.catch_up_eps:,.0f} events/s"),
            ("  (start of Python operators included), events", f"{timing.throughput_rows:,}"),
            (f"latency at {report.rate_eps:g}/s, append to append: p50", f"{timing.latency_ms[50]:.0f} ms"),
            ("  p99", f"{timing.latency_ms[99]:.0f} ms"),
            ("  p99.9", f"{timing.latency_ms[99.9]:.0f} ms"),
            (f"{report.cores} cores, load average at the end", f"{report.load_average_1min:.1f}"),
            ("predictions computed again offline", f"{parity.rows:,}"),
            ("  with any feature not bit-equal", _good_if_zero(parity.mismatches)),
            ("  with a score not bit-equal", _good_if_zero(report.checks.score_mismatches)),
        ]
    )


def _quality(report: Report) -> Group:
    model, baseline = report.quality.model, report.quality.baseline
    table = Table("", "AUC", "log loss", "calibration error", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in (("model", model), ("without windowed features", baseline)):
        table.add_row(name, f"{one.auc:.4f}", f"{one.log_loss:.4f}", f"{one.calibration_error:.4f}")
    return Group(table, "", _calibration(model))


def _calibration(found: Evaluation) -> Table:
    """Draw observed rates as bars, one line per tenth of the score; `|` stands where the mean score is."""
    table = Table("score", "flights", "late", "rate of late arrivals, | mean score", box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    for one in found.calibration:
        bar = list("█" * round(one.observed_rate * _BAR_CHARS) + " " * _BAR_CHARS)[: _BAR_CHARS + 1]
        bar[round(one.mean_score * _BAR_CHARS)] = "|"
        table.add_row(f"{one.low:.1f}-{one.high:.1f}", f"{one.rows:,}", f"{one.observed_rate:.0%}", "".join(bar))
    return table


def _prediction(value: bytes) -> str:
    """Return JSON with one line per member, which says all in few lines."""
    members: dict[str, Any] = msgspec.json.decode(value)
    lines = [f'  "{name}": {_spaced(member)}' for name, member in members.items()]
    return escape("{\n" + ",\n".join(lines) + "\n}")


def _spaced(member: object) -> str:
    text = msgspec.json.encode(member).decode()
    return text.replace('","', '", "').replace(',"', ', "').replace('":', '": ')


def _row(report: Report) -> str:
    return escape("  ".join(f"{name}={value or '(null)'}" for name, value in report.row.items()))


def _good_if_zero(count: int) -> str:
    return f"[{'red' if count else 'green'}]{count:,}[/]"
