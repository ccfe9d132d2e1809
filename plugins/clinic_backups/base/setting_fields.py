"""The settings of the package: their names, types, limits, defaults and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from clinic_backups.base.project import PROJECT_EMAIL, PROJECT_SQL
from clinic_backups.base.retention_rules import Days, Periods
from clinic_backups.base.setting_types import (
    YEAR_HOURS,
    Addresses,
    ClinicFrequencies,
    ClinicHours,
    ClinicKeys,
    ClinicPolicies,
    ClinicSchedules,
    Flag,
    Frequency,
    FurtherStores,
    Keys,
    Language,
    OneName,
    Percent,
    Schedule,
    SomePath,
    StoreUrl,
    TenantWordEn,
    TenantWordEs,
    Timeout,
    WebAddress,
    Words,
    ZoneName,
)

PREFIX = "CLINIC_BACKUPS_"


class SettingFields(BaseSettings):
    """Each field is the variable ``CLINIC_BACKUPS_<FIELD>``. ``base/settings.py`` has what follows from them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    store_url: StoreUrl = Field(
        default="", description="URL of the store, for instance s3://bucket/prefix: see the table of providers below"
    )
    recipients: Keys = Field(
        default=(), description="Public keys (age1… or ssh-…) that every backup is encrypted to, separated by spaces"
    )
    clinic_recipients: ClinicKeys = Field(
        default={}, description='Additional public keys for single clinics, as JSON: {"7": ["age1…"]}'
    )
    own_keys_only: Flag = Field(
        default=False,
        description="Encrypt a clinic that has its own public keys only to these. Destroying its secret key then makes "
        "its backups unreadable",
    )
    server_side_encryption: str = Field(
        default="AES256",
        description="Encryption by the store itself, in addition: AES256, a KMS key id or ARN, or none",
    )
    keep_days: Days = Field(default=30, description="Days for which every backup is kept")
    keep_daily: Periods = Field(default=0, description="After that, keep the newest backup of this many days")
    keep_weekly: Periods = Field(default=0, description="Also of this many weeks")
    keep_monthly: Periods = Field(default=0, description="Also of this many months")
    keep_yearly: Periods = Field(default=0, description="Also of this many years")
    clinic_retention: ClinicPolicies = Field(
        default={},
        description='Exceptions for single clinics, as JSON: {"7": {"keep_days": 90, "monthly": 12}}',
    )
    keep_failed_days: Days = Field(
        default=90, description="Days after which records of failed and deleted backups are removed from the catalog"
    )
    full_every_days: int = Field(
        default=7,
        ge=0,
        le=365,
        description="Days after which the next backup is full, not incremental; 0: all backups are full",
    )
    chain_length: int = Field(
        default=30, ge=1, le=200, description="The next backup is full when the chain has this many backups"
    )
    incremental_percent: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="The next backup is full when the incrementals stored this percentage of the last full one",
    )
    compare_nights: int = Field(
        default=1,
        ge=1,
        le=7,
        description="Nights in which the rows of each clinic are compared with the extracts once. 1: each night "
        "compares all clinics. 7: each night compares a seventh of them, and the other clinics' backups do not compare "
        "their rows. Nights without a run of all clinics do not count",
    )
    lock_days: int = Field(
        default=0,
        ge=0,
        le=36500,
        description="Days for which the stores lock each backup against deletion; 0: no lock",
    )
    lock_mode: Literal["governance", "compliance"] = Field(
        default="governance",
        description="governance: accounts with a special right may end a lock early. compliance: nobody may",
    )
    replica_stores: FurtherStores = Field(
        default={},
        description="Further stores that get a replica of every backup, as JSON of Airflow connection and "
        'URL: {"backup_replica": "gs://replicas/clinics"}',
    )
    schedule: Schedule = Field(
        default="0 2 * * *",
        description="When all clinics are backed up: a cron expression, @hourly, @daily, @weekly, @monthly, or none",
    )
    shared: Flag = Field(
        default=True,
        description="Whether a run of all clinics also backs up the shared data: what belongs to no clinic, the "
        "positions of sequences and the definition of the database",
    )
    clinic_schedule: ClinicSchedules = Field(
        default={},
        description="The same for single clinics, or for classes of clinics (the fourth column of active_clinics.sql), "
        'as JSON: {"7": "0 */6 * * *", "premium": "@hourly"}',
    )
    start_window_minutes: int = Field(
        default=0,
        ge=0,
        le=12 * 60,
        description="The starts of a scheduled run's tasks are spread over this time; 0: each task starts as soon as "
        "the pool has a free slot",
    )
    retention_schedule: Schedule = Field(
        default="0 3 * * 0", description="When the stores are checked and expired backups are deleted; as SCHEDULE"
    )
    time_zone: ZoneName = Field(default="UTC", description="IANA zone of the schedules, for instance America/La_Paz")
    run_hours: int = Field(
        default=23,
        ge=1,
        le=167,
        description="The longest time of a run that backs up all clinics, in hours. Then Airflow ends it",
    )
    task_hours: int = Field(
        default=12, ge=1, le=167, description="The longest time of one task, in hours. Then Airflow ends it"
    )
    queue: OneName = Field(
        default="",
        max_length=250,
        description="Airflow's queue for the tasks that need no secret key. Empty: Airflow's default queue",
    )
    restore_queue: OneName = Field(
        default="",
        max_length=250,
        description="Airflow's queue for the tasks that need the secret key: those of clinic_restore and "
        "clinic_restore_drill. Empty: Airflow's default queue",
    )
    executor: OneName = Field(
        default="", description="Name of Airflow's executor for the tasks that need no secret key, if it has several"
    )
    restore_executor: OneName = Field(
        default="", description="Name of Airflow's executor for the tasks that need the secret key, if it has several"
    )
    restore_pod_template: str = Field(
        default="",
        description="File of the scheduler with the pod template of the tasks that need the secret key, where the "
        "KubernetesExecutor runs them. Empty: Airflow's own pod template",
    )
    tasks: int = Field(
        default=64,
        ge=1,
        le=512,
        description="The most tasks that one run has. With more clinics than that, a task backs up several",
    )
    clinics_at_once: int = Field(
        default=4,
        ge=1,
        le=16,
        description="Clinics of one task, or of `clinic-backups backup`, that are under way at the same time. Only one "
        "of them is read from the database, while the others wait for the store or the catalog",
    )
    retries: int = Field(default=3, ge=0, le=20, description="Number of retries of a task after a transient error")
    retry_delay_seconds: int = Field(
        default=60, ge=1, le=86_400, description="Wait before the first retry; it doubles with each, up to half an hour"
    )
    sql_dir: Path = Field(default=PROJECT_SQL, description="Folder with the application's SQL, include/sql")
    email_dir: Path = Field(default=PROJECT_EMAIL, description="Folder with the mails' texts, include/email")
    notify_success: Frequency = Field(
        default="each",
        description="Mail to a clinic's administrators about good backups: each, weekly or never. Failures are"
        " always mailed",
    )
    clinic_notify_success: ClinicFrequencies = Field(
        default={}, description='The same for single clinics, as JSON: {"7": "never"}'
    )
    support_contact: str = Field(
        default="", description="Contact for clinics' administrators, printed in the mails that they get"
    )
    operator_emails: Addresses = Field(
        default=(),
        description="Addresses for digests, alarms and plans that wait for approval, separated by spaces",
    )
    operator_language: Language = Field(
        default="es", description="Language of the operator's mails: the name of a folder in EMAIL_DIR"
    )
    tenant_word_es: TenantWordEs = Field(
        default="",
        description="The Spanish word for a tenant and its plural, in place of clínica/clínicas: organización/"
        "organizaciones. With articles if the ending does not show the gender: el cliente/los clientes",
    )
    tenant_word_en: TenantWordEn = Field(
        default="",
        description="The English word, in place of clinic/clinics: organization/organizations. Page, mails and "
        "messages take these words. `--help`, Airflow's own pages and the API's description do not",
    )
    rpo_hours: int = Field(
        default=26,
        ge=1,
        le=YEAR_HOURS,
        description="Objective: no clinic's last good backup is older than this many hours",
    )
    clinic_rpo_hours: ClinicHours = Field(
        default={},
        description='The same for single clinics or classes, as JSON: {"premium": 3}. A clinic with a schedule of its '
        "own needs none: its objective is two hours more than the longest time between two of its runs",
    )
    shrink_percent: Percent = Field(
        default=30, description="The digest names a clinic whose rows or bytes fell by this percentage"
    )
    metrics_per_clinic: Flag = Field(
        default=False,
        description="Whether the figures in Airflow's own metrics have the tag `clinic_id`. With many clinics the "
        "receiver then keeps many series. See docs/monitoring",
    )
    assets: Literal["none", "fleet", "each"] = Field(
        default="fleet",
        description="Airflow's assets that completed backups update. fleet: one, after each run whose backups are all "
        "complete. each: also one of each clinic. See docs/monitoring",
    )
    heartbeat_url: WebAddress = Field(
        default=SecretStr(""),
        description="Address that is pinged hourly when all is well, and with /fail when not (healthchecks style)",
    )
    identity_file: SomePath = Field(
        default=None, description="File with the secret key; only where restores run, never on workers that back up"
    )
    export_days: int = Field(
        default=7,
        ge=1,
        le=365,
        description="How many days an export that was asked for on the page can be downloaded. Then retention deletes "
        "it",
    )
    point_in_time_connections: Words = Field(
        default=("pitr_db",),
        description="Names of connections to databases that were recovered to an earlier time, separated by spaces. A "
        "restore may take its rows from these alone",
    )
    point_in_time_sql_dir: SomePath = Field(
        default=None,
        description="Folder with the application's SQL as it was at that time, if the tables were others. Empty: "
        "SQL_DIR",
    )
    approvers: Words = Field(
        default=(),
        description="Airflow users who may approve restores, by name or id, separated by spaces; a number or a UUID is "
        "always an id. Empty: all who may edit runs. If it is set, approve: true in a conf is ignored",
    )
    actions_per_hour: int = Field(
        default=60,
        ge=1,
        le=1_000_000,
        description="Backups, downloads and restores that one person of a clinic may start in an hour on the page",
    )
    approval_hours: int = Field(
        default=24,
        ge=1,
        le=24 * 30,
        description="Hours that a plan waits for its approval, and that an approval waits for its restore",
    )
    statement_timeout_seconds: Timeout = Field(
        default=6 * 3600, description="Longest time that reading one table may take"
    )
    lock_timeout_seconds: Timeout = Field(
        default=60, description="Longest wait for all table locks, for instance during a migration, before a retry"
    )
    read_seconds: Timeout = Field(
        default=3600,
        description="Longest time that a backup may keep its tables locked against migrations, before a retry. A "
        "slow store makes reading slow",
    )
    throttle_mb_s: float = Field(
        default=0,
        ge=0,
        description="The most MB of rows (as CSV) that a task reads from the database in a second; 0: no limit. With a "
        "limit, a backup keeps its tables locked against migrations for longer",
    )
    max_row_mib: int = Field(
        default=256,
        ge=1,
        le=1024,
        description="Longest row, as CSV; a longer one fails the backup. A worker needs memory for five such rows",
    )
    unpack_ratio: int = Field(
        default=200,
        ge=1,
        le=1_000_000,
        description="An archive without a record may unpack to this many times its size, or to 64 MiB if that is more",
    )
    clock_difference_seconds: int = Field(
        default=120,
        ge=1,
        le=3600,
        description="If a machine's clock differs by more seconds from that of the catalog's database, the machine "
        "neither backs up nor deletes",
    )
    silence_seconds: Timeout = Field(
        default=60,
        description="Seconds without an answer after which the database is asked, over a new connection, whether it "
        "still runs the statement; if not, the silent connection is closed",
    )
    standby_lag_seconds: int = Field(
        default=600,
        ge=0,
        le=YEAR_HOURS * 3600,
        description="No backup is read from a standby whose data are older than this; the task is retried",
    )
    standby_of_primary: Flag = Field(
        default=False,
        description="Set this if `clinic_db` is a standby that receives from the primary itself, never from another "
        "standby. Then the data of an idle primary count as fresh, even if nothing is committed",
    )
    postgres_bin: SomePath = Field(
        default=None,
        description="Folder with PostgreSQL's own programs (pg_dump, pg_restore, initdb), not older than the server. "
        "Otherwise they are looked for on the search path and where Debian puts them",
    )
    certificate_key_file: SomePath = Field(
        default=None,
        description="File with the secret key (Ed25519, PEM) that signs the certificates of drills. `clinic-backups "
        "certificate keygen` makes one. Without it, certificates are not signed",
    )
    prove_within_days: int = Field(
        default=7,
        ge=0,
        le=365,
        description="Days within which drills prove each clinic's backups, and those of the shared data. If the newest "
        "proof is older, the operator gets an alarm. 0: no alarm",
    )
    drill_minutes: int = Field(default=60, ge=1, le=1440, description="Minutes that the drills of one night may take")
    drill_schedule: Schedule = Field(
        default="0 4 * * *",
        description="When backups are restored into a throw-away database and proven: as the schedule of backups",
    )
    trusted_owners: Words = Field(
        default=(),
        description="Roles that own some of the tables, and that you trust with the data of all clinics; separated by"
        " spaces or commas. Reading or writing a table runs code of its owner, so other roles' tables are refused",
    )
