"""The errors of the API and the pages in Spanish: the translation of each English sentence in :mod:`clinic_backups.web`.

Names in braces are placeholders. A test finds missing sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

TITLES = {
    400: "Solicitud incorrecta",
    401: "Sin iniciar sesión",
    403: "Sin permiso",
    404: "No existe",
    405: "Método no permitido",
    409: "No es posible ahora",
    413: "Demasiado grande",
    415: "Formato no admitido",
    422: "Valores incorrectos",
    429: "Demasiadas solicitudes",
    500: "Error interno",
    503: "No disponible",
}
SENTENCES: Mapping[str, str] = {
    "{what} was not found.": "No se encontró: {what}.",
    "It may belong to a clinic that you may not see.": "Puede ser de una clínica que usted no puede ver.",
    "Your role in clinic {clinic} does not allow that.": "Su rol en la clínica {clinic} no lo permite.",
    "Your role allows that in no clinic.": "Su rol no lo permite en ninguna clínica.",
    "Ask the clinic's administrator, or the operator.": "Pídalo a quien administra la clínica o al operador.",
    "Only a superadmin may ask on behalf of somebody else.": "Solo un superadministrador puede pedir en nombre de otra "
    "persona.",
    "Leave creado_por out of the request.": "Quite creado_por de la solicitud.",
    "A backup of clinic {clinic} was already requested.": "Ya se pidió un respaldo de la clínica {clinic}.",
    "Clinic {clinic} is being backed up or restored now.": "La clínica {clinic} se está respaldando o restaurando ahora.",
    "Wait until it is done.": "Espere a que termine.",
    "Somebody has asked for the same just now.": "Alguien acaba de pedir lo mismo.",
    "Look again in a moment.": "Mire de nuevo en un momento.",
    "A restore of clinic {clinic} is running, or waits for its approval.": "Hay una restauración de la clínica "
    "{clinic} en curso o en espera de aprobación.",
    "Wait for it, or reject its plan.": "Espere a que termine o rechace su plan.",
    "This is not the plan that you were shown: a newer one was made, or is being made.": "Este no es el plan que usted "
    "vio: ya se hizo o se está haciendo uno nuevo.",
    "Look at the newest plan.": "Mire el plan más reciente.",
    "Backup {number} is on hold already: {reason}": "El respaldo {number} ya está retenido: {reason}",
    "To add another reason, release it and hold it again for both reasons.": "Para agregar otro "
    "motivo, libérelo primero y reténgalo de nuevo por ambos.",
    "A hold needs a reason.": "Falta el motivo de la retención.",
    "For instance the number of the file.": "Por ejemplo, el número del expediente.",
    "Backup {number} is not on hold.": "El respaldo {number} no está retenido.",
    "Backup {number} is not of clinic {clinic}.": "El respaldo {number} no es de la clínica {clinic}.",
    "Choose a backup of that clinic. If the application shows it there, it reads another catalog.": "Elija un respaldo "
    "de esa clínica. Si la aplicación lo muestra como suyo, lee otro catálogo: avise al operador.",
    "Nothing to do.": "No hay nada que hacer.",
    "This file is downloaded from the store itself.": "Este archivo se descarga directamente del almacén.",
    "Ask the path descargar/ beside this one for the link.": "Pida el enlace en la ruta descargar/, junto a esta.",
    "The archive of {number} is damaged in {store}.": "El archivo del respaldo {number} está dañado en {store}.",
    "Verify the backup.": "Verifique el respaldo.",
    "No store has backup {number}.": "Ningún almacén tiene el respaldo {number}.",
    "Choose another backup.": "Elija otro respaldo.",
    "Backup {number} is {state}.": "El respaldo {number} no se puede usar: {state}.",
    "Choose one that is completed.": "Elija uno que esté completado.",
    "You have started {number} actions in the last hour.": "Usted pidió {number} acciones en la última hora.",
    "Wait, or ask the operator.": "Espere, o hable con el operador.",
    "Notes and reasons are one line of at most {number} letters, digits and signs.": "Las notas y los motivos son una "
    "sola línea de {number} letras, números y signos como máximo.",
    "Shorten it.": "Acorte el texto.",
    "Airflow does not know the DAG {dag}.": "Airflow no conoce el proceso {dag}.",
    "Check that the DAG processor is running, and that there is no import error.": "Avise al operador.",
    "The DAG {dag} is paused.": "El proceso {dag} está en pausa.",
    "The operator unpauses it in Airflow's list.": "El operador lo puede activar en Airflow.",
    "Airflow did not start {dag}: {error}.": "Airflow no pudo iniciar {dag}: {error}.",
    "Look at the DAG in Airflow's web UI.": "Mire el proceso en la página de Airflow.",
    "This restore does not wait for an approval.": "Esta restauración no espera ninguna aprobación.",
    "Look at its state.": "Mire su estado.",
    "You may not approve restores.": "Usted no puede aprobar restauraciones.",
    "CLINIC_BACKUPS_APPROVERS lists the approvers.": "CLINIC_BACKUPS_APPROVERS dice quién puede.",
    "Somebody has already answered.": "Alguien ya respondió.",
    "Look at the restore's state.": "Mire el estado de la restauración.",
    "Airflow's database does not answer.": "La base de datos de Airflow no responde.",
    "Try again in a minute.": "Intente de nuevo en un minuto.",
    "{what} cannot be reached now.": "No se puede conectar ahora: {what}.",
    "Try again in a few seconds.": "Intente de nuevo en unos segundos.",
    "Too many requests wait for the catalog.": "Hay demasiadas solicitudes en espera.",
    "Try again soon.": "Intente de nuevo pronto.",
    "A database did not answer within {number} seconds.": "Una base de datos no respondió en {number} segundos.",
    "Try again in a minute, but check first whether your request was carried out.": "Intente de nuevo en un minuto. Mire antes "
    "si lo que pidió ya se hizo.",
    "The backups' page is not configured correctly.": "La página de respaldos no está bien configurada.",
    "The backups' catalog or store cannot be reached now.": "No se puede conectar ahora con el catálogo o el "
    "almacén de respaldos.",
    "Try again in a minute. The operator finds the cause in the log of Airflow's API server.": "Intente de nuevo en un "
    "minuto. El operador encuentra la causa en el log del servidor de Airflow.",
    "This request does not come from a page of this Airflow.": "Esta solicitud no viene de una página de este Airflow.",
    "Use the page itself; a program sends a bearer token instead of the cookie.": "Use la página misma. Un programa envía "
    "una clave (bearer) en lugar de la cookie.",
    "clinica is missing.": "Falta la clínica (clinica).",
    'Give the clinic\'s id, for instance {{"clinica": 7}}.': 'Indíquela, por ejemplo {{"clinica": 7}}.',
    "The box beside the button was not ticked.": "No se marcó la casilla junto al botón.",
    "Read its text, tick it, and try again.": "Lea lo que dice, márquela e intente de nuevo.",
    "The request's body is too large, or has no length.": "El contenido de la solicitud es demasiado grande, o "
    "no dice su tamaño.",
    "Correct these and send it again.": "Corríjalos y envíe la solicitud de nuevo.",
    "Something went wrong in the server.": "Hubo un error en el servidor.",
    "The log of Airflow's API server has the cause.": "El registro del servidor de Airflow tiene la causa.",
    "Log in to Airflow, or send a bearer token of POST /auth/token.": "Inicie sesión en Airflow, o envíe una clave de "
    "POST /auth/token.",
    "Check the address.": "Revise la dirección.",
    "The API's description, openapi.json, has the methods.": "La descripción de la API, openapi.json, tiene los métodos.",
}
WORDS = {
    "running": "está en proceso", "failed": "falló", "lost": "se perdió", "deleting": "se está borrando",
    "deleted": "se borró", "The backups' catalog": "el catálogo de respaldos",
    "The clinics' database": "la base de datos de las clínicas", "The file": "el archivo", "The run": "la ejecución",
    "The restore": "la restauración", "The approval": "la aprobación",
    "The file in the store": "el archivo en el almacén",
}  # fmt: skip
"""Words for the placeholders."""
NUMBERED = (("Clinic ", "la clínica "), ("Backup ", "el respaldo "))
VALUES = {
    "missing": "falta",
    "extra_forbidden": "es un campo que no existe aquí",
    "int_parsing": "no es un número entero",
    "int_type": "no es un número entero",
    "int_from_float": "no es un número entero",
    "int_parsing_size": "es un número demasiado grande",
    "bool_parsing": "no es verdadero o falso",
    "bool_type": "no es verdadero o falso",
    "string_type": "no es un texto",
    "string_too_long": "tiene más de {max_length} caracteres",
    "string_too_short": "es demasiado corto",
    "string_pattern_mismatch": "no tiene la forma correcta",
    "literal_error": "no es uno de {expected}",
    "greater_than_equal": "es menor que {ge}",
    "less_than_equal": "es mayor que {le}",
    "list_type": "no es una lista",
    "too_long": "tiene más de {max_length} elementos",
    "timezone_aware": "es una fecha sin zona horaria",
    "json_invalid": "no es JSON",
    "model_type": "no es un objeto JSON",
    "model_attributes_type": "no es un objeto JSON",
    "dict_type": "no es un objeto JSON",
}
"""The fault of a value, by the type of pydantic's error."""
UNKNOWN = "El sistema informa en inglés: {english}"


def sentence(english: str) -> str:
    """A message or remedy in Spanish. Messages of other parts of the system are quoted in English."""
    if not english:
        return ""
    for pattern, spanish in _patterns():
        if found := pattern.fullmatch(english):
            return spanish.format(**{name: _word(value) for name, value in found.groupdict().items()})
    return UNKNOWN.format(english=english)


def wrong_value(kind: str, context: Mapping[str, Any]) -> str:
    """The fault of a value, never the value itself."""
    text = VALUES.get(kind) or ("no es una fecha" if kind.startswith(("datetime", "date")) else "no es válido")
    return text.format(**{name: str(value).replace(" or ", " o ") for name, value in context.items()})


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Patterns with fewer placeholders come first, because they are more specific."""
    ordered = sorted(SENTENCES.items(), key=lambda pair: len(re.sub(r"\{\w+\}", "", pair[0])), reverse=True)
    return [(pattern_of(english), spanish) for english, spanish in ordered]


def pattern_of(english: str) -> re.Pattern[str]:
    """A pattern that matches the sentence with any values."""
    pieces = re.split(r"(?<!\{)\{(\w+)\}(?!\})", english)
    literal = [re.escape(piece.replace("{{", "{").replace("}}", "}")) for piece in pieces[::2]]
    places = [f"(?P<{name}>.*?)" for name in pieces[1::2]]
    return re.compile("".join(part for pair in zip(literal, [*places, ""], strict=True) for part in pair), re.DOTALL)


def _word(value: str) -> str:
    for english, spanish in NUMBERED:
        if value.startswith(english):
            return spanish + value.removeprefix(english)
    return WORDS.get(value, value)
