"""The section `decision_log`: what is written of decisions, and where to."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_serializer, model_validator

from extauthz.config.values import NonEmpty, Section, WrittenAs
from extauthz.config.wording import nearest
from extauthz.core.model import Reason
from extauthz.telemetry.decision_record import RecordField

STDOUT = "stdout"
MAX_CAPACITY = 1_000_000

_REASONS = {reason.value: reason for reason in Reason}
_FIELDS = {field.value: field for field in RecordField}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_PLACES = "write stdout, {file: PATH} or {socket: PATH}"


def _place(value: object) -> object:
    if value == STDOUT:
        return {}
    if isinstance(value, dict) and value:
        return value
    raise ValueError(f"{value!r}: {_PLACES}" if isinstance(value, str) else _PLACES)


def _reason(name: object) -> Reason:
    reason = _REASONS.get(name) if isinstance(name, str) else None
    if reason is None:
        raise ValueError(f"{name!r} is no reason" + (nearest(str(name), _REASONS) or ": docs/reference.md lists them"))
    return reason


def _record_field(name: object) -> RecordField:
    field = _FIELDS.get(name) if isinstance(name, str) else None
    if field is None:
        raise ValueError(f"{name!r} is no field" + (nearest(str(name), _FIELDS) or ": docs/decision-log.md lists them"))
    return field


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("write a share from 0 to 1, like 0.01")
    if not 0 <= value <= 1:
        raise ValueError(f"{value:g} is no share: write one from 0 to 1, like 0.01")
    return float(value)


class Place(Section):
    """Where lines go: a file, a unix socket, or standard output."""

    file: NonEmpty | None = None
    socket: NonEmpty | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Place:
        if self.file is not None and self.socket is not None:
            raise ValueError(f"names two places: {_PLACES}")
        return self

    @model_serializer
    def _yaml_value(self) -> str | dict[str, str]:
        places = {"file": self.file, "socket": self.socket}
        return {kind: path for kind, path in places.items() if path is not None} or STDOUT


class DecisionLogSection(Section):
    """One line of JSON per decision."""

    enabled: bool = True
    to: Annotated[Place, BeforeValidator(_place), WrittenAs({"const": STDOUT})] = Place()
    path: bool = True
    fields: list[Annotated[RecordField, BeforeValidator(_record_field)]] | None = Field(
        default=None, min_length=1, examples=["fields: [time, decision, reason, decision_id]"]
    )
    sample: dict[
        Annotated[Reason, BeforeValidator(_reason)], Annotated[float, BeforeValidator(_share), WrittenAs(SHARE, only=True)]
    ] = Field(default_factory=dict, examples=["sample: {allowed: 0.01}"])
    capacity: int = Field(default=10_000, ge=1)

    @field_validator("fields")
    @classmethod
    def _without_path(cls, fields: list[RecordField] | None, info: ValidationInfo) -> list[RecordField] | None:
        if fields and RecordField.PATH in fields and info.data.get("path") is False:
            raise ValueError("names path, which `path: false` leaves out: write one of the two")
        return fields

    @field_validator("capacity")
    @classmethod
    def _bounded_capacity(cls, capacity: int) -> int:
        if capacity > MAX_CAPACITY:
            raise ValueError(f"is too large: write at most {MAX_CAPACITY}")
        return capacity

    @property
    def written_fields(self) -> frozenset[RecordField]:
        """The fields of a line."""
        return frozenset(self.fields or RecordField) - (frozenset() if self.path else {RecordField.PATH})
