"""Sizes of everything that is measured: those of a real run, and those of a smoke."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

_Count = Annotated[int, Parameter(validator=Number(gte=1))]
_Counts = Annotated[tuple[int, ...], Parameter(validator=Number(gte=1), consume_multiple=True)]
_Seconds = Annotated[float, Parameter(validator=Number(gt=0))]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Say how much of everything is measured."""

    rounds: _Count = 3
    """Each thing is measured once in a round, one after the other; figures are those of all rounds."""
    lines: Annotated[int, Parameter(validator=Number(gte=100))] = 1_000_000
    """Lines of the manifest, one in a hundred of them bad; tasks of the job whose results are read."""
    large_lines: Annotated[int, Parameter(validator=Number(gte=100))] = 10_000_000
    """Lines of the large manifest."""
    memory_lines: _Counts = (10_000, 100_000, 1_000_000, 10_000_000)
    """Lines of the manifests by which peak memory is measured."""
    chunk_counts: _Counts = (8, 32, 128, 512)
    """Numbers of chunks that a manifest is cut into."""
    disk_lines: Annotated[int, Parameter(validator=Number(gte=100))] = 1_000_000
    """Tasks of the job whose bytes on disk are measured."""
    label_studio_lines: Annotated[int, Parameter(validator=Number(gte=100, lte=250_000))] = 20_000
    """Lines that Label Studio imports and exports; more would take it minutes a round."""
    inference_tasks: Annotated[int, Parameter(validator=Number(gte=100))] = 1_000_000
    """Tasks, of three labels each, whose true options are inferred."""
    crowd_kit_tasks: Annotated[int, Parameter(validator=Number(gte=100))] | None = 30_000
    """Those that crowd-kit infers; more would take it minutes."""

    quality_jobs: _Count = 8
    """Simulated jobs of each crowd and method, whose mean accuracy is printed."""
    quality_tasks: _Count = 10_000
    """Tasks of each of them."""
    interval_jobs: _Count = 1_000
    """Simulated jobs of each crowd whose accuracy is estimated by gold."""
    interval_tasks: _Count = 4_000
    """Tasks of each of them, without gold."""

    restored_tasks: Annotated[int, Parameter(validator=Number(gte=100))] = 1_000_000
    """Tasks of the database that is backed up and restored."""

    year_days: Annotated[int, Parameter(validator=Number(gte=8))] = 365
    """Days for which jobs come, end, and are deleted."""
    jobs_a_day: _Count = 1000
    """Jobs that come and end each day."""
    year_job_lines: _Count = 20
    """Lines of each of them."""
    kept_days: _Count = 90
    """Days after their end when they are deleted."""
    probe_tasks: _Count = 2000
    """Tasks of the job in which claims are measured, now and then."""

    annotators: Annotated[int, Parameter(validator=Number(gte=1, lte=200))] = 8
    """Annotators who work at the same time, each in a closed loop."""
    seconds: _Seconds = 8.0
    """Seconds of each measurement of annotation."""
    warm_seconds: _Seconds = 2.0
    """Seconds before each measurement of annotation that warm connections, caches and plans."""
    batches: _Counts = (1, 10, 100)
    """Tasks a claim."""
    few_open_tasks: _Count = 10_000
    """Tasks that are pending or open in the smaller of the two jobs that claims are compared in."""
    open_tasks: _Count = 1_000_000
    """Those in the larger one."""
    early_tasks: _Count = 10_000
    """Tasks of each job whose labels are counted with stop_early, and without."""

    page_tasks: _Count = 200
    """Pictures that are labelled on the annotators' page in a browser."""
    thought_seconds: _Seconds = 1.0
    """Seconds for which each picture is looked at."""

    held_seconds: _Seconds = 600.0
    """Seconds for which a snapshot is held, and labels come in."""
    labels_per_second: _Seconds = 3000.0
    """Labels a second that annotators hand in meanwhile, at set times, however slow the answers are."""
    steady_annotators: Annotated[int, Parameter(validator=Number(gte=1, lte=200))] = 30
    """Annotators who hand them in."""
    steady_batch: Annotated[int, Parameter(validator=Number(gte=1, lte=100))] = 20
    """Tasks a claim of theirs."""

    start_jobs: _Count = 10
    """Jobs that are posted one by one to each worker in a round."""
    waiting_jobs: _Count = 500
    """Jobs of a customer who posts before another one."""
    jobs: _Count = 1000
    """Small jobs that are posted at once."""
    single_jobs: _Count = 10
    """Small jobs that are posted one by one."""
    settle_seconds: _Seconds = 5.0
    """Seconds until Prefect has written its last events."""
    idle_seconds: _Seconds = 600.0
    """Seconds of rest, after which the growth of Prefect's database is measured."""


SMOKE = Sizes(
    rounds=1,
    lines=1_000,
    large_lines=2_000,
    memory_lines=(1_000,),
    chunk_counts=(1,),
    disk_lines=500,
    label_studio_lines=100,
    inference_tasks=100,
    crowd_kit_tasks=None,
    quality_jobs=1,
    quality_tasks=50,
    interval_jobs=2,
    interval_tasks=100,
    restored_tasks=6_000,
    year_days=8,
    jobs_a_day=3,
    year_job_lines=5,
    kept_days=3,
    probe_tasks=20,
    annotators=2,
    seconds=0.5,
    warm_seconds=0.2,
    batches=(10,),
    few_open_tasks=1_500,
    open_tasks=1_500,
    early_tasks=100,
    page_tasks=3,
    thought_seconds=0.1,
    held_seconds=1.0,
    labels_per_second=200.0,
    steady_annotators=2,
    steady_batch=5,
    start_jobs=1,
    waiting_jobs=2,
    jobs=2,
    single_jobs=1,
    settle_seconds=0.1,
    idle_seconds=0.1,
)
"""The least of everything: figures of such a run mean nothing, but that it runs."""
