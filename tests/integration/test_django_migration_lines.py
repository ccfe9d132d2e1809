"""Lines of drift.txt that are made from a project's migrations, each kind compared with what Django does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clinic_backups.tenant import drift

CHECKOUT = Path(__file__).parents[2]
MODELS = """
from django.db import models

def made():
    return "computed"

class Person(models.Model):
    correo = models.CharField(max_length=50)
    age = models.IntegerField(default=1)
    friends = models.ManyToManyField("self")

class Visit(models.Model):
    person = models.ForeignKey(Person, models.CASCADE)
"""
UPPER = """
from django.db import models

class Upper(models.TextField):
    def get_prep_value(self, value):
        return value.upper()
"""
FIRST = """
from django.db import migrations, models
import django.db.models.deletion as deletion

class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel("Person", [
            ("id", models.AutoField(primary_key=True)),
            ("correo", models.CharField(max_length=50)),
            ("age", models.IntegerField(default=1)),
            ("friends", models.ManyToManyField("self")),
        ]),
        migrations.CreateModel("Visit", [
            ("id", models.AutoField(primary_key=True)),
            ("person", models.ForeignKey("shop.person", deletion.CASCADE)),
        ]),
    ]
"""
LATER = """
import datetime, decimal, uuid
import upper
from django.db import migrations, models
from django.contrib.postgres.fields import ArrayField
from django.utils import timezone

class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [{operations}]
"""
RUN = """
import sys, json, django
from django.conf import settings
settings.configure(INSTALLED_APPS=["shop"], USE_TZ=True, TIME_ZONE="America/La_Paz",
                   DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}})
django.setup()
from clinic_backups_django.migration_lines import lines
print(json.dumps(list(lines())))
"""

PRICE = 'models.DecimalField(max_digits=5, decimal_places=1, default=decimal.Decimal("1.5"))'
ADDED = f"""
    migrations.AddField("Person", "a", models.CharField(max_length=9, default="it's")),
    migrations.AddField("Person", "b", models.TextField(blank=True)),
    migrations.AddField("Person", "q", models.TextField(default="age = null")),
    migrations.AddField("Person", "c", models.TextField(null=True)),
    migrations.AddField("Person", "d", models.BooleanField(default=False)),
    migrations.AddField("Person", "e", {PRICE}),
    migrations.AddField("Person", "f", models.JSONField(default=dict)),
    migrations.AddField("Person", "g", models.DateField(default=datetime.date(2020, 1, 2)), preserve_default=False),
    migrations.AddField("Person", "h", models.DateTimeField(default=timezone.now)),
    migrations.AddField("Person", "i", models.UUIDField(default=uuid.uuid4)),
    migrations.AddField("Person", "j", models.DateTimeField(auto_now_add=True, default=timezone.now)),
    migrations.AddField("Person", "k", ArrayField(models.TextField(), default=list)),
    migrations.AddField("Person", "m", models.ForeignKey("shop.visit", models.PROTECT, default=7)),
    migrations.AddField("Person", "n", models.IntegerField(null=True, default=None)),
    migrations.AddField("Person", "o", models.ManyToManyField("shop.visit")),
"""
SAVED = """
    migrations.AddField("Person", "a", models.DateTimeField(default=datetime.datetime(2020, 1, 2, 3, 4))),
    migrations.AddField("Person", "b", upper.Upper(default="abc")),
    migrations.AddField("Person", "c", models.CharField(max_length=9, default=True)),
    migrations.AddField("Person", "d", models.DurationField(default=datetime.timedelta(days=1, seconds=2))),
    migrations.AddField("Person", "e", models.TextField(default="a\\rb")),
"""
KINDS = {
    "RenameField": ('migrations.RenameField("Person", "correo", "email")', ["public.shop_person: correo -> email"]),
    "RenameField of a foreign key": (
        'migrations.RenameField("Visit", "person", "patient")', ["public.shop_visit: person_id -> patient_id"],
    ),
    "RenameField of many to many": (
        'migrations.RenameField("Person", "friends", "others")',
        ["public.shop_person_friends -> public.shop_person_others"],
    ),
    "RenameModel": (
        'migrations.RenameModel("Person", "Human")',
        ["public.shop_person -> public.shop_human", "public.shop_person_friends: from_person_id -> from_human_id",
         "public.shop_person_friends: to_person_id -> to_human_id",
         "public.shop_person_friends -> public.shop_human_friends"],
    ),
    "AlterModelTable": (
        """migrations.AlterModelTable("Visit", '"other"."Vi sit"')""",
        ['public.shop_visit -> other."Vi sit"'],
    ),
    "AlterField with another column": (
        'migrations.AlterField("Person", "age", models.IntegerField(default=1, db_column="years"))',
        ["public.shop_person: age -> years"],
    ),
    "only the state, with SQL that does it": (
        'migrations.RunSQL("ALTER …", state_operations=[migrations.RenameField("Person", "correo", "email")])',
        ["public.shop_person: correo -> email"],
    ),
    "separated": (
        'migrations.SeparateDatabaseAndState(state_operations=[migrations.RenameField("Person", "age", "years")])',
        ["public.shop_person: age -> years"],
    ),
    "AddField": (
        ADDED,
        ["public.shop_person: a = 'it''s'", "public.shop_person: b = ''",
            "public.shop_person: q = 'age = null'", "public.shop_person: d = false",
         "public.shop_person: e = 1.5", "public.shop_person: f = '{}'", "public.shop_person: g = '2020-01-02'",
         "# public.shop_person: h = …  (the migration computed the value)",
         "# public.shop_person: i = …  (the migration computed the value)",
         "# public.shop_person: j = …  (the migration computed the value)",
         "public.shop_person: k = '{}'", "public.shop_person: m_id = 7"],
    ),
    "values as Django saves them": (
        SAVED,
        ["public.shop_person: a = '2020-01-02T03:04:00-04:00'", "public.shop_person: b = 'ABC'",
         "public.shop_person: c = 'True'", "public.shop_person: d = '1 days 2.000000 seconds'",
         "# public.shop_person: e = …  (the migration computed the value)"],
    ),
    "a column that may not be NULL any more": (
        'migrations.AddField("Person", "a", models.TextField(null=True)),'
        'migrations.AlterField("Person", "a", models.TextField(default="x"), preserve_default=False)',
        ["public.shop_person: a = 'x'"],
    ),
    "a name that is given to another column": (
        'migrations.RenameField("Person", "correo", "email"),'
        'migrations.AddField("Person", "correo", models.TextField(null=True))',
        ["public.shop_person: correo -> email", "public.shop_person: correo = null"],
    ),
    "an order": ('migrations.AlterOrderWithRespectTo("Visit", "person")', ["public.shop_visit: _order = 0"]),
    "a table that goes to another application": (
        'migrations.SeparateDatabaseAndState(database_operations=[migrations.AlterModelTable("Visit", "other_visit")],'
        ' state_operations=[migrations.DeleteModel("Visit")])',
        ["public.shop_visit -> public.other_visit"],
    ),
    "nothing that moves a value": (
        'migrations.RemoveField("Person", "age"), migrations.AlterField("Person", "correo", models.TextField()),'
        'migrations.AddIndex("Person", models.Index(fields=["correo"], name="x")), migrations.RunSQL("SELECT 1")', [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("operations", "expected"), KINDS.values(), ids=list(KINDS))
def test_each_kind_of_operation(tmp_path: Path, operations: str, expected: list[str]) -> None:
    folder = tmp_path / "shop/migrations"
    folder.mkdir(parents=True)
    (tmp_path / "shop/__init__.py").touch()
    (folder / "__init__.py").touch()
    (tmp_path / "shop/models.py").write_text(MODELS)
    (folder / "0001_initial.py").write_text(FIRST)
    (tmp_path / "upper.py").write_text(UPPER)
    (folder / "0002_later.py").write_text(LATER.replace("{operations}", operations))
    ran = subprocess.run(
        [sys.executable, "-c", RUN], env={"PYTHONPATH": f"{CHECKOUT / 'plugins'}:{tmp_path}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found == expected
    drift.parse("\n".join(found))


SQUASHED = """
from django.db import migrations

class Migration(migrations.Migration):
    replaces = [("shop", "0001_initial"), ("shop", "0002_later")]
    operations = []
"""
TWICE = """
    migrations.RenameField("Person", "correo", "email"),
    migrations.AddField("Person", "nivel", models.TextField(default="a")),
    migrations.RemoveField("Person", "nivel"),
    migrations.AddField("Person", "nivel", models.TextField(default="b")),
    migrations.AddField("Person", "made", models.DateTimeField(default=timezone.now)),
"""


def test_what_a_file_says_already_is_not_said_again_and_squashes_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shop/migrations"
    folder.mkdir(parents=True)
    for name, text in {
        "shop/__init__.py": "", "shop/models.py": MODELS, "upper.py": UPPER, "shop/migrations/__init__.py": "",
        "shop/migrations/0001_initial.py": FIRST, "shop/migrations/0001_squashed_0002_later.py": SQUASHED,
        "shop/migrations/0002_later.py": LATER.replace("{operations}", TWICE),
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    found = {}
    for known in ("", "public.shop_person:nivel='corrected'\npublic.shop_person: made = '2026-01-01'\n"):
        script = RUN.replace("import lines", "import new_lines")
        script = script.replace("lines())", f"new_lines({known!r}.split(chr(10))))")
        ran = subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONPATH": f"{CHECKOUT / 'plugins'}:{tmp_path}"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        found[known] = json.loads(ran.stdout)
    everything, missing = found.values()
    assert everything == [
        "public.shop_person: correo -> email", "public.shop_person: nivel = 'b'",
        "# public.shop_person: made = …  (the migration computed the value)",
    ]  # fmt: skip
    assert missing == ["public.shop_person: correo -> email"]
