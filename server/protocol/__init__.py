"""MLflow's wire messages, limits, paging and search grammar. Knows no transport and no storage."""
