"""The new field and the new model get their values."""

from django.db import migrations


def fill(apps, schema_editor):
    patients = apps.get_model("usuarios", "Paciente")
    patients.objects.update(estado_civil="soltero")
    insurance = apps.get_model("usuarios", "Seguro")
    insured = patients.objects.exclude(email=None)
    insurance.objects.bulk_create(insurance(compania="La Boliviana", paciente=patient) for patient in insured)


class Migration(migrations.Migration):
    dependencies = [("usuarios", "0002_paciente")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
