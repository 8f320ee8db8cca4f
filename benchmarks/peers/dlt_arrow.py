"""Load by dlt from an Arrow table. Read the task as JSON from standard input, print the result."""

import json
import os
import sys
import time

import polars as pl
import s3fs

SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "1000000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "DESTINATION__POSTGRES__CREATE_INDEXES": "false",
}


def main() -> None:
    os.environ.update(SETTINGS)
    import dlt  # type: ignore[import-not-found]

    task = json.load(sys.stdin)
    begin = time.perf_counter()
    bucket = s3fs.S3FileSystem(
        key=task["access_key_id"],
        secret=task["secret_access_key"],
        endpoint_url=task["endpoint_url"],
        client_kwargs={"region_name": task["region"]},
    )
    lines = pl.read_ndjson(bucket.cat_file(f"{task['bucket']}/{task['key']}"))
    # The CSV writer knows no nested types.
    tasks = lines.with_columns(pl.col("metadata").struct.json_encode()).to_arrow()
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=task["folder"],
        destination=dlt.destinations.postgres(task["database_url"]),
        dataset_name="bench",
    )
    pipeline.run(tasks, table_name="tasks", loader_file_format="csv").raise_on_failed_jobs()
    seconds = time.perf_counter() - begin
    with pipeline.sql_client() as client:
        ((rows,),) = client.execute_sql("select count(*) from tasks")
    print(json.dumps({"seconds": seconds, "rows": rows}))


if __name__ == "__main__":
    main()
