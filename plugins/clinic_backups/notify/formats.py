"""Formats figures, dates and times for mails and pages, in one language and time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time, format_timedelta, get_datetime_format, get_timezone_name
from babel.numbers import format_decimal, format_percent

FILTERS = ("number", "percent", "size", "duration", "moment", "short_moment", "day", "ago")


@dataclass(frozen=True)
class Formats:
    """The filters of the templates, in one locale and one time zone.

    Units are SI symbols, the same in all languages.
    """

    locale: Locale
    zone: ZoneInfo

    def number(self, value: float) -> str:
        """``1.234.567`` or ``1,234,567``."""
        return self._decimal(value, "#,##0.##")

    def percent(self, share: float) -> str:
        """``-83 %`` of -0.83."""
        return format_percent(share, locale=self.locale)

    def size(self, count: float) -> str:
        """Bytes in units of a thousand: ``12,3 MB``."""
        for unit in ("B", "kB", "MB", "GB"):
            if round(count, 1) < 1000:
                return f"{self._decimal(count, '#,##0.#')}\u00a0{unit}"
            count /= 1000
        return f"{self._decimal(count, '#,##0.#')}\u00a0TB"

    def duration(self, seconds: float) -> str:
        """``8,4 s``, ``2 min 5 s``, ``1 h 3 min``."""
        if seconds < 10:
            return f"{self._decimal(seconds, '0.#')}\u00a0s"
        whole = round(seconds)
        hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
        parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
        return " ".join(f"{self.number(count)}\u00a0{unit}" for count, unit in parts if count)

    def moment(self, value: str | datetime) -> str:
        """Date, time and zone: ``1 de mayo de 2026, 3:05 (hora de Bolivia)``."""
        local = self._local(value)
        return f"{self._date_time(local, 'long')} ({get_timezone_name(local, locale=self.locale)})"

    def short_moment(self, value: str | datetime) -> str:
        """Date and time for lists: ``1 may 2026, 3:05``."""
        return self._date_time(self._local(value), "medium")

    def day(self, value: str | datetime) -> str:
        """``1 de mayo de 2026``."""
        return format_date(self._local(value).date(), "long", locale=self.locale)

    def weekday(self, value: str | datetime) -> str:
        """``vie, 1 may 2026``: a day in a list."""
        return format_date(
            self._local(value).date(), "E, " + str(self.locale.date_formats["medium"]), locale=self.locale
        )

    def clock(self, value: str | datetime) -> str:
        """The time of the day: ``3:05``."""
        return self._time(self._local(value))

    def ago(self, value: str | datetime, now: str | datetime) -> str:
        """``hace 26 horas``, ``hace 4 días``."""
        passed: timedelta = self._local(value) - self._local(now)
        return format_timedelta(passed, granularity="minute", threshold=3, add_direction=True, locale=self.locale)

    def _local(self, value: str | datetime) -> datetime:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a time without its zone")
        return moment.astimezone(self.zone)

    def _date_time(self, local: datetime, length: Any) -> str:
        glue = str(get_datetime_format("medium", locale=self.locale))
        return glue.replace("{0}", self._time(local)).replace(
            "{1}", format_date(local.date(), length, locale=self.locale)
        )

    def _time(self, local: datetime) -> str:
        # CLDR's times have a narrow space before AM, which many fonts of mail programs lack.
        return format_time(local, "short", tzinfo=self.zone, locale=self.locale).replace("\u202f", "\u00a0")

    def _decimal(self, value: float, pattern: str) -> str:
        return format_decimal(value, format=pattern, locale=self.locale)
