"""Assessments of traces."""

import json
from collections.abc import Sequence
from typing import Any

from server.database.engine import Transaction
from server.protocol.assessments import Assessment, AssessmentKind

_COLUMNS = (
    "assessment_id, name, kind, value, error, created_at_ms, last_updated_ms, source_type, source_id,"
    " run_id, span_id, rationale, overrides, is_valid, metadata"
)


def list_of_traces(transaction: Transaction, trace_pks: Sequence[int]) -> dict[int, list[Assessment]]:
    """The assessments of these traces, in the order they came."""
    rows = transaction.rows_in(
        f"SELECT trace_pk, assessment_pk, {_COLUMNS} FROM assessments WHERE trace_pk", trace_pks
    )
    found: dict[int, list[Assessment]] = {}
    for trace_pk, _, *columns in sorted(rows, key=lambda row: row[1]):
        found.setdefault(trace_pk, []).append(_assessment(columns))
    return found


def find(transaction: Transaction, trace_pk: int, assessment_id: str) -> Assessment | None:
    """One assessment of a trace."""
    rows = transaction.rows(
        f"SELECT {_COLUMNS} FROM assessments WHERE trace_pk = ? AND assessment_id = ?",
        (trace_pk, assessment_id),
    )
    return _assessment(rows[0]) if rows else None


def find_trace_pk(transaction: Transaction, assessment_id: str) -> int | None:
    """The trace that an assessment id is taken by."""
    rows = transaction.rows("SELECT trace_pk FROM assessments WHERE assessment_id = ?", (assessment_id,))
    return rows[0][0] if rows else None


def _assessment(columns: Sequence[Any]) -> Assessment:
    (
        assessment_id,
        name,
        kind,
        value,
        error,
        created,
        updated,
        source_type,
        source_id,
        run_id,
        span_id,
        rationale,
        overrides,
        is_valid,
        metadata,
    ) = columns
    return Assessment(
        assessment_id,
        name,
        AssessmentKind(kind),
        json.loads(value),
        json.loads(error) if error else None,
        created,
        updated,
        source_type,
        source_id,
        run_id,
        span_id,
        rationale,
        overrides,
        bool(is_valid),
        json.loads(metadata) if metadata else {},
    )


def put(transaction: Transaction, trace_pk: int, assessment: Assessment, principal: str | None) -> None:
    """Store an assessment, over the one that has its id."""
    if assessment.run_id:
        transaction.named.add(assessment.run_id)
    number, is_number = assessment.number
    names = f"trace_pk, {_COLUMNS}, number, is_number, principal"
    marks = ", ".join("?" * len(names.split(",")))
    changes = ", ".join(
        f"{name} = excluded.{name}" for name in (column.strip() for column in names.split(","))
    )
    transaction.run(
        f"INSERT INTO assessments ({names}) VALUES ({marks})"
        f" ON CONFLICT (assessment_id) DO UPDATE SET {changes}",
        (
            trace_pk,
            assessment.assessment_id,
            assessment.name,
            assessment.kind.value,
            json.dumps(assessment.value),
            json.dumps(assessment.error) if assessment.error else None,
            assessment.created_at_ms,
            assessment.last_updated_ms,
            assessment.source_type,
            assessment.source_id,
            assessment.run_id,
            assessment.span_id,
            assessment.rationale,
            assessment.overrides,
            int(assessment.is_valid),
            json.dumps(assessment.metadata) if assessment.metadata else None,
            number,
            int(is_number),
            principal,
        ),
    )


def set_validity(transaction: Transaction, trace_pk: int, assessment_id: str, *, is_valid: bool) -> bool:
    """Mark an assessment as overridden, or as good again; whether it exists."""
    return (
        transaction.run(
            "UPDATE assessments SET is_valid = ? WHERE trace_pk = ? AND assessment_id = ?",
            (int(is_valid), trace_pk, assessment_id),
        )
        > 0
    )


def delete(transaction: Transaction, trace_pk: int, assessment_id: str) -> None:
    """Delete an assessment."""
    transaction.run(
        "DELETE FROM assessments WHERE trace_pk = ? AND assessment_id = ?", (trace_pk, assessment_id)
    )
