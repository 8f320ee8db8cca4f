"""Load by dlt from JSONL. Read the task as JSON from standard input, print the result."""

import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

LINES_PER_PAGE = 10_000
BUFFER_BYTES = 2**20
SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "100000",
    "DATA_WRITER__FILE_MAX_ITEMS": "50000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "NORMALIZE__WORKERS": "2",
    # The stores' clients have threads, and dlt's documentation advises against fork then.
    "NORMALIZE__START_METHOD": "spawn",
    "DESTINATION__POSTGRES__CREATE_INDEXES": "false",
}


def main() -> None:
    os.environ.update(SETTINGS)
    import dlt  # type: ignore[import-not-found]
    from dlt.common import json as dlt_json  # type: ignore[import-not-found]
    from dlt.sources.filesystem import filesystem  # type: ignore[import-not-found]

    task = json.load(sys.stdin)
    begin = time.perf_counter()
    credentials = {
        "aws_access_key_id": task["access_key_id"],
        "aws_secret_access_key": task["secret_access_key"],
        "endpoint_url": task["endpoint_url"],
        "region_name": task["region"],
    }

    def lines() -> Iterator[list[Any]]:
        for file in filesystem(f"s3://{task['bucket']}", credentials, file_glob=task["key"]):
            # dlt's own read_jsonl does the same without a buffer: then each line costs a copy of
            # s3fs's block, and 250,000 lines were not read in 200 s.
            with io.BufferedReader(file.open(), BUFFER_BYTES) as text:
                while page := [*map(dlt_json.loadb, itertools.islice(text, LINES_PER_PAGE))]:
                    yield page

    columns = {"metadata": {"data_type": "json"}}
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=task["folder"],
        destination=dlt.destinations.postgres(task["database_url"]),
        dataset_name="bench",
    )
    tasks = dlt.resource(lines, name="tasks", columns=columns, max_table_nesting=0)
    pipeline.run(tasks, loader_file_format="csv").raise_on_failed_jobs()
    seconds = time.perf_counter() - begin
    with pipeline.sql_client() as client:
        ((rows,),) = client.execute_sql("select count(*) from tasks")
    print(json.dumps({"seconds": seconds, "rows": rows}))


if __name__ == "__main__":
    main()
