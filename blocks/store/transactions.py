"""Run the statements of `sql/` with little between a function of the store and libpq.

A small request is made of little but statements, and a cursor of the driver takes three times as long
for one: it makes a transformer of its own, and parses a long text each time.
"""

import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg.abc import Params, QueryNoTemplate
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import DictRow

from blocks.store.queries import Statement

# As the driver has it: a process that lives shortly runs most statements once.
_PREPARED_AFTER = 5
# A statement is prepared for each combination of types, and the size of a number is part of its type.
_PREPARED_MAX = 500
_MESSAGES_MAX = 10
_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)

_Send = Callable[[], None]


class _Prepared:
    """A statement with parameters of certain types, in one connection.

    `name` is empty until the server has it; `columns` are those of its result.
    """

    __slots__ = ("columns", "name", "statement", "types", "uses")

    def __init__(self, statement: Statement, types: tuple[int, ...]) -> None:
        self.statement = statement
        self.types = types
        self.name = b""
        self.uses = 0
        self.columns: tuple[str, ...] | None = None

    def make_row(self, values: Sequence[Any]) -> DictRow:
        """Return a row as a dict by column."""
        assert self.columns is not None  # there was a result
        return dict(zip(self.columns, values, strict=True))


class Rows:
    """The rows that a statement has returned, as dicts by column.

    They are loaded when the first one is asked for, which must be within the transaction.
    """

    def __init__(self, pgresult: PGresult | None, load: Callable[[], list[DictRow]]) -> None:
        self.pgresult = pgresult
        """The result as libpq has it."""
        self._load = load
        self._rows: Iterator[DictRow] | None = None

    @property
    def rowcount(self) -> int:
        """How many rows the statement has read or changed."""
        return (self.pgresult.command_tuples if self.pgresult else None) or 0

    def fetchone(self) -> DictRow | None:
        """Return the next row; None after the last one."""
        return next(iter(self), None)

    def fetchall(self) -> list[DictRow]:
        """Return the rows that are left."""
        return list(self)

    def __iter__(self) -> Iterator[DictRow]:
        if self._rows is None:
            self._rows = iter(self._load())
        return self._rows


class Transaction(psycopg.Connection[DictRow]):
    """A connection in autocommit whose owner calls `begin`; its first statement takes `begin` along.

    Only one thread may use it at a time.
    """

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.made_at = time.monotonic()
        self.is_verified = False
        """Whether the schema is one that this code works with."""
        self._transformer = Transformer(self)
        self._statements: dict[tuple[Statement, tuple[int, ...]], _Prepared] = {}
        self._prepared_count = 0
        self._begin = partial(pgconn.send_query_params, b"begin", None)
        self._along: list[_Send] = []
        self._readable = select.poll()
        self._readable.register(pgconn.socket, select.POLLIN)

    def begin(self) -> None:
        """Begin a transaction, together with its first statement.

        Raises:
            OperationalError: the server has closed the connection, as far as this machine knows.
        """
        for _ in range(_MESSAGES_MAX):
            if not self._readable.poll(0):
                break
            # A message to all, such as a new setting; or the end of the connection, which raises.
            self.pgconn.consume_input()
        self._along = [self._begin]

    def execute(  # type: ignore[override]
        self, query: QueryNoTemplate, params: Params | None = None, *, binary: bool = False
    ) -> Rows:
        """Run a statement, and return its rows; `binary` asks the server for them in that format."""
        if not isinstance(query, Statement) or query.may_be_several:
            cursor = super().execute(query, params, binary=binary)
            return Rows(cursor.pgresult, cursor.fetchall if cursor.description else list)
        prepared, send = self._send_of(query, params, Format.BINARY if binary else Format.TEXT)
        along, self._along = self._along, []
        result = self._run(*along, send)
        return Rows(result, partial(self._load, prepared, result))

    def execute_later(self, query: Statement, params: Params | None = None) -> None:
        """Run a statement together with the next one, which raises its error as well."""
        _, send = self._send_of(query, params, Format.TEXT)
        self._along.append(send)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor of the driver, for COPY and for what is read by pieces."""
        self._send_along()
        return super().cursor(*args, **kwargs)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """Yield a part of the transaction that can be undone by itself."""
        self._send_along()
        with super().transaction(savepoint_name, force_rollback) as part:
            yield part

    def commit(self) -> None:
        """Commit, together with what was left for later; without a statement there is nothing to do."""
        along, self._along = self._along, []
        if along == [self._begin]:
            along = []
        commit = partial(self.pgconn.send_query_params, b"commit", None)
        if along:
            try:
                self._run(*along, commit)
            except psycopg.Error:
                self.rollback()
                raise
        elif self.pgconn.transaction_status != TransactionStatus.IDLE:
            self._run(commit)

    def rollback(self) -> None:
        """Roll back; without a statement there is nothing to do."""
        self._along = []
        super().rollback()

    def _send_along(self) -> None:
        if self._along:
            along, self._along = self._along, []
            self._run(*along)

    def _load(self, prepared: _Prepared, result: PGresult) -> list[DictRow]:
        self._transformer.set_pgresult(result)
        if prepared.columns is None:
            columns = [result.fname(n) or b"" for n in range(result.nfields)]
            prepared.columns = tuple(column.decode() for column in columns)
        return self._transformer.load_rows(0, result.ntuples, prepared.make_row)

    def _send_of(
        self, query: Statement, params: Params | None, answer: Format
    ) -> tuple[_Prepared, _Send]:
        """Return the command that runs a statement; prepare the statement if it has run often enough."""
        transformer = self._transformer
        names = query.names
        values = [params[name] for name in names] if names else []  # type: ignore[index]
        dumped = transformer.dump_sequence(values, query.formats)
        formats = transformer.formats
        key = query, tuple(transformer.types or ())
        prepared = self._statements.get(key)
        if prepared is None:
            prepared = self._statements[key] = _Prepared(*key)
        pgconn = self.pgconn
        if not prepared.name:
            prepared.uses += 1
            if prepared.uses <= _PREPARED_AFTER or self._prepared_count == _PREPARED_MAX:
                text = query.numbered
                send = partial(
                    pgconn.send_query_params, text, dumped, prepared.types, formats, answer
                )
                return prepared, send
            self._prepare(prepared)
        return prepared, partial(pgconn.send_query_prepared, prepared.name, dumped, formats, answer)

    def _prepare(self, prepared: _Prepared) -> None:
        along, self._along = self._along, []
        name = b"refinery_%d" % self._prepared_count
        text = prepared.statement.numbered
        self._run(*along, partial(self.pgconn.send_prepare, name, text, prepared.types))
        prepared.name = name
        self._prepared_count += 1

    def _run(self, *sends: _Send) -> PGresult:
        """Send commands together, and return the result of the last; raise the first error."""
        pgconn = self.pgconn
        results: list[PGresult] = []
        try:
            if len(sends) == 1:
                sends[0]()
                self._flush()
                self._read_results(results)
            else:
                pgconn.enter_pipeline_mode()
                for send in sends:
                    send()
                pgconn.pipeline_sync()
                self._flush()
                for _ in sends:
                    self._read_results(results)
                self._read_result()  # the mark of the end
                pgconn.exit_pipeline_mode()
        except BaseException as error:
            self.close()  # nobody could tell whose the results are that are still to come
            has_reason = any(result.status not in _DONE for result in results)
            if not (has_reason and isinstance(error, psycopg.OperationalError)):
                raise
        for result in results:
            if result.status not in _DONE:
                raise error_from_result(result, self.info.encoding)
        return results[-1]

    def _flush(self) -> None:
        """Send all that is queued; a server that does not read it may have to be read from first."""
        while self.pgconn.flush():
            poll = select.poll()
            poll.register(self.pgconn.socket, select.POLLIN | select.POLLOUT)
            if any(event & select.POLLIN for _, event in poll.poll()):
                self.pgconn.consume_input()

    def _read_results(self, results: list[PGresult]) -> None:
        """Append the result of one command; the second reading shows that there is no other."""
        while result := self._read_result():
            results.append(result)

    def _read_result(self) -> PGresult | None:
        pgconn = self.pgconn
        while pgconn.is_busy():
            self._readable.poll()
            pgconn.consume_input()
        return pgconn.get_result()
