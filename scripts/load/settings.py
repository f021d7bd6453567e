"""What is to be made: how many payments of how many users, how much of it is fraud, and which faults are put in."""

from dataclasses import dataclass

from udfs.core.errors import HeadraceError

BLOCK = 65_536
"""Events that are drawn together. Whatever is planted lies within one block, so a block depends on nothing else."""


class LoadError(HeadraceError):
    """A load was asked for wrongly, or could not be written."""


@dataclass(frozen=True, slots=True)
class Load:
    """A stream of payments; the same settings give the same bytes, however they are cut into batches."""

    seed: int = 1
    users: int = 100_000
    merchants: int = 5_000
    #: exponent of the Zipf law by which users and merchants come: 0 is even, above 1 a few have most
    skew: float = 0.9
    #: event time of the first payment, epoch milliseconds: 2026-01-01
    start_ms: int = 1_767_225_600_000
    #: events per second of event time; how fast they are sent is another matter
    event_rate: float = 1_000.0
    #: of the events, those that belong to a planted pattern
    fraud_share: float = 0.01
    #: events come up to this much behind newer ones
    disorder_ms: int = 0
    #: of the events, copies of an earlier one, byte by byte
    duplicate_share: float = 0.0
    #: of the events, those that come `late_ms` and more behind an earlier one of their user
    late_share: float = 0.0
    late_ms: int = 3_600_000
    #: of the events, those that the contract refuses
    poison_share: float = 0.0
    #: a chargeback comes between half of this and this after its payment
    chargeback_delay_ms: int = 6 * 3_600_000

    def check(self) -> None:
        """Raise LoadError unless it can be made."""
        for name, value, most in (
            ("--users", self.users, 10_000_000),
            ("--merchants", self.merchants, 100_000),
        ):
            if not 1 <= value <= most:
                msg = f"{name}: got {value:,}; it goes from 1 to {most:,}, which is what the ids have digits for"
                raise LoadError(msg)
        for name, share in (
            ("--fraud-share", self.fraud_share),
            ("--duplicate-share", self.duplicate_share),
            ("--late-share", self.late_share),
            ("--poison-share", self.poison_share),
        ):
            if not 0 <= share <= 0.5:
                msg = f"{name}: got {share:g}; a share goes from 0 to 0.5; did you pass percent?"
                raise LoadError(msg)
        if not 0 <= self.skew <= 3:
            msg = f"--skew: got {self.skew:g}; it goes from 0, even, to 3; 0.9 is usual"
            raise LoadError(msg)
        if not 0 < self.event_rate <= 1_000_000:
            msg = f"--event-rate: got {self.event_rate:g} events per second of event time; it goes up to 1,000,000"
            raise LoadError(msg)
        if self.seed < 0 or self.disorder_ms < 0 or self.late_ms < 0 or self.chargeback_delay_ms < 0:
            msg = "--seed, --disorder-ms, --late-ms and --chargeback-delay-ms: none of them may be negative"
            raise LoadError(msg)
