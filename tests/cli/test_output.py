"""Files that commands write: as a whole or not at all, where the name says."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import click
import pytest

from proxywasm_host.cli.parameter_types import Output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.xml"
    path.write_text("before")
    path.chmod(0o640)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_who_reads_it_meanwhile_sees_what_it_was(file):
    with file.open() as reader:
        Output(file).write("after")
        assert (reader.read(), file.read_text()) == ("before", "after")


def test_it_keeps_its_mode_and_leaves_nothing_beside_it(file):
    Output(file).write(b"after")
    assert (stat.S_IMODE(file.stat().st_mode), names(file.parent)) == (0o640, ["report.xml"])


def test_a_new_one_has_the_mode_of_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        Output(tmp_path / "new").write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_link_stays_and_what_it_leads_to_is_written(file):
    link = file.with_name("link")
    link.symlink_to(file.name)
    Output(link).write("after")
    assert (link.is_symlink(), file.read_text()) == (True, "after")


def test_what_cannot_be_written_as_a_whole_leaves_the_old(file):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(click.UsageError, match=r"cannot write .*report\.xml: File too large"):
            Output(file).write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (file.read_text(), names(file.parent)) == ("before", ["report.xml"])


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        Output(pipe).write("module")
        assert reader.read() == b"module"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
