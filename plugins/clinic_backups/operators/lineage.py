"""What OpenLineage is told of backups, where Airflow's provider for it is installed. Elsewhere nothing is sent.

The datasets are the tables that were read and the store: https://openlineage.io/docs/spec/naming. No row, no key of an
archive and no clinic is told, and of a connection only host, port and database.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.connections import Connection


@dataclass(frozen=True)
class Lineage:
    """The places of one task.

    :param server: as ``postgres://host:port``.
    :param store: the namespace and the name of the store.
    """

    server: str
    database: str
    store: tuple[str, str]

    @classmethod
    def of(cls, clinic_db: Connection, store_url: str) -> Lineage:
        """Those of a connection and a store."""
        parts = urlsplit(store_url)
        namespace = f"{parts.scheme}://{parts.hostname}" if parts.hostname else parts.scheme
        return cls(
            f"postgres://{clinic_db.host or 'localhost'}:{clinic_db.port or 5432}",
            clinic_db.schema,
            (namespace, (parts.path if parts.scheme == "file" else parts.path.strip("/")) or "/"),
        )

    def __call__(self, records: Collection[BackupRecord]) -> Any:
        """The provider's ``OperatorLineage``; none without the provider, or without a backup."""
        try:
            from airflow.providers.common.compat.openlineage.facet import (
                Dataset,
                OutputDataset,
                OutputStatisticsOutputDatasetFacet,
            )
            from airflow.providers.openlineage.extractors import OperatorLineage
        except ImportError:
            return None
        if not records:
            return None
        tables = sorted({table for record in records for table in record.rows})
        statistics = OutputStatisticsOutputDatasetFacet(
            rowCount=sum(record.rows_total for record in records),
            size=sum(record.size_bytes or 0 for record in records),
            fileCount=len(records),
        )
        namespace, name = self.store
        return OperatorLineage(
            inputs=[Dataset(namespace=self.server, name=f"{self.database}.{table}") for table in tables],
            outputs=[
                OutputDataset(namespace=namespace, name=name, outputFacets={"outputStatistics": statistics}),
            ],
        )
