"""The commands of docs/backup.md, as a test types them."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from deployments.embedded.postgres_programs import programs_folder
from deployments.registered import REPOSITORY
from tests.support.side import wait_until

_PAGE = REPOSITORY / "docs" / "backup.md"
_SLOT = "refinery_backup"
_STATUS = "select count(*) from pg_stat_replication where application_name = %s and flush_lsn >= %s"


class Operator:
    """Someone who types what the page says; `variables` are those that it names."""

    def __init__(self, database_url: str, folder: Path, **variables: str) -> None:
        self._url = database_url
        programs = programs_folder()
        self._environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "REFINERY_DATABASE_URL": database_url,
            "BACKUP": str(folder),
            **variables,
        }

    def type(self, program: str) -> None:
        """Run the first block of the page that begins with this program, to its end."""
        done = subprocess.run(
            self._shell(program), env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _shell(self, beginning: str) -> list[str]:
        blocks = re.findall(r"^```sh\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
        (block,) = (block for block in blocks if block.startswith(beginning))
        return ["bash", "-euo", "pipefail", "-c", f"{block}"]

    @contextmanager
    def receiving_wal(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Receive the server's WAL, until the block ends or the process is killed."""
        self.type("pg_receivewal --create-slot")
        process = subprocess.Popen(
            self._shell("PGAPPNAME"), env=self._environment, stderr=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            self._drop_slot()

    def wait_received(self) -> None:
        """Go on when all that has been committed by now is in the backup."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            (written,) = connection.execute("select pg_current_wal_insert_lsn()").fetchone() or ()
            wait_until(lambda: connection.execute(_STATUS, (_SLOT, written)).fetchone() == (1,))

    def _drop_slot(self) -> None:
        query = "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots "
        with psycopg.connect(self._url, autocommit=True) as connection:
            wait_until(lambda: connection.execute(f"{query} where not active").fetchone() == (1,))
