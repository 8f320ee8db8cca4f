"""Load as most people would. Read the task as JSON from standard input, print the result."""

import itertools
import json
import sys
import time

import boto3
import psycopg

ROWS_PER_TRANSACTION = 10_000
TABLE = "create table tasks (line bigint primary key, data_url text not null, metadata json)"
INSERT = "insert into tasks (line, data_url, metadata) values (%s, %s, %s)"


def main() -> None:
    task = json.load(sys.stdin)
    begin = time.perf_counter()
    store = boto3.client(
        "s3",
        endpoint_url=task["endpoint_url"],
        aws_access_key_id=task["access_key_id"],
        aws_secret_access_key=task["secret_access_key"],
        region_name=task["region"],
    )
    body = store.get_object(Bucket=task["bucket"], Key=task["key"])["Body"]
    parsed = ((n, json.loads(line)) for n, line in enumerate(body.iter_lines(2**20)))
    rows = ((n, line["data_url"], json.dumps(line["metadata"])) for n, line in parsed)
    loaded = 0
    with psycopg.connect(task["database_url"]) as connection:
        connection.execute(TABLE)
        while batch := list(itertools.islice(rows, ROWS_PER_TRANSACTION)):
            connection.cursor().executemany(INSERT, batch)
            connection.commit()
            loaded += len(batch)
    print(json.dumps({"seconds": time.perf_counter() - begin, "rows": loaded}))


if __name__ == "__main__":
    main()
