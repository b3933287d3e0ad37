"""Files of a run: for their owner only, and whole or absent."""

import os
import threading

import pytest

from bulkjobs.errors import SourceError
from bulkjobs.rundir import RunDir, default_run_dir, write_all


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def _umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def run_dir(tmp_path):
    return RunDir(tmp_path)


def mode(path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("_umask")
def test_files_are_0600_and_folders_0700_whatever_the_umask(run_dir):
    run_dir.write(run_dir.summary, b"{}")
    run_dir.write(run_dir.refused_ids(7), b"225\n")
    assert (mode(run_dir.summary), mode(run_dir.refused_ids(7)), mode(run_dir.refused)) == (
        0o600,
        0o600,
        0o700,
    )


def test_every_file_has_its_name(tmp_path):
    run = RunDir(str(tmp_path))
    names = [run.jobs, run.invalid, run.held, run.summary, run.spool(2), run.refused_ids(31)]
    assert [str(path.relative_to(tmp_path)) for path in names] == [
        "jobs.jsonl",
        "invalid.jsonl",
        "held.jsonl",
        "summary.json",
        "spool-2.txt",
        "refused/chunk-00000031.txt",
    ]


def test_a_file_is_replaced_whole(run_dir):
    run_dir.write(run_dir.summary, b"a long first content")
    run_dir.write(run_dir.summary, b"short")
    assert run_dir.summary.read_bytes() == b"short"
    assert [path.name for path in run_dir.path.iterdir()] == ["summary.json"]


def test_a_reader_sees_the_old_content_until_the_new_is_whole(run_dir):
    """Whoever has the old file open keeps it: it is never written into."""
    run_dir.write(run_dir.summary, b"old")
    with run_dir.summary.open("rb") as reader:
        run_dir.write(run_dir.summary, b"new")
        assert reader.read() == b"old"


def test_a_full_disk_leaves_the_old_content(run_dir):
    """/dev/full stands for the disk: the temporary file lies on it."""
    run_dir.write(run_dir.summary, b"old")
    run_dir.summary.with_name("summary.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        run_dir.write(run_dir.summary, b"new")
    assert run_dir.summary.read_bytes() == b"old"


def test_what_a_crash_left_half_written_is_no_obstacle(run_dir):
    run_dir.summary.with_name("summary.json.new").write_bytes(b"half of a much longer content")
    run_dir.write(run_dir.summary, b"new")
    assert run_dir.summary.read_bytes() == b"new"


def test_several_threads_may_write_the_first_files_of_a_folder(tmp_path):
    """Workers write the ids of refused chunks at the same moment; none finds the folder made by another in its way."""
    failures = []

    def write(run_dir, chunk, barrier):
        barrier.wait()
        try:
            run_dir.write(run_dir.refused_ids(chunk), b"225\n")
        except OSError as error:
            failures.append(error)

    for trial in range(20):
        (tmp_path / str(trial)).mkdir()
        barrier = threading.Barrier(8)
        threads = [
            threading.Thread(target=write, args=(RunDir(tmp_path / str(trial)), chunk, barrier))
            for chunk in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(list(tmp_path.glob("*/refused/chunk-*.txt"))) == 20 * 8


def test_a_disk_that_takes_a_part_gets_the_rest(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    write_all(descriptor, b"0123456789")
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


@pytest.mark.parametrize("source", ["", "/", ".", "//"])
def test_nothing_is_named_after_what_has_no_name(source):
    """An empty argument, or a folder."""
    with pytest.raises(SourceError, match="names no file"):
        default_run_dir(source)


def test_a_name_that_is_too_long_to_be_a_file_still_names_a_run():
    """Whoever opens the source says what is wrong with it."""
    assert default_run_dir("x" * 300).name == "x" * 300 + ".run"
