"""A tracking proxy between MLflow clients and an Azure Machine Learning workspace."""

__version__ = "0.1.0"
