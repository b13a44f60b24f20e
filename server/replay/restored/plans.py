"""What the restored entries of a lane will bring, in order."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.database.engine import Database, Transaction
from server.domain.operations import Operation
from server.journal import restored
from server.journal.leases import Lane
from server.replay.restored.slots import Slot, slots_of

_KEPT_PLANS = 256
_ENTRIES_PER_READ = 10_000


@dataclass(slots=True)
class LanePlan:
    """Of a lane's restored entries, the last position that fills each slot, and the last for good."""

    through: int
    last_fill: dict[Slot, int] = field(default_factory=dict)
    last_lasting: tuple[int, Operation] | None = None
    """The last entry of a kind that is never overwritten (points aside)."""

    def add(self, position: int, operation: Operation) -> None:
        """Take in the next entry."""
        slots = slots_of(operation)
        self.last_fill.update(dict.fromkeys(slots, position))
        if not slots:
            self.last_lasting = position, operation

    def is_superseded(self, position: int, operation: Operation) -> bool:
        """Whether later restored entries fill all that this one fills: only the last value counts."""
        slots = slots_of(operation)
        return bool(slots) and all(self.last_fill.get(slot, 0) > position for slot in slots)


class LanePlans:
    """The plans of the lanes that are being read back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._plans: OrderedDict[int, LanePlan] = OrderedDict()

    async def plan_of(self, lane: Lane) -> LanePlan:
        """A lane's plan. Settled entries do not change it."""
        plan = self._plans.get(lane.lane_id)
        if plan is None or plan.through != lane.restored_through:
            plan = await self._read(lane)
            self._plans[lane.lane_id] = plan
        self._plans.move_to_end(lane.lane_id)
        while len(self._plans) > _KEPT_PLANS:
            self._plans.popitem(last=False)
        return plan

    async def _read(self, lane: Lane) -> LanePlan:
        plan = LanePlan(lane.restored_through)
        after = lane.settled_position
        while True:
            entries = await self._read_some(lane.lane_id, after, plan.through)
            for position, operation in entries:
                if operation is not None:
                    plan.add(position, operation)
            if len(entries) < _ENTRIES_PER_READ:
                return plan
            after = entries[-1][0]

    async def _read_some(
        self, lane_id: int, after: int, through: int
    ) -> Sequence[tuple[int, Operation | None]]:
        def read(transaction: Transaction) -> Sequence[tuple[int, Operation | None]]:
            return restored.read_operations(
                transaction, lane_id, after=after, through=through, limit=_ENTRIES_PER_READ
            )

        return await self._database.read(read)
