"""Check that a worker is alive: `python -m deployments.worker_health NAME`, in a container.

The worker has no port of its own. Prefect knows when it heard of the worker last.
"""

import os
import sys

import httpx

from blocks.prefect.auth import PrefectAuth
from deployments.names import WORK_POOL

_DEFAULT_URL = "http://127.0.0.1:4200/api"
_TIMEOUT_S = 5.0


def is_online(session: httpx.Client, api_url: str, worker: str) -> bool | None:
    """Return whether Prefect takes the worker of our pool to be alive; None if Prefect does not answer.

    That is so for 90 s after a heartbeat, which comes every 30 s where nothing else is set.
    """
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    try:
        answer = session.post(f"{api_url}/work_pools/{WORK_POOL}/workers/filter", json=online)
    except httpx.TransportError:
        return None
    if answer.status_code != httpx.codes.OK:
        return None
    return any(each["name"] == worker for each in answer.json())


def check(worker: str) -> str | None:
    """Return why the worker is not well; None if it is, or waits for a Prefect that is away."""
    api_url = os.environ.get("PREFECT_API_URL") or _DEFAULT_URL
    auth = PrefectAuth(os.environ.get("PREFECT_API_AUTH_STRING", ""), api_url)
    with httpx.Client(auth=auth, timeout=_TIMEOUT_S, trust_env=False) as session:
        if is_online(session, api_url, worker) is False:
            return f"Prefect has not heard of the worker {worker} lately."
    return None


if __name__ == "__main__":
    sys.exit(check(*sys.argv[1:]))
