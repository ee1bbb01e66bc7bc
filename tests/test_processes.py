"""What a process says of itself."""

import subprocess
import sys

import pytest

from speechtok.processes import child_environment

HELD = 300 * 2**20
HOLD = f"""
import subprocess, sys
from speechtok.processes import peak_memory
before = peak_memory()
held = bytearray({HELD})
held[::4096] = b"x" * len(held[::4096])
"""


def said(code: str) -> list[int]:
    """Numbers that a process of its own prints."""
    command = [sys.executable, "-c", HOLD + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=child_environment())
    return [int(word) for word in done.stdout.split()]


def test_peak_memory_counts_what_was_held_and_given_back():
    before, after = said("del held\nprint(before, peak_memory())")
    assert 2**20 < before < HELD < after < before + 2 * HELD


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has no better figure")
def test_the_size_of_the_parent_is_not_its_childs():
    code = "code = 'from speechtok.processes import peak_memory; print(peak_memory())'\n"
    (child,) = said(code + "subprocess.run([sys.executable, '-c', code], check=True)")
    assert 2**20 < child < HELD
