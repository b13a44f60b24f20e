"""What the service refuses, as data.

Every limit can be changed while the emulator runs, so that a test can make one small or lift it.
Sources: [D] Microsoft's `resource-limits-capacity`, [I] an issue that quotes the live service,
[mlflow] a cap of the MLflow client itself, [?] ours, for want of a better figure.
"""

from dataclasses import asdict, dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits; zero forbids."""

    batch_entries: int = 1000  # [mlflow] metrics, params and tags of one log-batch
    batch_params: int = 100  # [mlflow]
    batch_tags: int = 100  # [mlflow]
    batch_rows_per_metric: int = 250  # [I][D] MetricV2Dto.Value/Count
    metric_names_per_run: int = 50  # [D]
    metric_rows_per_name: int = 1_000_000  # [D]
    metric_name_chars: int = 255  # [D]
    params_per_run: int = 200  # [I]
    param_key_chars: int = 250  # [?]
    param_value_chars: int = 6000  # [?]
    tags_per_run: int = 50  # [D]
    tag_key_chars: int = 100  # [D]
    tag_value_chars: int = 1000  # [D]
    properties_per_run: int = 50  # [D]
    experiment_name_chars: int = 256  # [D]
    run_id_chars: int = 256  # [D]
    display_name_chars: int = 256  # [D]
    description_chars: int = 5000  # [D]
    artifact_path_chars: int = 5000  # [D]
    artifact_batch_paths: int = 100  # [I]
    history_max_results: int = 1000  # [I] get-history wants less than this
    search_page_size: int = 1000  # [?] a longer page is cut and a token given
    model_name_chars: int = 255  # [?]

    def changed(self, changes: dict[str, int]) -> "Limits":
        """These limits with some replaced; raises `KeyError` for a name that is not one."""
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            raise KeyError(", ".join(unknown))
        return replace(self, **{name: int(value) for name, value in changes.items()})

    def as_json(self) -> dict[str, int]:
        """The limits by name."""
        return asdict(self)
