"""A filter of system calls that a process puts on itself and cannot take off: no further process, socket or tracing.

The sandbox's own program applies it before it imports submitted code. Threads are allowed, since torch computes in
them. Calls outside the list are left to the sandbox around it, which has neither network nor anything to write to.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

# Classic BPF and seccomp, from the kernel's headers linux/filter.h, linux/seccomp.h and linux/audit.h.
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_CLONE_THREAD = 0x10000
_X32 = 0x40000000  # 64-bit kernels also answer to calls of this older numbering

# Architecture: its audit number, `clone`, `clone3`, and what is refused: fork, vfork, execve, execveat, socket,
# socketpair, ptrace, process_vm_readv, process_vm_writev, mount, unshare, setns, memfd_create, shmget, bpf,
# perf_event_open, io_uring_setup, userfaultfd, keyctl, add_key, pidfd_getfd, pidfd_open.
_TABLES = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        (57, 58, 59, 322, 41, 53, 101, 310, 311, 165, 272, 308, 319, 29, 321, 298, 425, 323, 250, 248, 438, 434),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        (221, 281, 198, 199, 117, 270, 271, 40, 97, 268, 279, 194, 280, 241, 425, 282, 219, 217, 438, 434),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def program(machine: str) -> bytes:
    """Return the filter for a machine, as `platform.machine` names it.

    Raises:
        OSError: there is none for it.
    """
    if machine not in _TABLES:
        raise OSError(errno.ENOSYS, f"no filter of system calls for {machine}; there are {', '.join(_TABLES)}")
    architecture, clone, clone3, refused = _TABLES[machine]
    denied = _instruction(_RETURN, _ERROR | errno.EPERM)
    steps = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, architecture, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_ANY_BIT, _X32, 0, 1),
        denied,
        # clone3 hides its flags in memory: the C library falls back to clone where there is none.
        _instruction(_EQUAL, clone3, 0, 1),
        _instruction(_RETURN, _ERROR | errno.ENOSYS),
    ]
    for number in refused:
        steps += [_instruction(_EQUAL, number, 0, 1), denied]
    steps += [
        _instruction(_EQUAL, clone, 0, 3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_ANY_BIT, _CLONE_THREAD, 1, 0),
        denied,
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(steps)


def apply() -> None:
    """Put the filter on this process and on every thread that it starts from now on.

    Threads that run already keep their rights, so this comes before libraries start any.

    Raises:
        OSError: the kernel refuses, or the machine is not known.
    """
    steps = program(platform.machine())
    library = ctypes.CDLL(None, use_errno=True)
    filters = _Program(len(steps) // 8, steps)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, ctypes.byref(filters), 0, 0)):
        if library.prctl(*arguments):
            raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")
