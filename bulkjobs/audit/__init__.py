"""Questions to a run that is over, goes on or was killed: is its account true, and what became of one id?"""

from bulkjobs.audit.auditing import audit_run
from bulkjobs.audit.explaining import Explanation, Fate, explain_id
from bulkjobs.audit.findings import Audit, Difference, Progress

__all__ = ["Audit", "Difference", "Explanation", "Fate", "Progress", "audit_run", "explain_id"]
