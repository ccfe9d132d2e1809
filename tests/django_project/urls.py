"""The paths that the clinics' front ends call, and the admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("clinic_backups_django.urls")),
]
