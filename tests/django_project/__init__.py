"""A Django project like those that the clinics' application is: models as the demo has them, staff, a REST API."""
