"""The data of each release is upgraded: all is answered as it was, and what was half done goes on.

`tests/support/release_data.py` makes such data; docs/CONTRIBUTING.md says when.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from blocks import housekeeping
from blocks.secrets.vault import Vault
from blocks.store import chunks, job_credentials, jobs
from blocks.store.database import Database
from blocks.store.migrations import migrate
from blocks.store.schema_files import number_of
from deployments.registered import REPOSITORY
from tests.support import release_data
from tests.support.api_world import make_app
from tests.support.books import check_books
from tests.support.made_migrations import add_to_ours
from tests.support.release_data import KEY, RELEASES, SECRET, DataMade, Release
from tests.support.servers import DatabaseServer
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

CHANGELOG = REPOSITORY / "docs" / "CHANGELOG.md"
FIRST = (0, 2, 0)
MADE = sorted(path.name for path in RELEASES.glob("*/"))
# The version that is tested, whose data is made on the spot, and upgraded to a version that adds something.
THIS = "this version"
NEXT = {
    "0099_next.sql": "-- oldest-code: 1\n\nalter table jobs add column colour text not null default 'red'"
}
# What depends on the time, and on whether Prefect is there.
_MOVING = {"pace", "waiting_for"}


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def released() -> set[str]:
    """All versions that were tagged, or that the changelog dates."""
    tags = subprocess.run(
        ["git", "tag", "--list"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    dated = re.findall(r"^## (\d+\.\d+\.\d+), \d{4}-", CHANGELOG.read_text("utf-8"), re.MULTILINE)
    return find_versions(tags) | set(dated)


def find_versions(tags: str) -> set[str]:
    return set(re.findall(r"^v?(\d+\.\d+\.\d+)$", tags, re.MULTILINE))


def test_tags_of_releases_are_known_by_their_form() -> None:
    assert find_versions("v0.2.0\n0.3.1\nv0.4.0-rc1\nother\n") == {"0.2.0", "0.3.1"}


def test_each_release_has_its_data() -> None:
    wanted = {version for version in released() if number(version) >= FIRST}
    assert wanted <= set(MADE), "see docs/CONTRIBUTING.md, A release"


@pytest.fixture(scope="module")
def this_version(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the version that is tested, as the command writes it."""
    folder = tmp_path_factory.mktemp("releases") / "this"
    url = database_server.clone()
    release_data.write(release_data.make(url), folder)
    database_server.drop(url)
    return folder


@pytest.fixture(params=[THIS, *MADE])
def upgraded(
    request: pytest.FixtureRequest, empty_url: str, tmp_path: Path
) -> Iterator[tuple[Shop, Release]]:
    """A shop on the data, upgraded; and what was known of the data."""
    is_this = request.param == THIS
    folder = request.getfixturevalue("this_version") if is_this else RELEASES / request.param
    made: DataMade = release_data.read(folder)
    release_data.restore(made, empty_url)
    with Database(empty_url, connections_max=4) as database:
        if is_this:
            ours = sorted(path.name for path in add_to_ours(tmp_path).glob("*.sql"))
            name = f"{len(ours) + 1:04}_next.sql"
            next_version = add_to_ours(tmp_path, {name: NEXT["0099_next.sql"]})
            assert migrate(empty_url, folder=next_version) == [name]
        else:
            migrate(empty_url)
        yield Shop(database, empty_url, Vault([bytes.fromhex(KEY)])), made.release


def test_the_data_of_a_release_is_answered_as_it_was_and_goes_on(
    upgraded: tuple[Shop, Release],
) -> None:
    shop, release = upgraded
    check_answers(shop, release)
    for row in shop.run("select job_id from jobs where archived_at is null and inline_key is null"):
        check_books(shop, shop.job(row["job_id"]))
    read_on(shop, release)
    tidy(shop)


def check_answers(shop: Shop, release: Release) -> None:
    """All that the API answered then it answers now; it may say more."""
    assert len(release.answers) > 50
    with TestClient(make_app(release_data.settings_of(shop.url))) as client:
        for path, (status, then) in release.answers.items():
            now_status, now = release_data.ask(client, release.key, path)
            assert now_status == status, (path, now)
            check_same(parse(then), parse(now), path)
    statuses = [status for status, _ in release.answers.values()]
    assert statuses.count(200) > 2 * len(statuses) / 3


def parse(text: str) -> list[Any]:
    """The documents of an answer, one a line."""
    return [json.loads(line) for line in text.split("\n") if line]


def check_same(then: Any, now: Any, where: str) -> None:
    """Each member and each element is as it was; objects may have more members."""
    if isinstance(then, dict):
        for name in then.keys() - _MOVING:
            assert name in now, f"{where}/{name}"
            check_same(then[name], now[name], f"{where}/{name}")
    elif isinstance(then, list):
        assert len(then) == len(now), where
        for n, (old, new) in enumerate(zip(then, now, strict=True)):
            check_same(old, new, f"{where}/{n}")
    else:
        assert then == now, where


def read_on(shop: Shop, release: Release) -> None:
    """The rest of the manifest is read, with the customer's credentials, and the job brought to its end."""
    job = shop.job(release.half_read)
    assert job.credentials is not None
    opened = job_credentials.open_sealed(job.credentials, job.job_id, job.customer_id, shop.vault)
    assert opened == SECRET
    for chunk_no in range(3):
        chunk = make_chunk(20, bad=2, start=chunk_no * 500_000)
        shop.do(chunks.commit, job.job_no, chunk_no, chunk, None)
    shop.do(jobs.finish_ingestion, job.job_no)
    for annotator in shop.annotators(3):
        tasks = shop.claim(annotator, 500, job_id=job.job_id)
        shop.label(annotator, *[(task.task_id, OPTIONS[0]) for task in tasks])
    found = shop.job(job)
    assert (found.status, found.tasks_done, found.total_tasks) == ("completed", 60, 64)
    check_books(shop, found)


def tidy(shop: Shop) -> None:
    """Housekeeping finds its way: what was left of a deleted job goes, and leases come back."""
    shop.expire_leases()
    settings = msgspec.structs.replace(release_data.settings_of(shop.url), archive_after_s=300)
    while housekeeping.keep_house(shop.database, settings).removal_steps:
        pass
    assert shop.value("select count(*) from deleted_jobs") == 0
    assert shop.value("select count(*) from leases") == 0


def test_code_of_the_latest_release_works_with_the_schema_of_this_version(
    empty_url: str,
) -> None:
    """So code can go back by one release; and while APIs are upgraded, both kinds work."""
    for latest in sorted(MADE, key=number)[-1:]:
        release_data.restore(release_data.read(RELEASES / latest), empty_url)
        with Database(empty_url, connections_max=1) as database, database.transaction() as tx:
            names = [row["name"] for row in tx.execute("select name from migrations")]
        migrate(empty_url)
        known = max(map(number_of, names))
        with (
            Database(empty_url, connections_max=1, schema_number=known) as database,
            database.transaction() as tx,
        ):
            assert tx.execute("select 1 as one").fetchone() == {"one": 1}
