"""Closes a restore's record as completed or failed, also after its process died.

The mail is in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial

import psycopg2
from psycopg2.errors import InvalidParameterValue

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect
from clinic_backups.base.database_errors import raise_database_error
from clinic_backups.base.errors import Interrupted, PermanentError, TransientError, to_record
from clinic_backups.catalog.restores import RestoreRecord, Restores
from clinic_backups.notify.restore_notice import RestoreOutcome, announce
from clinic_backups.restore.hooks import AFTER
from clinic_backups.restore.plan import Target
from clinic_backups.restore.plan_digest import has_hook
from clinic_backups.restore.target import OtherDatabase, ask, at_same_place, same_server
from clinic_backups.tenant.tenant_db import Snapshot

TransactionStatus = Callable[[str], str | None]


class RestoreOutcomes:
    """Closes records. The caller holds the clinic's lock.

    :param now: the clock.
    """

    def __init__(self, restores: Restores, now: Callable[[], datetime]) -> None:
        self._restores, self._now = restores, now

    def complete(self, record: RestoreRecord, *, but: BaseException | None = None) -> RestoreRecord:
        """Record that the restore's transaction has committed.

        :param but: what failed after that.
        """
        completed = record.completed(self._now())
        if but is not None:
            error, hint = to_record(but)
            completed = replace(completed, error=error, hint=hint)
        return self._close(completed, "completed")

    def fail(self, record: RestoreRecord, error: BaseException) -> RestoreRecord:
        """Record that the restore failed and nothing was changed: its transaction was rolled back, or never begun."""
        return self._close(record.failed(error, self._now()), "failed")

    def settle(
        self, record: RestoreRecord, error: BaseException, transaction_status: TransactionStatus
    ) -> RestoreRecord:
        """Close a running record whose commit may or may not have happened. The database decides.

        :param error: the reason, if it failed.
        :raises TransientError: the database does not know yet; the record stays as it is.
        """
        status = transaction_status(record.transaction_id) if record.transaction_id else "aborted"
        if status == "committed":
            # The process was about to commit then. The time that the record lay there is not part of the duration.
            return self._close(record.completed(record.committing_at or self._now()), "completed")
        if status == "aborted":
            if record.transaction_id and isinstance(error, TransientError) and not isinstance(error, Interrupted):
                error = TransientError(
                    "The restore was cut off during its commit. The database says that it was not committed: nothing"
                    " was changed.",
                    hint="Make a new plan and approve it.",
                )
            return self.fail(record, error)
        if status is not None:
            raise TransientError(
                f"The transaction of restore {record.restore_id} is still open in the clinics' database.",
                hint="The server will soon notice that the process is gone: try again in two minutes. If a commit waits"
                " for a standby, pg_stat_activity shows it.",
            )
        unknown = PermanentError(
            "The restore's process died during its commit, and the database no longer knows whether it was committed."
            " The clinic is either as before or completely restored.",
            hint="Plan the same restore again: if there is nothing to write, it was done.",
        )
        return self._close(record.failed(unknown, self._now()), "unknown")

    def close_dead(self, record: RestoreRecord, transaction_status: TransactionStatus) -> RestoreRecord:
        """Complete or fail a running record whose process died.

        :param transaction_status: asks the clinics' database, as :func:`transaction_status` does.
        :raises TransientError: the database does not know yet; the record stays as it is.
        """
        died = Interrupted(
            "The restore's process ended without a result: it was killed, it ran out of memory, or its machine stopped."
            " The clinic's rows are as they were before.",
            hint="See the task's log and the worker's memory, then plan the restore again."
            + (f" {AFTER} did not run: run it by hand for clinic {record.clinic_id}." if has_hook(record.plan) else ""),
        )
        return self.settle(record, died, transaction_status)

    def _close(self, record: RestoreRecord, outcome: RestoreOutcome) -> RestoreRecord:
        return self._restores.finish(record, partial(announce, outcome=outcome))


def transaction_status(connection: Connection, transaction_id: str, target: Target | None = None) -> str | None:
    """The state of a transaction: ``committed``, ``aborted``, ``in progress``; none if the database no longer knows.

    :param transaction_id: an xid8; ``pg_xact_status`` of
        https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
    :param target: the transaction's database; none in records from before version 0011 of the catalog.
    :raises OtherDatabase: the connection leads to another database, or to a standby, which may not know of it yet.
    """
    if target is not None:
        with Snapshot(connection) as snapshot:
            there = ask(snapshot)
        if not same_server(there, target):
            if at_same_place(there, target):
                # The server was restarted, or its files were replaced. The number may mean another transaction now.
                return None
            raise OtherDatabase(
                f"Transaction {transaction_id} was in {target.name}, and {there.name} is not that database's primary.",
                hint=f"Let the connection {connection.conn_id} lead to {target.name}.",
            )
    try:
        with closing(connect(connection)) as db, db.cursor() as cursor:
            cursor.execute("SELECT pg_xact_status(%s::xid8)", (transaction_id,))
            row = cursor.fetchone()
            return str(row[0]) if row and row[0] is not None else None
    except InvalidParameterValue:
        # The number is in the future: this server was set back to a time before the restore.
        return None
    except psycopg2.Error as error:
        raise_database_error(error, f"asking what became of transaction {transaction_id}", source="restore")


def status_in(connection: Connection, record: RestoreRecord) -> TransactionStatus:
    """:func:`transaction_status` for the database that a restore wrote to."""
    said = record.plan.get("target")
    return partial(transaction_status, connection, target=Target(**said) if said else None)
