"""Searches: comparisons and orders in, ids in result order out. The database does all of the work."""

from server.store.search.experiments import find_experiments as find_experiments
from server.store.search.logged_models import find_logged_models as find_logged_models
from server.store.search.registry import find_model_versions as find_model_versions
from server.store.search.registry import find_registered_models as find_registered_models
from server.store.search.runs import find_runs as find_runs
