"""Assessments: feedback on traces, expectations, links to issues. All of it stays here."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from uuid import uuid4

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.errors import MlflowError, does_not_exist, invalid_parameter
from server.protocol import assessments as messages
from server.protocol.assessments import Assessment, AssessmentChange, AssessmentKind, AssessmentMessage
from server.store import assessments, traces

_UPDATE_KINDS = {AssessmentKind.FEEDBACK: "feedback", AssessmentKind.EXPECTATION: "expectation"}


class Assessments:
    """What can be done with assessments."""

    def __init__(self, *, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def create(
        self, trace_id: str, request: messages.CreateAssessmentRequest, principal: str | None
    ) -> AssessmentMessage:
        """Add an assessment to a trace. The one it overrides counts no longer."""
        assessment = messages.parse_assessment(request.assessment)
        work = Work(partial(_create, trace_id=trace_id, assessment=assessment, principal=principal))
        return messages.assessment_message(await self._writer.commit(work), trace_id)

    async def get(self, trace_id: str, assessment_id: str) -> AssessmentMessage:
        """One assessment."""
        found = await self._database.read(lambda transaction: _get(transaction, trace_id, assessment_id)[1])
        return messages.assessment_message(found, trace_id)

    async def update(
        self,
        trace_id: str,
        assessment_id: str,
        request: messages.UpdateAssessmentRequest,
        principal: str | None,
    ) -> AssessmentMessage:
        """Change what the request names; metadata is added to what there is."""
        change = messages.parse_update(request)

        def apply(transaction: Transaction) -> Assessment:
            trace_pk, found = _get(transaction, trace_id, assessment_id)
            changed = replace(_changed(found, change), last_updated_ms=transaction.now_ms)
            assessments.put(transaction, trace_pk, changed, principal)
            return changed

        return messages.assessment_message(await self._writer.commit(Work(apply)), trace_id)

    async def delete(self, trace_id: str, assessment_id: str) -> None:
        """Delete an assessment; the one it had overridden counts again. What is not there is deleted."""

        def apply(transaction: Transaction) -> None:
            trace = traces.find(transaction, trace_id)
            found = None if trace is None else assessments.find(transaction, trace.trace_pk, assessment_id)
            if trace is None or found is None:
                return
            if found.overrides:
                assessments.set_validity(transaction, trace.trace_pk, found.overrides, is_valid=True)
            assessments.delete(transaction, trace.trace_pk, assessment_id)

        await self._writer.commit(Work(apply))


def add_assessments(
    transaction: Transaction, trace_pk: int, given: Sequence[Assessment], principal: str | None
) -> None:
    """Store what came with a trace, over those of the trace that have the same ids."""
    for assessment in given:
        assessment_id = assessment.assessment_id
        if assessment_id is not None:
            taken_by = assessments.find_trace_pk(transaction, assessment_id)
            if taken_by not in (None, trace_pk):
                raise _is_taken(assessment_id)
        assessments.put(transaction, trace_pk, _completed(assessment, transaction.now_ms), principal)


def _create(
    transaction: Transaction, *, trace_id: str, assessment: Assessment, principal: str | None
) -> Assessment:
    trace = traces.find(transaction, trace_id)
    if trace is None:
        raise does_not_exist(f"Trace with ID '{trace_id}' not found.")
    if assessment.assessment_id and assessments.find_trace_pk(transaction, assessment.assessment_id):
        raise _is_taken(assessment.assessment_id)
    if assessment.overrides and not assessments.set_validity(
        transaction, trace.trace_pk, assessment.overrides, is_valid=False
    ):
        raise _not_found(trace_id, assessment.overrides)
    completed = _completed(assessment, transaction.now_ms)
    assessments.put(transaction, trace.trace_pk, completed, principal)
    return completed


def _completed(assessment: Assessment, now_ms: int) -> Assessment:
    return replace(
        assessment,
        assessment_id=assessment.assessment_id or f"a-{uuid4().hex}",
        created_at_ms=assessment.created_at_ms or now_ms,
        last_updated_ms=assessment.last_updated_ms or now_ms,
    )


def _get(transaction: Transaction, trace_id: str, assessment_id: str) -> tuple[int, Assessment]:
    trace = traces.find(transaction, trace_id)
    if trace is None:
        raise does_not_exist(f"Trace with request_id '{trace_id}' not found")
    found = assessments.find(transaction, trace.trace_pk, assessment_id)
    if found is None:
        raise _not_found(trace_id, assessment_id)
    return trace.trace_pk, found


def _changed(found: Assessment, change: AssessmentChange) -> Assessment:
    if change.kind is not None and change.kind is not found.kind:
        article = "an" if found.kind is not AssessmentKind.FEEDBACK else "a"
        raise invalid_parameter(
            f"Cannot update {_UPDATE_KINDS[change.kind]} value on {article} {found.kind.title()} assessment."
        )
    if change.kind is not None:
        found = replace(found, value=change.value, error=change.error)
    return replace(
        found,
        name=found.name if change.name is None else change.name,
        rationale=found.rationale if change.rationale is None else change.rationale,
        metadata={**found.metadata, **(change.metadata or {})},
    )


def _not_found(trace_id: str, assessment_id: str) -> MlflowError:
    return does_not_exist(f"Assessment with ID '{assessment_id}' not found for trace '{trace_id}'")


def _is_taken(assessment_id: str) -> MlflowError:
    return invalid_parameter(f"An assessment with ID '{assessment_id}' exists already.")
