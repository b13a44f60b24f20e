"""MLflow's search grammar: filter and order texts in, comparisons and orders out.

Nothing here knows of a database. Every refusal is an `MlflowError` with `INVALID_PARAMETER_VALUE`,
whatever the text; the work is bounded by the limits in `lexing`, `clauses` and `ordering`.
"""

from server.protocol.search.experiments import parse_experiment_filter as parse_experiment_filter
from server.protocol.search.experiments import parse_experiment_order as parse_experiment_order
from server.protocol.search.logged_models import LoggedModelOrderBy as LoggedModelOrderBy
from server.protocol.search.logged_models import parse_logged_model_datasets as parse_logged_model_datasets
from server.protocol.search.logged_models import parse_logged_model_filter as parse_logged_model_filter
from server.protocol.search.logged_models import parse_logged_model_order as parse_logged_model_order
from server.protocol.search.registry import parse_model_version_filter as parse_model_version_filter
from server.protocol.search.registry import parse_model_version_order as parse_model_version_order
from server.protocol.search.registry import parse_registered_model_filter as parse_registered_model_filter
from server.protocol.search.registry import parse_registered_model_order as parse_registered_model_order
from server.protocol.search.runs import parse_run_filter as parse_run_filter
from server.protocol.search.runs import parse_run_order as parse_run_order
from server.protocol.search.terms import Comparison as Comparison
from server.protocol.search.terms import DatasetFilter as DatasetFilter
from server.protocol.search.terms import Entity as Entity
from server.protocol.search.terms import Operator as Operator
from server.protocol.search.terms import Order as Order
