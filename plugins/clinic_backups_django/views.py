"""The paths that the clinics' front ends call. Rows come from the view, actions go to the API of clinic_backups."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError, ProgrammingError
from django.utils import translation
from rest_framework import filters, permissions, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import set_rollback

from clinic_backups_django.client import BackupsError, client
from clinic_backups_django.conf import conf
from clinic_backups_django.error_texts import spanish, text_of
from clinic_backups_django.filters import RespaldoFilter
from clinic_backups_django.models import Respaldo
from clinic_backups_django.rules import Action, rules
from clinic_backups_django.serializers import NuevoRespaldoSerializer, RespaldoSerializer, RestauracionSerializer

log = logging.getLogger("clinic_backups_django")
POLL_SECONDS = 0.25
CREATED, RUNNING = "El respaldo se creó correctamente.", "El respaldo está en proceso."
FAILED = "El respaldo falló. Intente de nuevo; si vuelve a fallar, avise al operador."
DENIED = "No tiene permiso para hacer esto en esta clínica. Pídalo a la persona que la administra."
NO_CLINIC = 'Indique la clínica: {"clinica": 7}.'
OTHER_CLINIC = "Este respaldo no es de la clínica {}. Elija un respaldo de esa clínica."
CATALOG_DOWN = "La lista de respaldos no está disponible. Intente de nuevo en unos minutos."
NOT_SET_UP = "El servicio de respaldos no está configurado en esta aplicación. Avise al operador."
DATABASE_ERRORS = (OperationalError, InterfaceError, ProgrammingError)
PLANNED = "Se pidió la restauración. Empieza cuando el operador apruebe el plan."


class RespaldoViewSet(viewsets.ReadOnlyModelViewSet):
    """Backups of the clinics that the user may see. To this user, all others do not exist."""

    serializer_class = RespaldoSerializer
    permission_classes = (permissions.IsAuthenticated,)
    filter_backends = (RespaldoFilter, filters.SearchFilter, filters.OrderingFilter)
    search_fields = ("clinica_nombre", "nombre_archivo", "notas")
    ordering_fields = ("id", "fecha_creacion", "fecha_expiracion", "tamano_bytes", "registros_totales",
                       "tiempo_ejecucion", "tipo", "estado", "clinica_nombre")  # fmt: skip
    ordering = ("-fecha_creacion", "-id")

    def get_queryset(self) -> Any:
        """The backups that the user may see."""
        seen = rules().clinics(self.request.user)
        every = Respaldo.objects.all()
        return every if seen is None else every.filter(clinica_id__in=seen)

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        """A serializer with the users who asked for these backups.

        They are read in one query, in whatever database they are.
        """
        shown = args[0] if args else ()
        found = [shown] if isinstance(shown, Respaldo) else shown if kwargs.get("many") else ()
        kwargs["context"] = self.get_serializer_context() | {"users": _users(found)}
        return self.serializer_class(*args, **kwargs)

    @action(detail=False, methods=["post"])
    def crear_respaldo_manual(self, request: Request) -> Response:
        """Back up now: 201 with the backup if it ends in time, 202 while it runs."""
        self._require_somewhere("back_up")
        clinic_id = _clinic_of(request)
        self._require("back_up", clinic_id)
        asked = _valid(NuevoRespaldoSerializer, request)
        newest = Respaldo.objects.order_by("-id").values_list("id", flat=True).first() or 0
        user = request.user.pk if isinstance(request.user.pk, int) else None
        client().back_up(clinic_id, tipo=asked["tipo"], notas=asked["notas"], creado_por=user)
        try:
            made = _wait(clinic_id, newest)
        except DATABASE_ERRORS:  # the backup was requested nevertheless
            log.exception("The view of backups cannot be read while a backup of clinic %s runs.", clinic_id)
            made = None
        shown = None if made is None else self.get_serializer(made).data
        if made is not None and made.estado == Respaldo.Estado.FALLIDO:
            return Response({"error": FAILED, "respaldo": shown}, status=status.HTTP_500_INTERNAL_SERVER_ERROR)
        done = made is not None and made.estado == Respaldo.Estado.COMPLETADO
        return Response(
            {"mensaje": CREATED if done else RUNNING, "respaldo": shown},
            status=status.HTTP_201_CREATED if done else status.HTTP_202_ACCEPTED,
        )

    @action(detail=True, methods=["get"])
    def descargar(self, request: Request, pk: str | None = None) -> Response:
        """A link to the encrypted archive, for an hour."""
        found = self.get_object()
        self._require("download", found.clinica_id)
        return Response(client().link(found.id))

    @action(detail=True, methods=["post"])
    def restaurar(self, request: Request, pk: str | None = None) -> Response:
        """Ask for a restore. It is planned, and waits for somebody to approve the plan."""
        found = self.get_object()
        self._require("restore", found.clinica_id)
        asked = _valid(RestauracionSerializer, request)
        if asked.pop("clinica", found.clinica_id) != found.clinica_id:
            return Response({"error": OTHER_CLINIC.format(request.data["clinica"])}, status=status.HTTP_409_CONFLICT)
        run = client().restore(found.id, found.clinica_id, **asked)
        return Response({"mensaje": PLANNED, **run}, status=status.HTTP_202_ACCEPTED)

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer in Spanish, whatever the project's language is."""
        with translation.override("es"):
            return super().dispatch(request, *args, **kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        """Every error is ``{"error": text}``."""
        if isinstance(exc, DATABASE_ERRORS):
            log.error("The view of backups cannot be read: %s: %s", type(exc).__name__, exc)
            exc = BackupsError(status.HTTP_503_SERVICE_UNAVAILABLE, CATALOG_DOWN)
        if isinstance(exc, ImproperlyConfigured):
            log.error("%s", exc)
            exc = BackupsError(status.HTTP_503_SERVICE_UNAVAILABLE, NOT_SET_UP)
        if isinstance(exc, BackupsError):
            set_rollback()
            headers = {"Retry-After": exc.retry_after} if exc.retry_after else None
            return Response({"error": exc.message}, status=exc.status, headers=headers)
        answer: Response = super().handle_exception(exc)
        answer.data = {"error": spanish(exc) or text_of(answer.data)}
        return answer

    def _require_somewhere(self, wanted: Action) -> None:
        """Refuse users who may do this in no clinic, before the body is read."""
        own = rules().clinics(self.request.user)
        if own is not None and not any(rules().may(wanted, self.request.user, clinic_id) for clinic_id in own):
            raise PermissionDenied(DENIED)

    def _require(self, wanted: Action, clinic_id: int) -> None:
        if not rules().may(wanted, self.request.user, clinic_id):
            raise PermissionDenied(DENIED)


def _clinic_of(request: Request) -> int:
    """The requested clinic. It is checked before anything else in the request: 403 comes before 400."""
    given = request.data.get("clinica") if hasattr(request.data, "get") else None
    if given in (None, ""):
        own = rules().clinics(request.user)
        if own is not None and not own:
            raise PermissionDenied(DENIED)
        if own is None or len(own) != 1:
            raise ValidationError(NO_CLINIC)
        return next(iter(own))
    try:
        return int(str(given))
    except ValueError:
        raise ValidationError(NO_CLINIC) from None


def _valid(form: Any, request: Request) -> dict[str, Any]:
    serializer = form(data=request.data)
    serializer.is_valid(raise_exception=True)
    found: dict[str, Any] = serializer.validated_data
    return found


def _wait(clinic_id: int, newest: int) -> Respaldo | None:
    """The requested backup, when it ends or when the time is over. ``None``: it has not begun."""
    until = time.monotonic() + conf().wait_seconds
    while True:
        wanted = {"clinica_id": clinic_id, "id__gt": newest, "tipo": Respaldo.Tipo.MANUAL}
        made: Respaldo | None = Respaldo.objects.filter(**wanted).order_by("id").first()
        ended = made is not None and made.estado != Respaldo.Estado.EN_PROCESO
        if ended or time.monotonic() >= until:
            return made
        time.sleep(POLL_SECONDS)


def _users(shown: Iterable[Respaldo]) -> dict[int, Any]:
    numbers = {respaldo.creado_por_id for respaldo in shown} - {None}
    return get_user_model()._default_manager.in_bulk(numbers) if numbers else {}
