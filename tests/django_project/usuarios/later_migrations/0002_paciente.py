"""A new field, a renamed one, one that is gone, and a new model."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usuarios", "0001_initial")]
    operations = [
        migrations.AddField("paciente", "estado_civil", models.CharField(default="", max_length=20)),
        migrations.RenameField("paciente", "correo", "email"),
        migrations.RemoveField("paciente", "telefono"),
        migrations.CreateModel(
            "Seguro",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("compania", models.CharField(max_length=100)),
                ("paciente", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="usuarios.paciente")),
            ],
        ),
    ]
