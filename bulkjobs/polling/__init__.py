"""Decides when to ask for which job: from the durations seen so far, and from what the account can spare.

Everything here is a value or arithmetic on values; clock readings are arguments, in seconds on one monotonic axis.
One module a rule: `durations` says when a question after a job is worth its price, `budget` how many questions the
submits leave room for, `pages` when the job list is worth asking; `plan` puts them together.
"""

from __future__ import annotations

from bulkjobs.polling.durations import DURATIONS_KEPT
from bulkjobs.polling.plan import PollPlan, Question

__all__ = ["DURATIONS_KEPT", "PollPlan", "Question"]
