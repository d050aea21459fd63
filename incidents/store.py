"""Opening a database: SQLite by default, PostgreSQL by URL, with a version per component and forward migrations.

A ``schema_version`` table with functions run in order, rather than Alembic: a handful of tables, one program that owns
them, no downgrades, and a database that is set up by opening it. Not here: any table of a component.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.pool import StaticPool

#: One step forward. It must stay as it is once released: write the next change as another migration.
Migration: TypeAlias = Callable[[Connection], None]

_LOCK_KEY: Final = 0x6D656E64  # any constant: serialises migrations of several programs on PostgreSQL
_BUSY_TIMEOUT_MS: Final = 10_000

_versions = sa.MetaData()
_SCHEMA_VERSION: Final = sa.Table(
    "schema_version",
    _versions,
    sa.Column("component", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


class StoreError(RuntimeError):
    """The database cannot be used; the message says what to do."""


class Store:
    """A component's database: short write transactions, and reads that see a consistent state.

    Safe to share between threads. On SQLite a write takes the write lock at its start, so that what is read inside it
    still holds when it is written.
    """

    def __init__(self, url: str, component: str, migrations: Sequence[Migration]) -> None:
        self.engine = _engine(_resolved(url))
        self.dialect = self.engine.dialect.name
        self._migrate(component, migrations)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading, in one transaction that is rolled back."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection for writing: committed at the end, rolled back when anything is raised."""
        with self.engine.connect().execution_options(mendstream_write=True) as connection, connection.begin():
            yield connection

    def insert_missing(self, connection: Connection, table: sa.Table, values: Mapping[str, Any]) -> bool:
        """Insert a row unless its key is there already. Whether it was inserted."""
        insert = postgresql.insert if self.dialect == "postgresql" else sqlite.insert
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key.columns)
        return connection.execute(statement).first() is not None

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _migrate(self, component: str, migrations: Sequence[Migration]) -> None:
        with self.write() as connection:
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            _versions.create_all(connection)
            query = sa.select(_SCHEMA_VERSION.c.version).where(_SCHEMA_VERSION.c.component == component)
            found = connection.execute(query).scalar_one_or_none()
            version = found or 0
            if version > len(migrations):
                raise StoreError(
                    f"the database's {component} tables have version {version}, this program knows {len(migrations)}: "
                    "use the newer program, or another database"
                )
            for migration in migrations[version:]:
                migration(connection)
            if found is None:
                connection.execute(_SCHEMA_VERSION.insert().values(component=component, version=len(migrations)))
            elif version < len(migrations):
                update = _SCHEMA_VERSION.update().where(_SCHEMA_VERSION.c.component == component)
                connection.execute(update.values(version=len(migrations)))


def _resolved(url: str) -> URL:
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError as error:
        raise StoreError(
            f"{url!r} is no database URL; write sqlite:///file.sqlite3 or postgresql://host/name"
        ) from error
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(f"{parsed.get_backend_name()!r} is not supported; use a sqlite or postgresql URL")
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        try:
            return sa.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreError("PostgreSQL needs its driver: pip install 'mendstream[postgres]'") from error
    in_memory = url.database in {None, "", ":memory:"}
    if in_memory:
        engine = sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        Path(str(url.database)).expanduser().parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", _on_sqlite_connect)
    sa.event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection has no type
    connection.isolation_level = None  # transactions are begun below, not guessed by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("mendstream_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
