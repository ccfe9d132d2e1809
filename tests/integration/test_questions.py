"""How many questions about a restore are one query: many for a small clinic, one for a large one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.restore import questions
from clinic_backups.restore.questions import Question
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

TABLES = """
    CREATE TABLE s.part (id int PRIMARY KEY);
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, a int REFERENCES s.part,
                          b int REFERENCES s.part, c int REFERENCES s.part, d int UNIQUE, e int UNIQUE);
    INSERT INTO s.part SELECT generate_series(1, 20);
    INSERT INTO s.visit SELECT n, 1 + n % 2, n, n, n, n, n FROM generate_series(1, 20) AS n
"""


@pytest.mark.parametrize(("together", "largest"), [(200_000, 50), (20, 2), (5, 1)])
def test_a_query_asks_the_less_the_more_rows_the_clinic_has(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int, largest: int
) -> None:
    """PostgreSQL keeps what each part has hashed until the query ends. 15 parts of 200,000 rows took 180 MB more."""
    asked, real = list[int](), questions._answers

    def counted(workspace: Any, some: Sequence[Question], *rest: Any, **options: Any) -> Any:
        if some[0].doing == "looking for obstacles":
            asked.append(len(some))
        return real(workspace, some, *rest, **options)

    rig = shaped(demo_database, tmp_path, TABLES, {"visit": "clinic_id = {{ clinic_id }}"}, lists="s.part: shared, x\n")
    record = rig.run(1)
    rig.execute("DELETE FROM s.visit WHERE clinic_id = 1")
    monkeypatch.setattr(questions, "ROWS_AT_ONCE", together, raising=False)
    monkeypatch.setattr(questions, "_answers", counted)
    assert rig.plan(record).refusals == ()
    assert sum(asked) > 4
    assert max(asked) <= largest
    assert largest == 1 or max(asked) > 1
