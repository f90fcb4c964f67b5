"""The operator's desk for data sets, runs and results."""

from evaluations.admin.cases import CaseAdmin
from evaluations.admin.datasets import DatasetAdmin
from evaluations.admin.results import ResultAdmin
from evaluations.admin.runs import RunAdmin

__all__ = ["CaseAdmin", "DatasetAdmin", "ResultAdmin", "RunAdmin"]
