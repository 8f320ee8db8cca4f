"""A customer with a thing of each kind, and ids of nothing."""

import secrets
from typing import Any

import httpx

from blocks.domain.ids import new_id, task_ids
from blocks.store import customers
from tests.support.access import Things
from tests.support.api_reviews import RULE
from tests.support.api_world import Api
from tests.support.store_shop import Shop, make_chunk

Key = dict[str, str]


class Tenant:
    """A customer with a thing of each kind, their annotator and their reviewer."""

    def __init__(self, shop: Shop, name: str) -> None:
        self._shop = shop
        self.customer_id: str = shop.do(customers.add_customer, name)
        self.key = self._new_key()
        self._annotator_id, self.worker = self._hire(f"worker {name}")
        _, self._second = self._hire(f"second worker {name}")
        _, self.reviewer = self._hire(f"reviewer {name}", is_reviewer=True)

    def _new_key(self) -> Key:
        return Api.bearer(self._shop.do(customers.add_customer_key, self.customer_id))

    def _hire(self, name: str, *, is_reviewer: bool = False) -> tuple[str, Key]:
        annotator_id, key = self._shop.do(
            customers.add_annotator_key, name, [self.customer_id], is_reviewer=is_reviewer
        )
        return annotator_id, Api.bearer(key)

    def things(self, client: httpx.Client) -> Things:
        """Make one of each."""
        rule = RULE | {"consensus_threshold": 2}
        job = self._shop.processing(make_chunk(9, bad=1), customer_id=self.customer_id, **rule)

        def post(path: str, key: Key, body: Any) -> Any:
            answer = client.post(f"/v1/{path}", json=body, headers=key)
            assert answer.is_success, answer.text
            return answer.json()

        def claim(key: Key, limit: int, queue: str = "label") -> list[str]:
            found = post(
                f"annotation/claim?queue={queue}", key, {"limit": limit, "job_id": job.job_id}
            )
            return [task["task_id"] for task in found["tasks"]]

        def label(key: Key, *ids: str) -> None:
            post(
                "annotation/labels",
                key,
                {"labels": [{"task_id": id_, "label": "cat"} for id_ in ids]},
            )

        labelled, held, _ = claim(self.reviewer, 3)
        label(self.reviewer, labelled)
        for key in (self.worker, self._second):
            label(key, *({*claim(key, 9)} - {labelled, held}))
        hook = post("webhooks", self.key, {"callback_url": "https://127.0.0.1:1/hook"})
        delivery_id = new_id("msg")
        self._shop.run(
            "insert into notifications (webhook_no, job_no, message_id, event, body, status) "
            "select webhook_no, %s, %s, 'job.completed', '{}', 'failed' from webhooks where webhook_id = %s",
            job.job_no,
            delivery_id,
            hook["webhook_id"],
        )
        return Things(
            customer_id=self.customer_id,
            job_id=job.job_id,
            task_id=held,
            review_id=claim(self.reviewer, 1, "review")[0],
            labelled_id=labelled,
            annotator_id=self._annotator_id,
            webhook_id=hook["webhook_id"],
            delivery_id=delivery_id,
            key_id=customers.key_id(self._new_key()["Authorization"].removeprefix("Bearer ")),
        )


def no_things() -> Things:
    """Ids of nothing, each in its right form."""
    tasks = [f"{task_ids(new_id('job'))}{secrets.randbits(60)}" for _ in range(3)]
    return Things(
        customer_id=new_id("cust"),
        job_id=new_id("job"),
        task_id=tasks[0],
        review_id=tasks[1],
        labelled_id=tasks[2],
        annotator_id=new_id("ann"),
        webhook_id=new_id("whk"),
        delivery_id=new_id("msg"),
        key_id=f"key_{secrets.token_hex(10)}",
    )
