"""Names that nobody has. A copy for tests has them in place of people's."""

from __future__ import annotations

GIVEN = (
    "Alba", "Brisa", "Celeste", "Duna", "Estela", "Flora", "Gema", "Harmonía", "Iris", "Jazmín", "Kira", "Luna",
    "Marea", "Nube", "Oliva", "Perla", "Quimera", "Rosa", "Selva", "Tierra", "Umbra", "Violeta", "Xana", "Yedra",
    "Zafira", "Abril", "Bosque", "Ciro", "Delfín", "Elio", "Faro", "Galo", "Hilo", "Ícaro", "Jaspe", "Lirio", "Mirlo",
    "Norte", "Océano", "Pino",
)  # fmt: skip
FAMILY = (
    "Arenal", "Brumas", "Cascada", "Delta", "Estrella", "Farolero", "Glaciar", "Horizonte", "Islote", "Jardines",
    "Laguna", "Manantial", "Neblina", "Olmedo Claro", "Pradera", "Quebrada Honda", "Riachuelo", "Sendero", "Tormenta",
    "Umbral", "Valle Alto", "Yermo", "Zarzal", "Acantilado", "Barranco", "Colina", "Desfiladero", "Ensenada", "Fuente",
    "Golfo", "Hoguera", "Invierno", "Lluvia", "Meseta", "Nevado", "Orilla", "Peñasco", "Relámpago", "Sabana",
    "Torrente",
)  # fmt: skip
