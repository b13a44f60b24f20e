"""What can be switched while the emulator runs; kept on disk, so a restart does not forget it."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from emulator.limits import Limits


@dataclass(frozen=True, slots=True)
class Settings:
    """Each one says what the emulator does. Defaults are the strict reading of the evidence."""

    accepts_aliases: bool = False  # [?] undocumented for this service
    accepts_log_inputs: bool = False  # [C] "preview behind an allow-list" in a Microsoft comment
    history_patch_status: int | None = None  # 404 or 405: refuse to create runs through Run History
    search_lag_seconds: float = 0.0  # how long a new run, experiment or version stays out of searches
    metric_lag_seconds: float = 0.0  # how long a new point stays out of get-history
    async_lag_seconds: float = 0.0  # how long get-run-data-status says "not yet"
    artifact_page_size: int = 500
    token_seconds: float = 3600.0
    read_sas_seconds: float = 8 * 3600.0  # [I] a quoted read SAS lived eight hours
    write_sas_seconds: float = 8 * 3600.0  # [?]
    blob_host_in_path: bool = True  # False: hand out the real form, which needs a tunnel to arrive here
    limits: Limits = field(default_factory=Limits)

    def changed(self, changes: dict[str, Any]) -> Self:
        """These settings with some replaced; raises `KeyError` for a name that is not one."""
        changes = dict(changes)
        limits = self.limits.changed(changes.pop("limits", {}))
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            raise KeyError(", ".join(unknown))
        return replace(self, limits=limits, **changes)

    def as_json(self) -> dict[str, Any]:
        """The settings by name, limits included."""
        return asdict(self)
