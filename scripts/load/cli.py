"""`send`, `write` and `show`: load, call, print."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.history import SCHEMA, write_pieces
from scripts.kafka.topics import Topic, create
from scripts.load.faults import KINDS
from scripts.load.payments import PATTERNS
from scripts.load.send import SEND_BATCH, Report, Sender, send, send_paced
from scripts.load.settings import Load, LoadError
from scripts.load.stream import batches, blocks, chargebacks, sample
from scripts.services import services

PAYMENTS, CHARGEBACKS = "payments.transactions", "payments.chargebacks"
EPILOG = """
Try:

python -m scripts.load show  [dim]some payments, and what is planted[/dim]

python -m scripts.load write build/payments/history.parquet --events 400000 --event-rate 1.5  [dim]three days, to
train on[/dim]

python -m scripts.load send --events 1000000  [dim]as fast as the local Kafka takes them[/dim]

python -m scripts.load send --events 120000 --rate 2000 --poison-share 0.01 --late-share 0.01  [dim]a minute, with
faults[/dim]
"""
app = typer.Typer(
    help="Payments made up by a seed: Zipf users and merchants, planted fraud, disorder, duplicates, late ones, poison."
    " The same seed gives the same bytes, however they are sent.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)

Events = Annotated[int, typer.Option(help="How many payments.", min=1)]
Seed = Annotated[int, typer.Option(help="Decides every byte.")]
Users = Annotated[int, typer.Option(help="How many users there are, up to 10 million.")]
Merchants = Annotated[int, typer.Option(help="How many merchants there are, up to 100,000.")]
Skew = Annotated[float, typer.Option(help="Zipf exponent: 0 is even, above 1 a few users have most payments.")]
EventRate = Annotated[float, typer.Option(help="Payments per second of EVENT time: how much a window holds.")]
Fraud = Annotated[float, typer.Option(help="Share of payments in bursts, takeovers and merchant rings.")]
Disorder = Annotated[int, typer.Option(help="Payments come up to this much behind newer ones.")]
Duplicates = Annotated[float, typer.Option(help="Share of copies, byte by byte, of an earlier payment.")]
Late = Annotated[float, typer.Option(help="Share that comes --late-ms and more behind an earlier one of its user.")]
LateMs = Annotated[int, typer.Option(help="What is late: the pipeline's allowed_lateness.")]
Poison = Annotated[float, typer.Option(help="Share that the contract refuses, for nine reasons in turn.")]
Delay = Annotated[int, typer.Option(help="A chargeback comes between half of this and this after its payment.")]
Bootstrap = Annotated[str | None, typer.Option(help="host:port", show_default="the local services")]
DEFAULT = Load()


@app.command()
def show(
    events: Events = 100_000,
    seed: Seed = DEFAULT.seed,
    users: Users = DEFAULT.users,
    merchants: Merchants = DEFAULT.merchants,
    skew: Skew = DEFAULT.skew,
    event_rate: EventRate = DEFAULT.event_rate,
    fraud_share: Fraud = DEFAULT.fraud_share,
    disorder_ms: Disorder = DEFAULT.disorder_ms,
    duplicate_share: Duplicates = DEFAULT.duplicate_share,
    late_share: Late = DEFAULT.late_share,
    late_ms: LateMs = DEFAULT.late_ms,
    poison_share: Poison = DEFAULT.poison_share,
    chargeback_delay_ms: Delay = DEFAULT.chargeback_delay_ms,
) -> None:
    """Print some payments, and count what is in the stream; nothing is sent."""
    load = Load(**_options(locals()))
    console = Console()
    found = sample(load, events)
    for place in (0, *np.flatnonzero(found.patterns)[:3], *np.flatnonzero(found.kinds)[:3]):
        what = PATTERNS.get(int(found.patterns[place]), "") or KINDS[int(found.kinds[place])]
        console.print(f"{what:<10} {found.values[place]!r}", highlight=False, soft_wrap=True, markup=False)
    lengths = [len(value) for value in found.values if value]
    table = Table("", "", box=None, show_header=False)
    table.add_row("bytes of an event", f"{np.mean(lengths):.0f} on average, {np.median(lengths):.0f} usually")
    table.add_row("users that pay", f"{len(set(found.keys)):,}")
    table.add_row("event time", f"{(found.times_ms.max() - found.times_ms.min()) / 1000:,.0f} s")
    for name, counted in (("fraud", Counter(found.patterns.tolist())), ("faults", Counter(found.kinds.tolist()))):
        names = PATTERNS if name == "fraud" else KINDS
        table.add_row(name, ", ".join(f"{names[kind]} {counted[kind]:,}" for kind in names if kind and counted[kind]))
    console.print(table)


@app.command()
def write(
    history: Annotated[Path, typer.Argument(help="Parquet file, such as build/payments/history.parquet.")],
    events: Events = 100_000,
    seed: Seed = DEFAULT.seed,
    users: Users = DEFAULT.users,
    merchants: Merchants = DEFAULT.merchants,
    skew: Skew = DEFAULT.skew,
    event_rate: EventRate = DEFAULT.event_rate,
    fraud_share: Fraud = DEFAULT.fraud_share,
    disorder_ms: Disorder = DEFAULT.disorder_ms,
    duplicate_share: Duplicates = DEFAULT.duplicate_share,
    late_share: Late = DEFAULT.late_share,
    late_ms: LateMs = DEFAULT.late_ms,
    poison_share: Poison = DEFAULT.poison_share,
    chargeback_delay_ms: Delay = DEFAULT.chargeback_delay_ms,
) -> None:
    """Write payments and their chargebacks as a history, which `headrace dataset` and `headrace backfill` read."""
    write_history_of(Load(**_options(locals())), events, history)
    Console().print(f"{history}  {events:,} payments", highlight=False, soft_wrap=True)


@app.command("send")
def send_(
    events: Events = 100_000,
    rate: Annotated[
        float | None, typer.Option(help="Payments per second, in an open loop.", show_default="as fast as it goes")
    ] = None,
    topic: Annotated[str, typer.Option(help="Topic of the payments; made if it is missing.")] = PAYMENTS,
    chargeback_topic: Annotated[str, typer.Option(help="Topic of the chargebacks, sent last; '' sends none.")] = "",
    partitions: Annotated[int, typer.Option(help="Of topics that do not exist yet.")] = 1,
    linger_ms: Annotated[float, typer.Option(help="How long the sender waits for more records.")] = 20.0,
    batch: Annotated[int, typer.Option(help="Records that are handed over at once; changes no byte.")] = SEND_BATCH,
    bootstrap: Bootstrap = None,
    seed: Seed = DEFAULT.seed,
    users: Users = DEFAULT.users,
    merchants: Merchants = DEFAULT.merchants,
    skew: Skew = DEFAULT.skew,
    event_rate: EventRate = DEFAULT.event_rate,
    fraud_share: Fraud = DEFAULT.fraud_share,
    disorder_ms: Disorder = DEFAULT.disorder_ms,
    duplicate_share: Duplicates = DEFAULT.duplicate_share,
    late_share: Late = DEFAULT.late_share,
    late_ms: LateMs = DEFAULT.late_ms,
    poison_share: Poison = DEFAULT.poison_share,
    chargeback_delay_ms: Delay = DEFAULT.chargeback_delay_ms,
) -> None:
    """Send payments to Kafka, and their chargebacks behind them."""
    if rate is not None and rate <= 0:
        msg = f"--rate: got {rate:g}; it must be above 0; leave it out for as fast as it goes"
        raise LoadError(msg)
    load, address = Load(**_options(locals())), bootstrap or services.endpoints().kafka
    console = Console()
    create(address, [Topic(name, partitions) for name in (topic, chargeback_topic) if name])
    columns = (TextColumn("send"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=events)
        done = send_to(load, events, Sender(address, topic, linger_ms), rate, batch, lambda n: progress.advance(bar, n))
    console.print(f"{topic}: {done.sent:,} payments in {done.wall_s:.1f} s, {done.rate:,.0f}/s", highlight=False)
    if chargeback_topic:
        sender = Sender(address, chargeback_topic)
        done = send(sender, ((keys, list(values)) for keys, values, _ in chargebacks(load, events)))
        console.print(f"{chargeback_topic}: {done.sent:,} chargebacks", highlight=False)


def send_to(
    load: Load,
    events: int,
    sender: Sender,
    rate: float | None = None,
    batch: int = SEND_BATCH,
    on_sent: Any = lambda _count: None,
) -> Report:
    """Send the first events of a load: at a rate, or as fast as it goes."""
    given = ((part.keys, part.values) for part in batches(load, events, batch))
    return send(sender, given, on_sent) if rate is None else send_paced(sender, given, rate, on_sent)


def write_history_of(load: Load, events: int, path: Path) -> None:
    """Write the first events of a load, and their chargebacks behind them, as a history."""

    def pieces() -> Any:
        at = 0
        for part in blocks(load, events):
            yield _table(PAYMENTS, part.keys, part.values, part.times_ms, at)
            at += len(part)
        at = 0
        for keys, values, known_ms in chargebacks(load, events):
            yield _table(CHARGEBACKS, keys, list(values), known_ms, at)
            at += len(keys)

    write_pieces(path, pieces())


def _table(topic: str, keys: list[bytes], values: list[bytes | None], times_ms: Any, first: int) -> pa.Table:
    count = len(keys)
    columns = [pa.array([topic] * count, pa.string()), pa.array(keys, pa.binary()), pa.array(values, pa.binary())]
    columns += [pa.array(np.zeros(count, np.int32)), pa.array(np.arange(first, first + count)), pa.array(times_ms)]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Return of a command's options those of the load."""
    return {name: given[name] for name in Load.__slots__ if name in given}


def as_json(load: Load) -> str:
    """Return the settings as one line, for reports."""
    return json.dumps({name: getattr(load, name) for name in Load.__slots__})
