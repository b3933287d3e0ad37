"""What lies ahead of a run, decided from values alone: does the quota last, and when is the run over."""

from bulkjobs.planning.forecast import Forecast, Sample, others_allowance, still_undebited_since

__all__ = ["Forecast", "Sample", "others_allowance", "still_undebited_since"]
