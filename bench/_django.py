"""The measured process of the clinics' present way: ``python -m bench._django``, with the job as JSON on stdin.

It is a stand-in, because neither Django nor the application is here. It does what Django's JSON serializer does: fetch
all rows, make a dict of each with the keys ``model``, ``pk`` and ``fields``, turn the list into one JSON text as
DjangoJSONEncoder writes it, compress that at gzip's default level, 9, and store it with one put. Django's own models,
fields and signals cost time and memory on top of that. So the real way is slower than this reference.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2

from bench.children import peak_rss_bytes


def main() -> None:
    """Export the clinic once, or the first part of the rows of each table."""
    job = json.load(sys.stdin)
    began = time.perf_counter()
    objects: list[dict[str, Any]] = []
    with psycopg2.connect(**job["database"]) as connection, connection.cursor() as cursor:
        for table, query in job["queries"].items():
            limit = ""
            if job["fraction"] < 1:
                cursor.execute(f"SELECT count(*) FROM ({query}) AS r")
                ((count,),) = cursor.fetchall()
                limit = f" LIMIT {round(count * job['fraction'])}"
            cursor.execute(query + limit)
            names = [column.name for column in cursor.description or ()]
            model = table.rpartition(".")[2].replace("_", ".", 1)
            for row in cursor.fetchall():
                fields = dict(zip(names, row, strict=True))
                objects.append({"model": model, "pk": fields.pop("id", None), "fields": fields})
    text = json.dumps(objects, default=_as_django_does, ensure_ascii=False)
    Path(job["target"]).write_bytes(gzip.compress(text.encode()))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak_rss_bytes(), "rows": len(objects)}))


def _as_django_does(value: Any) -> str:
    """Like django.core.serializers.json.DjangoJSONEncoder, which raises for other types."""
    match value:
        case datetime():
            text = value.isoformat(timespec="milliseconds")
            return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
        case date() | time_of_day():
            return value.isoformat()
        case Decimal() | UUID() | timedelta():
            return str(value)
        case memoryview():
            return value.tobytes().hex()
    raise TypeError(f"{type(value).__name__} is not JSON")


if __name__ == "__main__":
    main()
