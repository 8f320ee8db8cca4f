"""Metrics that the database and Prefect keep for all processes: each process tells the same."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from blocks.domain.model import DeliveryStatus, JobStatus, LineCode
from blocks.store import counts, passes
from blocks.store.counts import CHUNKS_MAX, JOBS_MAX, STREAMS_MAX, OpenWork, Queue, StreamTotals
from blocks.store.database import Database


def tell_up(kept: Sequence[Metric] | None, has_prefect: bool) -> Iterator[Metric]:
    """Return whether the database and Prefect answer; `kept` is None where the database does not."""
    database = GaugeMetricFamily("refinery_database_up", "Whether the database answers.")
    database.add_metric([], float(kept is not None))
    yield database
    prefect = GaugeMetricFamily("refinery_prefect_up", "Whether Prefect answers.")
    prefect.add_metric([], float(has_prefect))
    yield prefect


def tell_workers(online: Mapping[str, int]) -> Metric:
    """Return the workers that are online, by their work pool."""
    family = GaugeMetricFamily(
        "refinery_workers_online",
        "Workers that Prefect takes to be alive, in each of its first 20 work pools.",
        labels=["pool"],
    )
    for pool, workers in online.items():
        family.add_metric([pool], workers)
    return family


def read_kept(database: Database) -> Sequence[Metric]:
    """Return the figures that the database keeps, as metrics.

    Raises:
        DatabaseUnavailable: it does not answer.
    """
    with database.transaction() as tx:
        totals, queues = counts.read_totals(tx), counts.read_queues(tx)
        streams, work = counts.read_streams(tx), counts.read_open_work(tx)
        ended, size = passes.read(tx), counts.read_database_bytes(tx)
    return [
        *_totals(totals),
        *_queues(queues),
        *_open_work(work),
        *_streams(streams, totals),
        *_passes(ended),
        _database_bytes(size),
    ]


def _totals(totals: Mapping[tuple[str, str], float]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("refinery_jobs", "Jobs by their state.", labels=["status"])
    for status in JobStatus:
        jobs.add_metric([status], totals.get(("jobs", status), 0))
    yield jobs
    lines = CounterMetricFamily("refinery_lines", "Lines of manifests that were recorded.")
    lines.add_metric([], totals.get(("lines", ""), 0))
    yield lines
    bad = CounterMetricFamily("refinery_bad_lines", "Those of them that are bad.", labels=["code"])
    deliveries = CounterMetricFamily(
        "refinery_deliveries", "Deliveries by how they ended, each try of one.", labels=["outcome"]
    )
    for outcome in (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED):
        deliveries.add_metric([outcome], totals.get(("deliveries", outcome), 0))
    # A code that an older version has counted, and this one does not know, is told as well.
    codes = {label for name, label in totals if name == "bad_lines"}
    for code in sorted(codes | {*LineCode}):
        bad.add_metric([code], totals.get(("bad_lines", code), 0))
    yield bad
    yield deliveries
    yield _histogram(
        "refinery_trigger_seconds",
        "Time from the POST of a job to the first line of its flow.",
        {label: total for (name, label), total in totals.items() if name == "start_s"},
        totals.get(("start_s_sum", ""), 0),
    )


def _histogram(
    name: str, documentation: str, within: Mapping[str, float], total: float
) -> HistogramMetricFamily:
    """Return a histogram; `within` counts for each bound only what no lower bound has counted."""
    buckets: list[tuple[str, float]] = []
    so_far = 0.0
    for bound in sorted(within, key=float):
        so_far += within.get(bound, 0)
        buckets.append((bound, so_far))
    family = HistogramMetricFamily(name, documentation)
    family.add_metric([], buckets, total)
    return family


def _queues(queues: Iterable[Queue]) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "refinery_queue_depth", "What waits, counted up to 100,000.", labels=["queue"]
    )
    oldest = GaugeMetricFamily(
        "refinery_queue_oldest_seconds", "How long the first of it has waited.", labels=["queue"]
    )
    for queue in queues:
        depth.add_metric([queue.name], queue.depth)
        oldest.add_metric([queue.name], max(queue.oldest_s or 0, 0))
    yield depth
    yield oldest


def _open_work(work: OpenWork) -> Iterator[Metric]:
    oldest = GaugeMetricFamily(
        "refinery_oldest_job_seconds",
        "How long the job that is `open`, `unread` or `undelivered` longest has been so.",
        labels=["stage"],
    )
    for stage, age_s in work.oldest_s.items():
        oldest.add_metric([stage], max(age_s or 0, 0))
    yield oldest
    tasks = GaugeMetricFamily(
        "refinery_open_tasks",
        "Tasks that have not ended, counted over up to "
        f"{JOBS_MAX:,} jobs and {CHUNKS_MAX:,} chunks of theirs, the most urgent first.",
    )
    tasks.add_metric([], work.tasks)
    yield tasks


def _streams(
    streams: Iterable[StreamTotals], totals: Mapping[tuple[str, str], float]
) -> Iterator[Metric]:
    labels = ["customer_id", "stream"]
    found = CounterMetricFamily(
        "refinery_stream_manifests",
        f"Manifests that became jobs, of each of the first {STREAMS_MAX} streams.",
        labels=labels,
    )
    failures = CounterMetricFamily(
        "refinery_stream_failures",
        "Jobs of theirs that failed or could not be delivered, each try of one.",
        labels=labels,
    )
    latest = GaugeMetricFamily(
        "refinery_stream_latest_manifest_timestamp_seconds",
        "When the stream has found a manifest last; until then, when it began.",
        labels=labels,
    )
    for each in streams:
        values = [each.customer_id, each.stream]
        found.add_metric(values, totals.get(("stream_manifests", each.label), 0))
        failures.add_metric(values, totals.get(("stream_failures", each.label), 0))
        latest.add_metric(values, each.latest_at)
    yield from (found, failures, latest)


def _passes(ended: Mapping[str, float]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "refinery_last_pass_timestamp_seconds",
        "When `housekeeping`, and a pass of `reconcile` that Prefect answered, have ended last.",
        labels=["name"],
    )
    for name, at in ended.items():
        family.add_metric([name], at)
    yield family


def _database_bytes(size: int) -> Metric:
    family = GaugeMetricFamily(
        "refinery_database_bytes", "Size of the database on the disk, without its WAL."
    )
    family.add_metric([], size)
    return family
