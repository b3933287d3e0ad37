"""What may go on with a run: the same sources, found to be the same before anything is sent."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from bulkjobs import (
    Client,
    ConfigError,
    Exit,
    LedgerError,
    Rate,
    Secret,
    Settings,
    SourceChanged,
    SourceError,
)
from bulkjobs.testing import FakeTransport, VirtualClock, answered, run_virtual

IDS = list(range(1, 31))


class Server:
    """Accepts every chunk, or gives one answer to all, and remembers what it was sent."""

    def __init__(self, clock, answer):
        self._answer = answer
        self.transport = FakeTransport(lambda r: self._answer or self._accept(r.body), clock=clock)

    @staticmethod
    def _accept(body):
        job = {"jobId": hashlib.sha256(body).hexdigest()[:20], "status": "accepted", "type": "contacts"}
        return answered(200, json.dumps(job).encode())

    @property
    def bodies(self):
        return [request.body for request in self.transport.requests]


def session(run: Path, *sources, server_bodies: list | None = None, answer=None, **changes):
    """Runs one session in a loop of its own and gives its summary."""

    async def main():
        clock = VirtualClock()
        server = Server(clock, answer)
        options = {"access_token": Secret("t"), "chunk_size": 10, "rate": None, "max_active_jobs": None}
        options |= {"on_unknown": "hold", "forecast": False}
        settings = Settings(**(options | changes))
        try:
            return await Client(settings, run=run, transport=server.transport, clock=clock).run(*sources)
        finally:
            if server_bodies is not None:
                server_bodies.extend(server.bodies)

    return run_virtual(main())


def write(path: Path, ids) -> Path:
    path.write_text("\n".join(map(str, ids)))
    return path


def test_the_same_ids_again_send_nothing_and_exit_as_before(tmp_path):
    sent: list[bytes] = []
    for _ in range(2):
        assert session(tmp_path / "run", IDS, server_bodies=sent).exit_code == Exit.ACCEPTED
    assert len(sent) == 3


@pytest.mark.parametrize(
    "other", [[5, 6, 7], IDS[:-1], [*IDS, 31], []], ids=["other", "fewer", "more", "none"]
)
def test_other_ids_for_a_finished_run_are_refused_instead_of_dropped(tmp_path, other):
    """An iterable has no name that would tell it from another; only its ids do."""
    session(tmp_path / "run", IDS)
    sent: list[bytes] = []
    with pytest.raises(SourceChanged, match="--run"):
        session(tmp_path / "run", other, server_bodies=sent)
    assert sent == []


def test_a_changed_file_for_a_finished_run_is_refused_with_the_chunk_named(tmp_path):
    source = write(tmp_path / "ids.txt", IDS)
    session(tmp_path / "run", source)
    write(source, [*IDS[:15], 99, *IDS[16:]])
    with pytest.raises(SourceChanged, match="chunk 2"):
        session(tmp_path / "run", source)


def test_a_file_that_only_got_another_time_is_found_to_be_the_same(tmp_path):
    source = write(tmp_path / "ids.txt", IDS)
    before = session(tmp_path / "run", source)
    write(source, IDS)
    assert session(tmp_path / "run", source).ids == before.ids


def test_a_finished_run_is_resumed_without_its_source(tmp_path):
    source = write(tmp_path / "ids.txt", IDS)
    session(tmp_path / "run", source)
    source.unlink()
    assert session(tmp_path / "run").exit_code == Exit.ACCEPTED


def test_other_sources_are_refused_by_name(tmp_path):
    session(tmp_path / "run", write(tmp_path / "a.txt", IDS))
    with pytest.raises(ConfigError, match=r"a\.txt.*b\.txt"):
        session(tmp_path / "run", write(tmp_path / "b.txt", IDS))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chunk_size": 5}, "chunk size"),
        ({"dedupe": False}, "dedupe"),
        ({"base_url": "https://x.example"}, "base url"),
    ],
)
def test_a_run_keeps_what_decides_its_chunks(tmp_path, change, named):
    session(tmp_path / "run", IDS)
    with pytest.raises(ConfigError, match=named):
        session(tmp_path / "run", IDS, **change)


def test_limits_may_change_between_sessions(tmp_path):
    session(tmp_path / "run", IDS)
    assert (
        session(tmp_path / "run", IDS, rate=Rate(count=5, period_s=60), workers=1).exit_code == Exit.ACCEPTED
    )


def test_there_must_be_something_to_resume(tmp_path):
    """A folder that is no run directory gets no ledger by accident."""
    with pytest.raises(ConfigError, match="no run"):
        session(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_file_that_is_gone_while_work_is_left_is_named(tmp_path):
    source = write(tmp_path / "ids.txt", IDS)
    stopped = session(tmp_path / "run", source, answer=answered(404))
    assert stopped.exit_code == Exit.STOPPED
    source.unlink()
    with pytest.raises(SourceError, match=r"ids\.txt.*Resume from the folder"):
        session(tmp_path / "run")


def test_a_source_that_broke_off_is_mended_and_goes_on(tmp_path):
    """The chunks planned before the break are not sent again; what stands behind them is."""
    whole = gzip.compress(b"\n".join(b"%d" % n for n in range(1, 100_001)))
    source = tmp_path / "ids.txt.gz"
    source.write_bytes(whole[: len(whole) // 2])
    sent: list[bytes] = []
    broken = session(tmp_path / "run", source, server_bodies=sent)
    assert (broken.exit_code, broken.ids["pending"]) == (Exit.USAGE, 0)
    assert 0 < broken.ids["accepted"] < 100_000

    source.write_bytes(whole)
    mended = session(tmp_path / "run", source, server_bodies=sent)
    assert (mended.exit_code, mended.ids["accepted"]) == (Exit.ACCEPTED, 100_000)
    assert b"\n".join(sent).count(b"\n") == 99_999


def test_a_source_mended_to_something_else_is_refused(tmp_path):
    whole = gzip.compress(b"\n".join(b"%d" % n for n in range(1, 100_001)))
    source = tmp_path / "ids.txt.gz"
    source.write_bytes(whole[: len(whole) // 2])
    session(tmp_path / "run", source)
    source.write_bytes(gzip.compress(b"\n".join(b"%d" % n for n in range(2, 100_001))))
    sent: list[bytes] = []
    assert session(tmp_path / "run", source, server_bodies=sent).exit_code == Exit.USAGE
    assert sent == []


def test_without_credentials_no_folder_is_made(tmp_path):
    with pytest.raises(ConfigError, match="no credentials"):
        session(tmp_path / "run", IDS, access_token=None)
    assert not (tmp_path / "run").exists()


def ledger_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.name.startswith("ledger.db")}


def test_a_ledger_that_is_gone_does_not_begin_the_run_anew(tmp_path):
    """What was accepted stands in `jobs.jsonl`; to begin anew would pay for it again."""
    run = tmp_path / "run"
    session(run, IDS)
    for name in ledger_files(run):
        (run / name).unlink()
    sent: list[bytes] = []
    with pytest.raises(LedgerError, match="pay for the same ids"):
        session(run, IDS, server_bodies=sent)
    assert sent == []


def test_an_older_ledger_is_noticed_by_the_records_it_does_not_know(tmp_path):
    run, source = tmp_path / "run", write(tmp_path / "ids.txt", IDS)
    session(run, source, answer=answered(404))
    older = ledger_files(run)
    session(run, source)
    records = (run / "jobs.jsonl").read_bytes()
    for name in ledger_files(run):
        (run / name).unlink()
    for name, content in older.items():
        (run / name).write_bytes(content)
    (run / "ledger.stamp").unlink()  # which tells as well; here it came from elsewhere without one
    sent: list[bytes] = []
    summary = session(run, source, server_bodies=sent)
    assert (summary.exit_code, sent) == (Exit.STORAGE, [])
    assert (run / "jobs.jsonl").read_bytes() == records


@pytest.mark.parametrize("name", ["held.jsonl", "invalid.jsonl", "other.jsonl"])
def test_a_sink_is_no_other_file_of_the_run_directory(tmp_path, name):
    with pytest.raises(ConfigError, match="lies in the run directory"):
        session(tmp_path / "run", IDS, sinks=(str(tmp_path / "run" / name),))


def test_a_sink_is_no_source(tmp_path):
    source = write(tmp_path / "ids.jsonl", IDS)
    with pytest.raises(ConfigError, match="is a source as well"):
        session(tmp_path / "run", source, sinks=(str(source),))
    assert source.read_text().split() == [str(n) for n in IDS]


def test_the_default_file_of_job_records_has_one_name_however_it_is_given(tmp_path):
    """Named by the option in one session and by default in the next, it still has one line for each chunk."""
    run = tmp_path / "run"
    session(run, write(tmp_path / "ids.txt", IDS), answer=answered(404))
    session(run, tmp_path / "ids.txt", sinks=(str(tmp_path / "x" / ".." / "run" / "jobs.jsonl"),))
    lines = (run / "jobs.jsonl").read_text().splitlines()
    assert [json.loads(line)["chunk"] for line in lines] == [1, 2, 3]


def test_two_runs_may_share_a_sink_one_after_the_other(tmp_path):
    """A run that goes on does not cut off what another one wrote meanwhile."""
    sink = tmp_path / "all.jsonl"
    a, b = write(tmp_path / "a.txt", IDS), write(tmp_path / "b.txt", range(100, 120))
    session(tmp_path / "a", a, sinks=(str(sink),), answer=answered(404))
    session(tmp_path / "b", b, sinks=(str(sink),))
    assert session(tmp_path / "a", a, sinks=(str(sink),)).exit_code == Exit.STORAGE
    assert len(sink.read_text().splitlines()) == 2


def test_a_touched_file_of_an_unfinished_run_says_how_it_was(tmp_path):
    """Nobody can tell whether what was not read yet is the same, so the message says what to put back."""
    source = write(tmp_path / "ids.txt", range(1, 1_001))
    stopped = session(tmp_path / "run", source, answer=answered(404), workers=1)
    assert stopped.ids["read"] < 1_000
    before = source.stat()
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    with pytest.raises(SourceChanged, match=rf"touch -d.*{before.st_size:,} bytes, last changed 2.*Z"):
        session(tmp_path / "run", source)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert session(tmp_path / "run", source).exit_code == Exit.ACCEPTED


def test_lines_added_behind_the_last_full_chunk_are_noticed(tmp_path):
    """They make no chunk, and a finished run would pass over them without a word."""
    source = write(tmp_path / "ids.txt", IDS)
    session(tmp_path / "run", source)
    with source.open("a") as file:
        file.write("\nabc\n1\n")
    with pytest.raises(SourceChanged, match="now 1 and 1"):
        session(tmp_path / "run", source)


def test_a_ledger_that_is_gone_is_noticed_although_the_records_go_elsewhere(tmp_path):
    run = tmp_path / "run"
    session(run, IDS, sinks=(str(tmp_path / "all.jsonl"),))
    for path in (*map(run.joinpath, ledger_files(run)), run / "summary.json"):
        path.unlink()
    with pytest.raises(LedgerError, match="pay for the same ids"):
        session(run, IDS, sinks=(str(tmp_path / "all.jsonl"),))


def test_a_ledger_that_never_knew_its_own_file_of_records_does_not_go_on_behind_it(tmp_path):
    """Lines in `jobs.jsonl` that the ledger has forgotten are chunks that would be paid for again."""
    run = tmp_path / "run"
    session(run, IDS, answer=answered(404), sinks=(str(tmp_path / "all.jsonl"),))
    (run / "jobs.jsonl").write_text('{"chunk":1}\n')
    sent: list[bytes] = []
    assert session(run, IDS, server_bodies=sent).exit_code == Exit.STORAGE
    assert sent == []


def test_a_sink_is_no_second_name_of_a_source(tmp_path):
    source = write(tmp_path / "ids.jsonl", IDS)
    (tmp_path / "hard.jsonl").hardlink_to(source)
    with pytest.raises(ConfigError, match="is a source as well"):
        session(tmp_path / "run", source, sinks=(str(tmp_path / "hard.jsonl"),))


def test_one_job_id_for_every_chunk_pauses_like_any_unknown_outcome(tmp_path):
    """A cache in between that repeats one answer must not turn a whole run into held chunks."""
    job = json.dumps({"jobId": "always-the-same", "status": "accepted", "type": "contacts"}).encode()
    summary = session(tmp_path / "run", range(1, 61), answer=answered(200, job), chunk_size=10, workers=1)
    assert (summary.chunks["accepted"], summary.chunks["held"]) == (1, 5)
    assert summary.exit_code == Exit.HELD
