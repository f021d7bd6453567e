"""The demo as the list of its steps: services, model, job, two months of flights, checks, report."""

import json
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console

from flink_jobs.launch import topics_of
from flink_jobs.rest import FlinkRest
from scripts.demo import ground
from scripts.demo.check import check
from scripts.demo.collect import Collector
from scripts.demo.job import DemoJob, planned
from scripts.demo.model import champion
from scripts.demo.outputs import Prediction
from scripts.demo.quality import judge
from scripts.demo.report import Report, as_json
from scripts.demo.send import send_all
from scripts.demo.settings import PIPELINE, DemoError, Settings
from scripts.demo.steps import Steps
from scripts.demo.timing import measure
from scripts.demo.traffic import traffic
from scripts.demo.undo import Undo
from scripts.kafka.consume import read_all
from scripts.services import services
from scripts.services.endpoints import Endpoints
from scripts.services.home import home_at
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.scorer import Scorer

# Longer than the checkpoint interval of conf/local.yaml: what the last transaction holds is visible by then.
QUIET_S = 6.0
REPORT_FILE = "report.json"
SHOWN_AIRPORT = "JFK"


def demo(settings: Settings, console: Console) -> Report:
    """Run the demo; the report is also written to `report.json` in the folder of the settings.

    When it is interrupted, and at the end if the settings say so, the job is cancelled and the services that were not
    up before are stopped.

    Raises
    ------
    HeadraceError : a step cannot be done; everything is left up to be looked at.
    """
    settings.check()
    undo = Undo(console)
    try:
        report = _run(settings, Steps(console), undo)
    except BaseException as error:
        if settings.stop_services or isinstance(error, KeyboardInterrupt):
            undo()
        raise
    if settings.stop_services:
        undo()
    return report


def _run(settings: Settings, steps: Steps, undo: Undo) -> Report:
    started_s = time.monotonic()
    pipeline = load_pipeline(PIPELINE)
    label, store = pipeline.label, pipeline.sinks.online_store
    if label is None or store is None:
        msg = f"{PIPELINE}: the demo needs label and sinks.online_store; they are gone from the pipeline"
        raise DemoError(msg)

    steps.title("Services")
    undo.remember_services()
    places = services.up(console=steps.console)

    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as scratch:
        steps.title("Model")
        model, baseline = champion(settings, pipeline, places.mlflow, steps, Path(scratch))

        steps.title("Job")
        job = DemoJob(home_at(), FlinkRest(places.flink), f"headrace-{pipeline.name}")
        _renew(pipeline, places, job, steps)
        undo.job = job
        line = planned()
        steps.console.print(f"  $ {line.line}", style="dim", highlight=False, markup=False, soft_wrap=True)
        with steps.step("submit the job and wait until all of its tasks run"):
            job_id = job.submit(line)

        steps.title("Flights")
        with steps.step("load the flights and put poison among them"):
            flights = traffic(settings, now_ms=int(time.time() * 1000))
        with Collector(places.kafka, pipeline.sinks, job.rest, job_id, settings.stall_timeout_s) as collected:
            visible_ms = send_all(settings, places.kafka, flights, collected, steps.console)
            steps.title("Checks")
            with steps.step("wait one more checkpoint: nothing may come twice"):
                collected.settle(QUIET_S)

        with steps.step("account for every event; compute all features and scores again, offline"):
            checks = check(places.kafka, pipeline, PIPELINE, flights.sent, collected, Scorer.load(model.folder))
        with steps.step("compare the scores with the delays that came true"):
            truth = [record.value for record in read_all(places.kafka, label.topic)]
            quality = judge(collected.predictions, truth, label, Scorer.load(baseline.folder))

    row_key = f"{store.prefix}:origin:{{{SHOWN_AIRPORT}}}"
    report = Report(
        checks,
        measure(collected.predictions, visible_ms, flights.sent[len(flights.backlog)].origin.offset),
        quality,
        weather=len(flights.weather),
        labels=len(truth),
        rate_eps=settings.rate_eps,
        model=f"{model.contract.name} version {model.contract.version}",
        sample=_sample(collected.predictions),
        row_key=row_key,
        row=ground.row(places.redis, row_key),
        pages={"Flink": job.rest.page(job_id), "MLflow": places.mlflow},
        submitted=line.line,
        cores=os.cpu_count() or 1,
        load_average_1min=os.getloadavg()[0],
        wall_s=time.monotonic() - started_s,
        steps_s=dict(steps.done),
    )
    (settings.folder / REPORT_FILE).write_text(json.dumps(as_json(report), indent=2) + "\n", encoding="utf-8")
    return report


def _renew(pipeline: Pipeline, places: Endpoints, job: DemoJob, steps: Steps) -> None:
    """Leave nothing of an earlier run where this one will count."""
    with steps.step("look for the job of an earlier demo") as note:
        earlier = job.cancel_earlier()
        note(f"cancelled job {earlier} of an earlier demo" if earlier else "no job of an earlier demo runs")
    with steps.step("make topics anew"):
        ground.renew_topics(places.kafka, topics_of(pipeline))
    if pipeline.sinks.online_store is not None:
        ground.clear_rows(places.redis, pipeline.sinks.online_store.prefix)


def _sample(predictions: list[Prediction]) -> bytes:
    """Return the last prediction of those with the fewest nulls, which show most."""
    return max(predictions, key=lambda one: (-list(one.features.values()).count(None), one.origin.offset)).value
