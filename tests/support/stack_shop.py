"""The database of the running stack, looked at from inside."""

import secrets
from dataclasses import dataclass
from typing import Any, Protocol

from blocks.domain.ids import task_id
from blocks.settings import Settings
from blocks.store import customers
from blocks.store.database import Database
from tests.support.record_checks import Ballots
from tests.support.store_shop import Shop
from tests.support.task_rows import list_tasks


@dataclass(frozen=True)
class RuledJob:
    """A job, or what inline tasks hang on: how its tasks are decided."""

    job_no: int
    job_id: str
    options: list[str]
    consensus_threshold: int
    stop_early: bool


class Running(Protocol):
    """A stack, in this process or another."""

    @property
    def database_url(self) -> str: ...
    @property
    def encryption_key(self) -> str: ...


class StackShop(Shop):
    """The shop that a stack's API serves."""

    def __init__(self, stack: Running, database: Database) -> None:
        settings = Settings(database_url=stack.database_url, encryption_key=stack.encryption_key)
        super().__init__(database, stack.database_url, settings.vault())

    def hire(self, count: int) -> list[tuple[int, str]]:
        """The numbers and keys of so many new annotators."""
        made: list[tuple[str, str]] = [
            self.do(customers.add_annotator_key, f"restless {secrets.token_hex(4)}")
            for _ in range(count)
        ]
        query = "select annotator_no from annotators where annotator_id = %s"
        return [(self.value(query, annotator_id), key) for annotator_id, key in made]

    def rules(self, job_ids: list[str]) -> dict[str, RuledJob]:
        """The jobs by their ids."""
        query = """
            select job_no, job_id, options, consensus_threshold, stop_early
            from jobs where job_id = any (%s)
        """
        return {row["job_id"]: RuledJob(**row) for row in self.run(query, job_ids)}

    def busy(self) -> int:
        """How many others are in a transaction."""
        query = """
            select count(*) from pg_stat_activity
            where datname = current_database() and backend_type = 'client backend'
              and pid <> pg_backend_pid() and state <> 'idle'
        """
        return int(self.value(query))

    def jobs_of_tasks(self, job_ids: list[str]) -> dict[str, RuledJob]:
        """The job of each task, in the order of the manifests."""
        jobs = self.rules(job_ids)
        rows = list_tasks(self.run, "j.job_id = any (%s)", job_ids)
        return {
            task_id(row["job_id"], row["task_key"], row["task_no"]): jobs[row["job_id"]]
            for row in rows
        }

    def open_tasks(self, job_ids: list[str]) -> list[dict[str, Any]]:
        """The first few that have not ended, with what they wait for."""
        query = """
            select j.job_id, t.task_no, y.votes, y.places, (
                select json_agg(l) from leases l
                where l.job_no = t.job_no and t.task_no = any (l.task_nos)
            ) as leases, (
                select json_agg(v) from vacancies v
                where (v.job_no, v.task_no) = (t.job_no, t.task_no)
            ) as vacancies
            from chunks c join jobs j using (job_no)
            cross join lateral (
                select c.job_no, task_no(c.chunk_no, n) as task_no from generate_series(0, c.tasks - 1) n
            ) t
            left join tallies y on (y.job_no, y.task_no) = (t.job_no, t.task_no)
            where j.job_id = any (%s) and y.outcome is null limit 5
        """
        return self.run(query, job_ids)

    def ballots(self, job_ids: list[str]) -> Ballots:
        """The labels of each task, in the order in which they were counted."""
        query = """
            select j.job_id, j.task_key, l.task_no, l.annotator_no, j.options[l.option] as option
            from labels l join jobs j using (job_no) left join tallies y using (job_no, task_no)
            where j.job_id = any (%s)
            order by l.job_no, l.task_no, array_position(y.annotators, l.annotator_no)
        """
        found: dict[str, dict[int, str]] = {}
        for row in self.run(query, job_ids):
            ballot = found.setdefault(task_id(row["job_id"], row["task_key"], row["task_no"]), {})
            ballot[row["annotator_no"]] = row["option"]
        return found
