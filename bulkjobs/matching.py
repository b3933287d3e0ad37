"""Which job of the server's list is whose, and whether a list proves that there is none: decided from values alone.

Rules of this file:

- A job is a chunk's only by the ids in its results, or because it called the chunk's webhook nonce. Somebody else's
  job may have the same size and the same day; adopting it would lose a chunk of ids in silence.
- A job is not a chunk's only by the ids in its results, and only if most of them are not the chunk's: the server may
  give a contact under another id than it was asked for. That ids can be told from results at all is first seen at a
  job of one's own. A size proves nothing against a job: the server may leave out what it does not know.
- Absence takes two listings that show all that they must show. Whatever might be the chunk's job stands against it.
- One job, one chunk. Where more than one fits, a person decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from bulkjobs.model import JobId, JobState

__all__ = [
    "Candidate",
    "HeldChunk",
    "Listing",
    "Look",
    "Looks",
    "Matches",
    "disagreement",
    "distrust",
    "match",
    "proves_absence_at_utc",
]

_PATIENCE_S: Final = 24 * 3_600.0
"""How long a job of unknown owner is waited for: jobs take up to some hours (vendor: "Using the Bulk APIs")."""
_LOOK_AGAIN_S: Final = 60.0
"""Between the first two looks at jobs that are still at work; each wait is twice the one before, up to `settle_s`."""
_MOST_BARREN: Final = 4
_LEAST_LOOKS: Final = 2
_SAMPLE: Final = 32
"""Ids that tell whether a set has half of its ids in another; the chance that all mislead is 1 in 2^32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldChunk:
    """Is a chunk whose outcome is unknown."""

    chunk: int
    digest: str
    body: bytes = field(repr=False)
    size: int
    """How many ids it has."""
    started_utc: float
    """When its attempt began."""
    ended_utc: float
    """When it ended at the latest."""

    @property
    def ids(self) -> frozenset[bytes]:
        """Is made when it is asked for: many chunks may be held."""
        return frozenset(self.body.split(b"\n"))

    def shares(self, ids: frozenset[bytes]) -> int:
        """Counts how many of these are ids of this chunk; a few of many may count as none."""
        # Most jobs are somebody else's: no set of 10,000 is made for them.
        text = b"\n%b\n" % self.body
        if not any(b"\n%b\n" % one in text for one in islice(ids, _SAMPLE)):
            return 0
        return len(ids & self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Is a listed job that is none of those known."""

    job_id: JobId
    state: JobState
    job_type: str
    size: int | None
    """Ids it has processed, by its own account; None when it gives none."""
    ids: frozenset[bytes] | None
    """Those in its results; None when they are not to be had."""
    why_no_ids: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Is the list of jobs as it was read once, from the first page to the last."""

    began_utc: float
    ended_utc: float
    jobs: frozenset[str]


@dataclass(slots=True)
class Matches:
    """Is what can be said of held chunks and candidates."""

    adopted: dict[int, tuple[Candidate, str]] = field(default_factory=dict)
    """By chunk: its job, and how that is known."""
    doubts: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By chunk: what stands against its having no job, in words."""
    unfinished: set[str] = field(default_factory=set)
    """Jobs whose results will tell more."""
    elsewhere: set[str] = field(default_factory=set)
    """Jobs proved to be of none of these chunks."""


def match(
    held: Sequence[HeldChunk],
    candidates: Sequence[Candidate],
    *,
    called: Mapping[str, int],
    exclusive: bool,
) -> Matches:
    """Finds the jobs of held chunks.

    Args:
        held: the chunks.
        candidates: the jobs on the list that are neither known to the run nor older than it.
        called: by job id, the chunk on whose webhook nonce a call about that job came in.
        exclusive: nobody else makes jobs with the account.

    Returns:
        At most one job for a chunk and one chunk for a job.
    """
    matches = Matches()
    fitting: defaultdict[str, list[tuple[Candidate, str]]] = defaultdict(list)
    chunks = {one.chunk: one for one in held}
    unread: list[Candidate] = []
    for candidate in candidates:
        caller = chunks.get(called.get(candidate.job_id, 0))
        if caller is not None and _may_be(candidate, caller):
            fitting[caller.digest].append((candidate, "it called the webhook nonce of the chunk"))
        elif caller is not None:
            matches.doubts[caller.chunk].append(
                f"job {candidate.job_id} called its webhook nonce, but its results hold ids that it does not have"
            )
        elif candidate.ids:
            _place(candidate, held, fitting, matches)
        else:
            unread.append(candidate)
    _pair(held, fitting, matches)
    if exclusive:
        unread = _pair_by_size(held, unread, matches)
    for candidate in unread:
        for one in held:
            matches.doubts[one.chunk].append(
                f"job {candidate.job_id} ({candidate.state.value}) may be its: {candidate.why_no_ids}"
            )
        if not candidate.state.terminal:
            matches.unfinished.add(candidate.job_id)
    return matches


def _may_be(candidate: Candidate, one: HeldChunk) -> bool:
    return not candidate.ids or one.shares(candidate.ids) == len(candidate.ids)


def _place(
    candidate: Candidate,
    held: Sequence[HeldChunk],
    fitting: defaultdict[str, list[tuple[Candidate, str]]],
    matches: Matches,
) -> None:
    """Finds the one body that a job's results fit; a job that fits none is somebody else's."""
    ids, size = candidate.ids, candidate.size or 0
    assert ids is not None
    shares = [(one, one.shares(ids)) for one in held]
    owners = [one for one, shared in shares if shared == len(ids)]
    # A job of more ids than the chunk has others besides, which are not in the results.
    whole = {one.digest: one for one in owners if ids == one.ids and size <= one.size}
    # The fewer there are, the less they tell: a small list of somebody else may be in ours by chance.
    sized = {one.digest: one for one in owners if size == one.size and 2 * len(ids) >= len(one.ids)}
    for kind, how in ((whole, "its results hold exactly these ids"), (sized, _part(ids, size))):
        if len(kind) == 1:
            fitting[next(iter(kind))].append((candidate, how))
            return
    for one, shared in shares:
        if shared == len(ids):
            matches.doubts[one.chunk].append(
                f"job {candidate.job_id} may be its: the results hold {len(ids):,} of its {one.size:,} ids and no "
                f"other, but that and its size of {size:,} are not proof enough"
            )
        elif 2 * shared >= len(ids):
            matches.doubts[one.chunk].append(
                f"job {candidate.job_id} may be its: {shared:,} of the {len(ids):,} ids in the results are its"
            )
    if not any(2 * shared >= len(ids) for _, shared in shares):
        matches.elsewhere.add(candidate.job_id)


def _part(ids: Collection[bytes], size: int) -> str:
    return (
        f"its results hold {len(ids):,} ids of this chunk and no other, and the job is of its size, {size:,}"
    )


def _pair(
    held: Sequence[HeldChunk],
    fitting: Mapping[str, Sequence[tuple[Candidate, str]]],
    matches: Matches,
) -> None:
    """Pairs jobs and chunks of one body. Chunks with the same ids are alike: any pairing of them is right."""
    for digest, jobs in fitting.items():
        chunks = [one.chunk for one in held if one.digest == digest]
        if len(jobs) > len(chunks):
            names = " and ".join(candidate.job_id for candidate, _ in jobs)
            for chunk in chunks:
                matches.doubts[chunk].append(f"the jobs {names} all fit it, and it can have only one")
            continue
        matches.adopted.update(zip(chunks, jobs, strict=False))


def _pair_by_size(
    held: Sequence[HeldChunk], unread: Sequence[Candidate], matches: Matches
) -> list[Candidate]:
    """Pairs the one job and the one chunk of a size; gives the jobs that are left."""
    if any(not candidate.state.terminal for candidate in unread):
        return list(unread)  # what is still at work may turn out to be of this size
    open_chunks = [one for one in held if one.chunk not in matches.adopted]
    left = []
    for candidate in unread:
        chunks = [one.chunk for one in open_chunks if one.size == candidate.size]
        alike = [other for other in unread if other.size == candidate.size]
        if len(chunks) == len(alike) == 1 and chunks[0] not in matches.doubts:
            how = f"nobody else uses the account, and it is the only job of {candidate.size:,} ids that is not known"
            matches.adopted[chunks[0]] = (candidate, how)
        else:
            left.append(candidate)
    return left


def distrust(matches: Matches, held: Collection[HeldChunk], why: str) -> Matches:
    """Takes back that jobs are somebody else's, as long as it is not known that results are read rightly."""
    for job_id in sorted(matches.elsewhere):
        for one in held:
            matches.doubts[one.chunk].append(f"job {job_id} may be its: {why}")
    matches.elsewhere.clear()
    return matches


def disagreement(
    first: Listing, second: Listing, *, known: Mapping[str, float], elsewhere: Collection[str]
) -> str | None:
    """Tells why two listings do not prove anything together, or None if they do.

    Args:
        first: the earlier listing.
        second: the later one.
        known: jobs of the run that both must show, with the time before which each was not made.
        elsewhere: jobs proved to be somebody else's, which may come and go.
    """
    if not known:
        return (
            "no job of this run was accepted by which it could be seen that the list shows jobs of this kind"
        )
    for listing in (first, second):
        if missing := sorted(known.keys() - listing.jobs):
            return f"the list does not show job {missing[0]} of this run, so it proves nothing"
    if vanished := sorted(first.jobs - second.jobs - set(elsewhere)):
        return f"the list does not come to rest: it no longer shows job {vanished[0]}"
    return None


def proves_absence_at_utc(
    held: HeldChunk, first: Listing, *, known: Mapping[str, float], settle_s: float
) -> float:
    """Gives the time from which on a second listing that agrees proves that a chunk has no job, in Unix seconds.

    The first listing shows the newest known job, so the list lags by no more than that job's age then. A job of the
    held chunk, made up to `settle_s` after its attempt ended, shows once it is as old. The age is the greatest it can
    be: from when its request could leave to when the last page had been read.

    Args:
        held: the chunk.
        first: the first listing, not before `settle_s` after the attempt ended.
        known: as for `disagreement`; not empty.
        settle_s: how late a job may be made, and the least time between two listings.
    """
    return first.ended_utc + max(settle_s, held.ended_utc + settle_s - max(known.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Is one reading of the list, and what follows from it."""

    listing: Listing
    known: Mapping[str, float]
    """Jobs of the run that the list must show, with the time before which each was not made."""
    matches: Matches
    elsewhere: frozenset[str]
    """Jobs proved to be somebody else's, now or before."""
    reaches_back_to: tuple[float, int]
    """The list shows a job that was there by then, and its chunk. One that keeps only the newest may lack what is
    older. Chunks go out in order, which decides when the clock does not."""


class Looks:
    """Adds up looks at the list: what they prove, when to look again, and when there is nothing more to learn."""

    def __init__(self, settle_s: float, *, began_utc: float) -> None:
        """Begins without a look.

        Args:
            settle_s: how late a job may be made, and the least time between two listings.
            began_utc: now.
        """
        self._settle_s = settle_s
        self._give_up_utc = began_utc + settle_s + _PATIENCE_S
        self._first: Listing | None = None
        self._last_utc: float | None = None
        self._doubts: dict[int, str] = {}
        self._proof_utc: dict[int, float] = {}
        """When a listing that agrees will prove a chunk's absence."""
        self._looks_at_work = 0
        """Looks in a row that showed jobs at work."""
        self._barren = 0
        """Looks in a row that leave nothing to wait for."""
        self._most_barren = _MOST_BARREN

    def next_utc(self, held: Collection[HeldChunk]) -> tuple[float, str]:
        """Gives when the next look is worth taking, and why not before."""
        if self._last_utc is None:
            return max(one.ended_utc for one in held) + self._settle_s, "a job may still appear"
        if self._looks_at_work:
            again_s = min(self._settle_s, _LOOK_AGAIN_S * 2 ** (self._looks_at_work - 1))
            return self._last_utc + again_s, "a job that may be one of theirs is at work"
        why = "two listings some time apart are the proof that there is no job"
        return min(self._proof_utc.values(), default=self._last_utc + self._settle_s), why

    def failed(self, held: Collection[int], reason: str, at_utc: float) -> None:
        """Takes note of a look at which the list could not be read."""
        self._last_utc = at_utc
        self._doubts = dict.fromkeys(held, reason)
        self._looks_at_work = 0
        self._proof_utc = {}
        self._barren += 1

    def add(self, held: Collection[HeldChunk], look: Look) -> list[int]:
        """Takes a look into account.

        Args:
            held: chunks that this look did not find a job for.
            look: what was seen.

        Returns:
            Those of them that are proved to have no job.
        """
        first = self._first or look.listing
        why = disagreement(first, look.listing, known=look.known, elsewhere=look.elsewhere)
        second = self._first is not None and why is None
        # What was shown in between counts as well: a job that comes and goes must not be forgotten.
        self._first = look.listing if why is not None else replace(first, jobs=first.jobs | look.listing.jobs)
        self._last_utc = look.listing.began_utc
        self._looks_at_work = self._looks_at_work + 1 if look.matches.unfinished else 0
        self._doubts, self._proof_utc, absent = {}, {}, []
        for one in held:
            if (doubts := look.matches.doubts.get(one.chunk)) or why is not None:
                self._doubts[one.chunk] = "; ".join(doubts or [str(why)])
                continue
            if (one.started_utc, one.chunk) <= look.reaches_back_to:
                self._doubts[one.chunk] = (
                    "the list shows no job that was there before it was sent, so it may not reach back so far"
                )
                continue
            proof_utc = proves_absence_at_utc(one, first, known=look.known, settle_s=self._settle_s)
            if second and look.listing.began_utc >= proof_utc:
                absent.append(one.chunk)
            else:
                self._proof_utc[one.chunk] = proof_utc
                self._doubts[one.chunk] = "the proof that there is no job takes another listing, later"
        self._barren = 0 if self._looks_at_work or self._proof_utc else self._barren + 1
        # A list may lag; but what cannot be checked at all does not get better by waiting.
        self._most_barren = _MOST_BARREN if look.known else _LEAST_LOOKS
        return absent

    def over(self, now_utc: float) -> bool:
        """Tells whether there is nothing more to learn by looking again."""
        if now_utc >= self._give_up_utc:
            return True
        return not self._looks_at_work and self._barren >= self._most_barren

    def finding(self, chunk: int) -> str:
        """Gives why a chunk could not be settled, as far as is known."""
        return self._doubts.get(chunk, "the list of jobs was not read: the session ended before")
