"""What lies ahead of a run, decided from values alone: does the quota last, and when is everything sent."""

from bulkjobs.planning.eta import Eta, NoEta, eta
from bulkjobs.planning.forecast import Forecast, Sample, others_allowance, still_undebited_since
from bulkjobs.planning.history import History

__all__ = [
    "Eta",
    "Forecast",
    "History",
    "NoEta",
    "Sample",
    "eta",
    "others_allowance",
    "still_undebited_since",
]
