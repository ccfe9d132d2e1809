"""What ``clinic-backups check --rows`` prints."""

from __future__ import annotations

from rich.markup import escape

from clinic_backups.backup.row_report import RowReport, TableRows
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.text import one_line
from clinic_backups.cli.output import print_table, styled
from clinic_backups.tenant.declarations import spelled

_COLUMNS = (
    ("table", False), ("class", False), ("rows", True), ("in clinics' backups", True), ("shared", True),
    ("in none", True), ("sum", False), ("why in none", False),
)  # fmt: skip


def show_rows(report: RowReport) -> None:
    """Print where all rows are, then each problem with one key and the statement that lists all."""
    print_table("Rows", _COLUMNS, [_cells(table) for _, table in sorted(report.tables.items())])
    for each in report.violations:
        print(f"\n{in_words(one_line(each.problem.reason))}")
        if each.example:
            print(
                f"For instance the row with the key {', '.join(map(one_line, each.example))}. This lists all of them:"
            )
        print(f"\n{each.statement};")


def _cells(table: TableRows) -> list[str]:
    counts = (table.rows, table.in_backups, table.in_shared, table.in_none)
    right = {True: "ok", False: "error", None: "not counted"}[table.is_sum]
    return [
        escape(spelled(table.table)), table.table_class,
        *("" if count is None else f"{count:,}" for count in counts), styled(right),
        escape(in_words(one_line(table.why))),
    ]  # fmt: skip


def rows_as_json(report: RowReport) -> dict[str, object]:
    """The same for machines."""
    return {
        "rows": [
            {
                "table": each.table, "class": each.table_class, "rows": each.rows, "in_backups": each.in_backups,
                "in_shared": each.in_shared, "in_none": each.in_none, "too_many": each.too_many, "why": each.why,
            }
            for _, each in sorted(report.tables.items())
        ],
        "violations": [
            {"problem": each.problem.reason, "example_key": list(each.example), "statement": each.statement}
            for each in report.violations
        ],
    }  # fmt: skip
