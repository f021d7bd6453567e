"""The judge of fault runs finds every way in which a run could be wrong, and nothing in a run that is right."""

from dataclasses import replace

from scripts.chaos.invariant import Entry, compare_readers, fingerprints, judge
from scripts.chaos.recovery import recovered_after_s
from scripts.chaos.traffic import conflicting, edges_of_lateness, hostile, load_of, payments, scattered
from scripts.demo.accounting import LATE, PREDICTION, Sent
from scripts.demo.outputs import Letter, Prediction
from scripts.kafka.consume import Record
from udfs.core.offline.parity import Origin

LATE_TOPIC = "l"


def at(offset: int) -> Origin:
    return Origin("t", 0, offset)


def predicted(offset: int) -> Prediction:
    return Prediction(at(offset), 0, 0, f"e{offset}", 0.5, {}, {"user": (0, offset)}, b"{}")


ENTRIES = [Entry(Sent(at(offset), (PREDICTION,), b"k", b"{}"), f"e{offset}") for offset in range(3)]
ENTRIES += [Entry(Sent(at(3), ("malformed",), b"k", b"{")), Entry(Sent(at(4), (LATE,), b"k", b"{}"))]
PREDICTIONS = [predicted(offset) for offset in range(3)]
LETTERS = [
    Letter("d", at(3), "ingest", "malformed", {}, b"k", b"{"),
    Letter(LATE_TOPIC, at(4), "user", "late", {}, b"k", b"{}"),
]


def broken(predictions: list[Prediction], letters: list[Letter] = LETTERS) -> str:
    return "\n".join(judge(ENTRIES, predictions, letters, LATE_TOPIC).broken)


def test_a_right_run_breaks_no_clause() -> None:
    assert broken(PREDICTIONS) == ""


def test_a_lost_event_is_found() -> None:
    assert "clause 2: 1 records without an outcome" in broken(PREDICTIONS[1:])
    assert "clause 2: 1 records without an outcome" in broken(PREDICTIONS, LETTERS[1:])


def test_a_doubled_event_is_found() -> None:
    assert "clause 1: 1 outcomes beyond the first" in broken([*PREDICTIONS, PREDICTIONS[2]])


def test_an_event_that_is_scored_and_late_is_found() -> None:
    assert "clause 1: 1 outcomes beyond the first" in broken([*PREDICTIONS, predicted(4)])


def test_an_invented_event_is_found() -> None:
    assert "clause 2: 1 outcomes of records that were never sent" in broken([*PREDICTIONS, predicted(9)])


def test_a_prediction_that_names_another_event_is_found() -> None:
    found = broken([PREDICTIONS[0], replace(PREDICTIONS[1], event_id="e9"), PREDICTIONS[2]])
    assert "clause 2: 1 predictions name another event than that of their origin, such as 'e9'" in found


def test_a_letter_with_other_bytes_is_found() -> None:
    found = broken(PREDICTIONS, [replace(LETTERS[0], value=b"["), LETTERS[1]])
    assert "clause 2: 1 letters whose bytes differ" in found


def test_predictions_out_of_the_order_of_their_key_are_found() -> None:
    assert "clause 4: 1 predictions are out of the order" in broken([PREDICTIONS[1], PREDICTIONS[0], PREDICTIONS[2]])


def test_readers_that_saw_different_records_are_told_apart() -> None:
    records = [Record("p", 0, offset, 0, b"k", b"v", ()) for offset in range(3)]
    final = fingerprints(records)
    assert compare_readers(final, final) == []
    assert "1 records it never saw" in compare_readers(fingerprints(records[1:]), final)[0]
    assert "are gone" in compare_readers(final, fingerprints(records[1:]))[0]
    changed = fingerprints([replace(records[0], value=b"w"), *records[1:]])
    assert "1 records have changed" in compare_readers(changed, final)[0]


def test_traffic_is_the_same_for_the_same_seed_and_not_for_another() -> None:
    def made(seed: int) -> list[object]:
        load = load_of(seed, duplicate_share=0.05, late_share=0.01, poison_share=0.01)
        groups = edges_of_lateness(load.start_ms, 2)
        return list(scattered(hostile(conflicting(payments(load, 2_000)), seed, 0.01), groups, seed))

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_recovery_is_told_only_behind_the_gap_that_the_fault_made() -> None:
    steady = [(second / 10, 10 * second) for second in range(60)]
    assert recovered_after_s(steady, 2.0, 100.0) is None
    stalled = [*steady[:20], *((second / 10, 200) for second in range(20, 60))]
    assert recovered_after_s(stalled, 2.0, 100.0) is None
    after = [*stalled, *((6.0 + second / 10, 200 + 20 * second) for second in range(20))]
    assert recovered_after_s(after, 2.0, 100.0) is not None
