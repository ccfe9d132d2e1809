"""What a running backup's envelope is going to say, and which values a record can have at all.

Rows that have other values, because somebody made an envelope up or a clock was wrong, are put right first: one time
that Python cannot read stops every list. The constraints are not validated: no row can keep the migration from ending.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

FIRST, LAST = "timestamptz '2000-01-01 00:00:00+00'", "timestamptz '2199-12-31 00:00:00+00'"
TIMES = (
    "started_at", "finished_at", "expires_at", "locked_until", "data_at", "held_at", "released_at", "deleted_at",
    "accepted_at",
)  # fmt: skip
SIZES = ("size_bytes", "raw_bytes")


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup ADD COLUMN noted jsonb")
    for name in TIMES:
        op.execute(f"""
            UPDATE clinic_backups.backup SET {name} = least(greatest({name}, {FIRST}), {LAST})
             WHERE {name} < {FIRST} OR {name} > {LAST}""")  # noqa: S608 - our own words only, here and below
    for name in SIZES:
        op.execute(f"UPDATE clinic_backups.backup SET {name} = 0 WHERE {name} < 0")  # noqa: S608
    op.execute("UPDATE clinic_backups.backup SET finished_at = started_at WHERE finished_at < started_at")
    checks = {
        **{f"{name}_range": f"{name} BETWEEN {FIRST} AND {LAST}" for name in TIMES},
        **{f"{name}_size": f"{name} >= 0" for name in SIZES},
    }
    added = ", ".join(f"ADD CONSTRAINT backup_{name} CHECK ({check}) NOT VALID" for name, check in checks.items())
    op.execute(f"ALTER TABLE clinic_backups.backup {added}")


def downgrade() -> None:
    names = [*(f"{name}_range" for name in TIMES), *(f"{name}_size" for name in SIZES)]
    dropped = ", ".join(f"DROP CONSTRAINT backup_{name}" for name in names)
    op.execute(f"ALTER TABLE clinic_backups.backup {dropped}, DROP COLUMN noted")
