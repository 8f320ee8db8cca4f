"""A worker that is lost before the first test on its stack."""

from collections.abc import Iterator

import pytest
import s3fs

from blocks.store.database import Database
from deployments.embedded.stack import Stack
from tests.support.lost_worker import Lost, lose_worker
from tests.support.stacks import stack_of
from tests.support.whole_stack import new_customer


@pytest.fixture(scope="session")
def lost(stack: Stack, store: Database, s3: s3fs.S3FileSystem) -> Iterator[Lost]:
    customer = new_customer(stack, store)
    yield lose_worker(stack, customer, s3)
    customer.http.close()


@pytest.fixture(autouse=True)
def _lost_early(request: pytest.FixtureRequest) -> None:
    """Lose the worker before the first test on the same stack: Prefect takes more than a minute to notice."""
    wanted = any(item.path.stem == "test_worker_lost" for item in request.session.items)
    if wanted and stack_of(request.node.path.stem) == stack_of("test_worker_lost"):
        request.getfixturevalue("lost")
