"""Which lifecycle stages a view shows."""

from server.domain.entities import LifecycleStage, ViewType

STAGES = {
    ViewType.ACTIVE_ONLY: (LifecycleStage.ACTIVE.value,),
    ViewType.DELETED_ONLY: (LifecycleStage.DELETED.value,),
    ViewType.ALL: (LifecycleStage.ACTIVE.value, LifecycleStage.DELETED.value),
}
