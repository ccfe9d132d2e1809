"""``path("api/", include("clinic_backups_django.urls"))`` gives ``api/respaldos/…``."""

from rest_framework.routers import DefaultRouter

from clinic_backups_django.views import RespaldoViewSet

router = DefaultRouter()
router.register("respaldos", RespaldoViewSet, basename="respaldo")
urlpatterns = router.urls
