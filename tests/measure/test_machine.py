"""The processor by what Linux says of it: files of an x86 machine, a Raspberry Pi and a phone, and this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgeprune.measure import machine
from edgeprune.measure.machine import Machine, this_machine

LAPTOP = """\
processor\t: 0
model name\t: 12th Gen  Intel(R) Core(TM) i7-1260P
cpu MHz\t\t: 2500.000
flags\t\t: fpu sse sse4_1 avx fma avx2 avx_vnni
bugs\t\t:

processor\t: 1
model name\t: another
cpu MHz\t\t: 400.000
"""
BOARD = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 asimddp\n\nSerial : 1\n"
PHONE = "processor\t: 0\nFeatures\t: half neon vfpv4\n\nHardware\t: Qualcomm Technologies, Inc SM8250\n"


@pytest.fixture
def described(tmp_path, monkeypatch):
    """A function that describes a machine from what its files say."""

    def describe(cpuinfo, kilohertz=None, board=None):
        for name, text in (("_CPUINFO", cpuinfo), ("_LARGEST_KILOHERTZ", kilohertz), ("_BOARD", board)):
            path = tmp_path / name
            if text is not None:
                path.write_text(text)
            monkeypatch.setattr(machine, name, path)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
        return this_machine.__wrapped__()

    return describe


def test_x86(described):
    found = described(LAPTOP)
    assert (found.cpu, found.gigahertz) == ("12th Gen Intel(R) Core(TM) i7-1260P", 2.5)
    assert found.simd == ("AVX", "AVX2", "AVX-VNNI") and found.runtime.startswith("LiteRT ")
    line = "12th Gen Intel(R) Core(TM) i7-1260P, 2 cores at 4.70 GHz\nwith AVX, AVX2, AVX-VNNI"
    assert str(described(LAPTOP, "4700000\n")) == line


def test_arm(described):
    pi = described(BOARD, "2400000\n", "Raspberry Pi 5 Model B Rev 1.0\0")
    assert str(pi) == "Raspberry Pi 5 Model B Rev 1.0, 2 cores at 2.40 GHz\nwith NEON, dot product"
    assert str(described(PHONE, "no number")) == "Qualcomm Technologies, Inc SM8250, 2 cores\nwith NEON"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="lscpu is a program of Linux")
def test_this_machine_is_the_one_the_system_names():
    found = this_machine()
    assert found.cores == len(os.sched_getaffinity(0))
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    assert " ".join(found.cpu.split()) in " ".join(lscpu.split())


def test_one_core():
    assert str(Machine("Cortex-A53", 1, None, (), "LiteRT 2.3.0")) == "Cortex-A53, 1 core"
