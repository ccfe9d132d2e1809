"""The queries of the board.

Almost every clinic's newest backup began in the last hours (``:recent``). One range of the index backup_started holds
them all, which takes a fifth of the time of reading backup_clinic for each clinic. Only the other clinics are looked up
there. Both indexes contain all columns that these queries need, so no wide record is read. Backups that were begun
after ``:until`` do not count: a clock was wrong, or they are forged.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import TextClause, text

from clinic_backups.catalog.clinic_id_text import ClinicIdText, in_sql_order

_SEEN = "(CAST(:visible AS text[]) IS NULL OR {}.clinic_id = ANY(CAST(:visible AS text[])))"
_OBJECTIVE = (
    "(CASE WHEN c.objective_hours IS NULL THEN :moment ELSE :now - make_interval(hours => c.objective_hours) END)"
)
"""The data of the clinic's last good backup have to be as new as this."""
# A clinic's last drill counts if it is not older than :proven_since. Without one the clinic has as many days from when
# it was first seen.
_IS_UNPROVEN = """CASE WHEN drilled.outcome IS NULL THEN :must_prove AND c.proof_since < :proven_since
                     ELSE drilled.outcome = 'failed' END"""
_STANDING = f"""CASE WHEN {{0}} IS NULL THEN 'never' WHEN {{0}} < {_OBJECTIVE} THEN 'late'
                     WHEN {_IS_UNPROVEN} THEN 'unproven' ELSE 'ok' END"""
_RECENT = f"""
    recent AS MATERIALIZED (
        SELECT DISTINCT ON (b.clinic_id) b.clinic_id, b.id, b.started_at, b.finished_at, b.data_time, b.size_bytes,
               b.rows_total
          FROM clinic_backups.backup AS b
         WHERE b.good AND b.started_at BETWEEN :recent AND :until AND {_SEEN.format("b")}
         ORDER BY b.clinic_id, b.started_at DESC, b.id DESC)"""  # noqa: S608 - our own words only, here and below
_DRILLED = f"""
    drilled AS MATERIALIZED (
        SELECT DISTINCT ON (p.clinic_id) p.clinic_id, p.outcome
          FROM clinic_backups.proof AS p
         WHERE p.finished_at BETWEEN :proven_since AND :until AND {_SEEN.format("p")}
         ORDER BY p.clinic_id, p.id DESC)"""  # noqa: S608
_CLINICS_AND_GOOD = """clinic_backups.clinic AS c
    LEFT JOIN recent ON recent.clinic_id = c.clinic_id
    LEFT JOIN LATERAL (
        SELECT b.started_at, b.finished_at, b.data_time, b.size_bytes, b.rows_total
          FROM clinic_backups.backup AS b
         WHERE recent.clinic_id IS NULL AND b.clinic_id = c.clinic_id AND b.good AND b.started_at <= :until
         ORDER BY b.started_at DESC, b.id DESC
         LIMIT 1) AS older ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(recent.started_at, older.started_at) AS started_at,
               coalesce(recent.finished_at, older.finished_at) AS finished_at,
               coalesce(recent.data_time, older.data_time) AS data_time,
               coalesce(recent.size_bytes, older.size_bytes) AS size_bytes,
               coalesce(recent.rows_total, older.rows_total) AS rows_total) AS good"""
_PROOF = """LEFT JOIN LATERAL (
          SELECT p.id, p.finished_at, p.seconds
            FROM clinic_backups.proof AS p
           WHERE p.clinic_id = c.clinic_id AND p.outcome = 'proven' AND p.finished_at <= :until
           ORDER BY p.id DESC
           LIMIT 1) AS proof ON true"""
_NEWEST_FAILED = """(SELECT n.state FROM clinic_backups.backup AS n
                      WHERE n.clinic_id = c.clinic_id AND n.started_at <= :until
                      ORDER BY n.started_at DESC, n.id DESC LIMIT 1) = 'failed'"""
# The rank of a standing. Each order ends with a unique column, so that the pages hold every clinic exactly once.
_RANK = "array_position(ARRAY['never', 'late', 'unproven', 'ok'], f.standing)"
_ORDERS = {
    "standing": (_RANK, "CASE f.standing WHEN 'late' THEN f.data_time END", "f.search_name"),
    "name": ("f.search_name",),
    "age": ("f.data_time",),
    "size": ("f.size_bytes",),
    "id": (),
}


def page(sort: Literal["standing", "name", "age", "size", "id"], descending: bool) -> TextClause:
    """The number of matching clinics, and the ids on one page in order."""
    direction = "DESC NULLS LAST" if descending else "ASC NULLS FIRST"
    order = ", ".join([*(f"{key} {direction}" for key in _ORDERS[sort]), in_sql_order("f", descending=descending)])
    return text(f"""
        WITH {_RECENT}, {_DRILLED},
        found AS MATERIALIZED (
            SELECT c.clinic_id, c.clinic_number, c.search_name, good.data_time, good.size_bytes,
                   {_STANDING.format("good.data_time")} AS standing
              FROM {_CLINICS_AND_GOOD}
              LEFT JOIN drilled ON drilled.clinic_id = c.clinic_id
             WHERE {_SEEN.format("c")}
               AND (CAST(:active AS boolean) IS NULL OR c.active = CAST(:active AS boolean))
               AND (CAST(:pattern AS text) IS NULL OR c.search_name LIKE lower(CAST(:pattern AS text))
                    OR c.clinic_id = ANY(CAST(:sought_ids AS text[])))
               AND (NOT :running_only
                    OR c.clinic_id IN (SELECT r.clinic_id FROM clinic_backups.backup AS r WHERE r.state = 'running'))
               -- CASE, because AND would look for the newest backup of every clinic first.
               AND (NOT :failed_only
                    OR CASE WHEN recent.clinic_id IS NULL
                              OR c.clinic_id IN (SELECT b.clinic_id FROM clinic_backups.backup AS b
                                                  WHERE b.state = 'failed' AND b.started_at BETWEEN :recent AND :until)
                            THEN {_NEWEST_FAILED} ELSE false END)
        ),
        fitting AS MATERIALIZED (
            SELECT * FROM found WHERE CAST(:standing AS text) IS NULL OR standing = CAST(:standing AS text))
        SELECT (SELECT count(*) FROM fitting) AS total,
               ARRAY(SELECT f.clinic_id FROM fitting AS f ORDER BY {order} LIMIT :limit OFFSET :offset)""")  # noqa: S608


# `odd`: each clinic's newest recent record that is not completed; few have one.
COUNTS = text(f"""
    WITH {_RECENT}, {_DRILLED},
    odd AS MATERIALIZED (
        SELECT DISTINCT ON (b.clinic_id) b.clinic_id, b.id, b.started_at, b.state
          FROM clinic_backups.backup AS b
         WHERE b.state <> 'completed' AND b.started_at BETWEEN :recent AND :until AND {_SEEN.format("b")}
         ORDER BY b.clinic_id, b.started_at DESC, b.id DESC)
    SELECT count(*) AS clinics,
           count(*) FILTER (WHERE good.data_time >= {_OBJECTIVE} AND NOT {_IS_UNPROVEN}) AS ok,
           count(*) FILTER (WHERE good.data_time >= {_OBJECTIVE} AND {_IS_UNPROVEN}) AS unproven,
           count(*) FILTER (WHERE good.data_time < {_OBJECTIVE}) AS late,
           count(*) FILTER (WHERE good.finished_at IS NULL) AS never,
           count(*) FILTER (WHERE c.clinic_id IN (
               SELECT r.clinic_id FROM clinic_backups.backup AS r WHERE r.state = 'running')) AS running,
           count(*) FILTER (WHERE CASE
               WHEN odd.clinic_id IS NOT NULL
                AND (recent.clinic_id IS NULL OR (odd.started_at, odd.id) > (recent.started_at, recent.id))
               THEN odd.state = 'failed'
               WHEN recent.clinic_id IS NOT NULL THEN false
               ELSE {_NEWEST_FAILED} END) AS failed
      FROM {_CLINICS_AND_GOOD}
      LEFT JOIN odd ON odd.clinic_id = c.clinic_id
      LEFT JOIN drilled ON drilled.clinic_id = c.clinic_id
     WHERE c.active AND {_SEEN.format("c")}""")  # noqa: S608

# As with backups, almost every clinic's newest proof is one of the last days. Failed drills are few.
METRICS = text(f"""
    WITH {_RECENT},
    made AS MATERIALIZED (
        SELECT b.clinic_id, sum(b.n) FILTER (WHERE b.state = 'completed') AS completed,
               sum(b.n) FILTER (WHERE b.state = 'failed') AS failed
          FROM clinic_backups.backup_count AS b
         WHERE b.clinic_id IS NOT NULL AND {_SEEN.format("b")}
         GROUP BY b.clinic_id),
    restored AS MATERIALIZED (
        SELECT r.clinic_id, max(r.finished_at) AS finished_at
          FROM clinic_backups.restore AS r
         WHERE r.state = 'completed' AND {_SEEN.format("r")}
         GROUP BY r.clinic_id),
    proven AS MATERIALIZED (
        SELECT DISTINCT ON (p.clinic_id) p.clinic_id, p.id, p.finished_at, p.seconds
          FROM clinic_backups.proof AS p
         WHERE p.outcome = 'proven' AND p.finished_at BETWEEN :proven_since AND :until AND {_SEEN.format("p")}
         ORDER BY p.clinic_id, p.id DESC),
    failed AS MATERIALIZED (
        SELECT f.clinic_id, array_agg(f.id) AS ids
          FROM clinic_backups.proof AS f
         WHERE f.outcome = 'failed' AND {_SEEN.format("f")}
         GROUP BY f.clinic_id)
    SELECT c.clinic_id, c.name, good.data_time,
           extract(epoch FROM good.finished_at - good.started_at)::double precision,
           good.size_bytes, good.rows_total, coalesce(made.completed, 0)::bigint, coalesce(made.failed, 0)::bigint,
           restored.finished_at, coalesce(proven.finished_at, proof.finished_at),
           coalesce(proven.seconds, proof.seconds),
           CASE WHEN failed.ids IS NULL THEN 0 ELSE
               (SELECT count(*) FROM unnest(failed.ids) AS f (id) WHERE f.id > coalesce(proven.id, proof.id, 0)) END
      FROM {_CLINICS_AND_GOOD}
      LEFT JOIN made ON made.clinic_id = c.clinic_id
      LEFT JOIN restored ON restored.clinic_id = c.clinic_id
      LEFT JOIN proven ON proven.clinic_id = c.clinic_id
      LEFT JOIN failed ON failed.clinic_id = c.clinic_id
      {_PROOF.replace("WHERE p.clinic_id", "WHERE proven.clinic_id IS NULL AND p.clinic_id")}
     WHERE c.active AND {_SEEN.format("c")}
     ORDER BY {in_sql_order("c")}""")  # noqa: S608

LINES = text(f"""
    SELECT c.clinic_id, c.name, c.active, {_STANDING.format("good.data_time")} AS standing,
           good.data_time AS last_good_at, good.id AS last_good_number, good.backup_id AS last_good_id,
           good.kind, good.size_bytes, good.rows_total AS rows,
           failed.error AS last_failure, failed.hint AS last_failure_hint,
           drilled.error AS drill_error, drilled.hint AS drill_hint,
           doubtful.suspect, doubtful.backup_id AS suspect_id, c.schedule,
           (SELECT max(r.finished_at) FROM clinic_backups.restore AS r
             WHERE r.clinic_id = c.clinic_id AND r.state = 'completed') AS restored_at,
           proof.finished_at AS proven_at, proof.seconds AS proof_seconds, proof.id AS proof_number
      FROM clinic_backups.clinic AS c
      {_PROOF}
      LEFT JOIN LATERAL (
          SELECT p.outcome, p.error, p.hint
            FROM clinic_backups.proof AS p
           WHERE p.clinic_id = c.clinic_id AND p.finished_at BETWEEN :proven_since AND :until
           ORDER BY p.id DESC
           LIMIT 1) AS drilled ON true
      -- The index alone finds them, also behind a thousand failed ones, and then one record is read.
      LEFT JOIN clinic_backups.backup AS good ON good.id = (
          SELECT b.id
            FROM clinic_backups.backup AS b
           WHERE b.clinic_id = c.clinic_id AND b.good AND b.started_at <= :until
           ORDER BY b.started_at DESC, b.id DESC
           LIMIT 1)
      LEFT JOIN LATERAL (
          SELECT n.state, n.error, n.hint
            FROM clinic_backups.backup AS n
           WHERE n.clinic_id = c.clinic_id AND n.started_at <= :until AND n.regular
           ORDER BY n.started_at DESC, n.id DESC
           LIMIT 1) AS failed ON failed.state = 'failed'
      LEFT JOIN clinic_backups.backup AS doubtful ON doubtful.suspect IS NOT NULL
          AND NOT doubtful.good AND doubtful.id = (
          SELECT d.id
            FROM clinic_backups.backup AS d
           WHERE d.clinic_id = c.clinic_id AND d.state = 'completed' AND d.started_at <= :until
             AND d.regular
           ORDER BY d.started_at DESC, d.id DESC
           LIMIT 1)
     WHERE c.clinic_id = ANY(CAST(:clinic_ids AS text[]))""").columns(clinic_id=ClinicIdText)  # noqa: S608
# One row for each clinic, with an array for each column: rows for each day would cost more than the query.
TREND = text("""
    SELECT d.clinic_id, array_agg(d.day ORDER BY d.day), array_agg(d.size_bytes ORDER BY d.day),
           array_agg(d.rows_total ORDER BY d.day)
      FROM (SELECT DISTINCT ON (b.clinic_id, day) b.clinic_id, b.size_bytes, coalesce(b.rows_total, 0) AS rows_total,
                   (b.started_at AT TIME ZONE 'UTC')::date - CAST(:first_day AS date) AS day
              FROM clinic_backups.backup AS b
             WHERE b.clinic_id = ANY(CAST(:clinic_ids AS text[])) AND b.state = 'completed'
               AND b.started_at BETWEEN :since AND :until
             ORDER BY b.clinic_id, day, b.started_at DESC, b.id DESC) AS d
     GROUP BY d.clinic_id""")
