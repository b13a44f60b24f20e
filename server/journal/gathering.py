"""When an overflow file waits for company no longer, though it is young.

When another lane can only go on when the file is delivered; and, while everything is to be delivered as fast
as can be, when the run's data lane holds nothing that could still join it.
"""

from server.database.engine import Transaction

_IS_AWAITED = (
    "EXISTS (SELECT 1 FROM barriers JOIN lanes AS waiting ON waiting.lane_id = barriers.lane_id"
    " WHERE barriers.awaited_lane_id = lanes.lane_id AND barriers.position = waiting.settled_position + 1"
    " AND barriers.awaited_position > lanes.settled_position)"
)
_CAN_GROW = (
    "EXISTS (SELECT 1 FROM runs JOIN lanes AS data ON data.lane_id = runs.data_lane_id"
    " WHERE runs.run_pk = lanes.subject_id AND data.settled_position < data.last_position)"
)


def wait_is_over_sql(*, is_flushing: bool) -> str:
    """The condition on an overflow lane, in a query from `lanes`."""
    return f"({_IS_AWAITED} OR NOT {_CAN_GROW})" if is_flushing else _IS_AWAITED


def is_wait_over(transaction: Transaction, lane_id: int, *, is_flushing: bool) -> bool:
    """Whether this overflow lane's file is to be delivered now."""
    condition = wait_is_over_sql(is_flushing=is_flushing)
    return bool(transaction.rows(f"SELECT 1 FROM lanes WHERE lane_id = ? AND {condition}", (lane_id,)))
