"""`replay`, `export` and `lookups` of the flights of 2013; load, call, print."""

import datetime as dt
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.history import write_history
from scripts.flights import events
from scripts.flights.lookups import write_lookups
from scripts.flights.poison import Ledger, poisoned
from scripts.flights.replay import ReplayError, StreamOrder, check_pace
from scripts.flights.replay import replay as replay_events
from scripts.flights.stream import Events, merge
from scripts.kafka.topics import Topic, create
from scripts.services import services
from udfs.core.errors import did_you_mean

app = typer.Typer(help="The flights of 2013 as event streams.", no_args_is_help=True, add_completion=False)

# In the order that events of the same time are sent.
STREAMS = {"weather": events.weather, "departures": events.departures, "arrivals": events.arrivals}
FLIGHTS = Path(__file__).parents[2] / "conf" / "flights"
_DAY = ["%Y-%m-%d"]


@app.command()
def replay(
    start: Annotated[dt.datetime, typer.Option("--from", formats=_DAY, help="First scheduled day.")],
    end: Annotated[dt.datetime, typer.Option("--to", formats=_DAY, help="Last scheduled day.")],
    streams: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(STREAMS),
    rate: Annotated[float | None, typer.Option(help="Events per second, evenly.")] = None,
    speed_up: Annotated[float | None, typer.Option(help="Event seconds per real second.")] = None,
    as_fast_as_possible: Annotated[bool, typer.Option("--as-fast-as-possible")] = False,
    stream_order: Annotated[StreamOrder, typer.Option(help="Weather in between, or before all else.")] = "event_time",
    poison: Annotated[bool, typer.Option("--poison", help="Put bad and late departures in.")] = False,
    seed: Annotated[int, typer.Option(help="Where the poison goes.")] = 1,
    bootstrap: Annotated[str | None, typer.Option(help="host:port", show_default="the local services")] = None,
    partitions: Annotated[int, typer.Option(help="Of topics that do not exist yet.")] = 4,
) -> None:
    """Send flights to Kafka; creates the topics that are missing."""
    console = Console()
    check_pace(speed_up, rate, as_fast_as_possible=as_fast_as_possible)
    address = bootstrap or services.endpoints().kafka
    together, ledger = _load(streams, start.date(), end.date(), seed if poison else None)
    create(address, [Topic(name, partitions) for name in sorted(set(together.topics))])
    report = replay_events(
        together,
        address,
        speed_up=speed_up,
        rate_eps=rate,
        as_fast_as_possible=as_fast_as_possible,
        stream_order=stream_order,
        console=console,
    )
    table = Table("topic", "acknowledged", box=None)
    for topic, count in sorted(report.acknowledged.items()):
        table.add_row(topic, f"{count:,}")
    console.print(table)
    console.print(f"{report.wall_s:.1f} s, {report.rate_eps:,.0f} events/s")
    if ledger is not None:
        console.print("poison: " + ", ".join(f"{name} {count}" for name, count in sorted(ledger.expected.items())))


@app.command()
def export(
    history: Annotated[Path, typer.Argument(help="Parquet file to write, such as build/flights/history.parquet.")],
    start: Annotated[dt.datetime, typer.Option("--from", formats=_DAY, help="First scheduled day.")],
    end: Annotated[dt.datetime, typer.Option("--to", formats=_DAY, help="Last scheduled day.")],
) -> None:
    """Write flights as a history of raw events, which `headrace models train` reads."""
    console = Console()
    together = events.merged(start.date(), end.date())
    write_history(history, together.topics, together.keys, together.values, together.times_ms)
    console.print(f"{history}  {len(together):,} events", highlight=False, soft_wrap=True)


@app.command()
def lookups(folder: Annotated[Path, typer.Option(help="Pipeline folder.")] = FLIGHTS) -> None:
    """Write planes.csv and airports.csv of the pipeline."""
    console = Console()
    for path, rows in write_lookups(folder).items():
        console.print(f"{path}  {rows:,} rows", highlight=False, soft_wrap=True)


def _load(streams: str, start: dt.date, end: dt.date, poison_seed: int | None) -> tuple[Events, Ledger | None]:
    wanted = [name.strip() for name in streams.split(",") if name.strip()]
    for name in wanted:
        if name not in STREAMS:
            msg = f"--streams: got {name!r}{did_you_mean(name, STREAMS)}"
            raise ReplayError(msg)
    if poison_seed is not None and "departures" not in wanted:
        msg = f"--poison goes into departures; got --streams {streams}; add departures"
        raise ReplayError(msg)
    loaded = {name: load(start, end) for name, load in STREAMS.items() if name in wanted}
    if poison_seed is None:
        return merge(*loaded.values()), None
    loaded["departures"], ledger = poisoned(loaded["departures"], poison_seed, now_ms=int(time.time() * 1000))
    return merge(*loaded.values()), ledger
