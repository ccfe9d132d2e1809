"""The lines of drift.txt that are read from a project's migrations, each kind with what Django really does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clinic_backups import drift

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
settings.configure(INSTALLED_APPS=["shop"], USE_TZ=True,
                   DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}})
django.setup()
from clinic_backups_django.migration_lines import lines
print(json.dumps(list(lines())))
"""

PRICE = 'models.DecimalField(max_digits=5, decimal_places=1, default=decimal.Decimal("1.5"))'
ADDED = f"""
    migrations.AddField("Person", "a", models.CharField(max_length=9, default="it's")),
    migrations.AddField("Person", "b", models.TextField(blank=True)),
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
        ["public.shop_person: a = 'it''s'", "public.shop_person: b = ''", "public.shop_person: d = false",
         "public.shop_person: e = 1.5", "public.shop_person: f = '{}'", "public.shop_person: g = '2020-01-02'",
         "# public.shop_person: h = …  (the migration computed the value)",
         "# public.shop_person: i = …  (the migration computed the value)",
         "# public.shop_person: j = …  (the migration computed the value)",
         "public.shop_person: k = '{}'", "public.shop_person: m_id = 7"],
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
    (folder / "0002_later.py").write_text(LATER.replace("{operations}", operations))
    ran = subprocess.run(
        [sys.executable, "-c", RUN], env={"PYTHONPATH": f"{CHECKOUT / 'plugins'}:{tmp_path}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found == expected
    drift.parse("\n".join(found))
