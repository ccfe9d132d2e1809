"""The Django app that the clinics' application installs: it shows backups, and asks clinic_backups for new ones.

It needs Django and Django REST Framework, and neither Airflow nor the rest of this package. See docs/django.md.
"""
