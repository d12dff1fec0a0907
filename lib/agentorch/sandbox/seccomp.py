"""The system calls that no agent needs and that lead out of a sandbox, as a filter for the kernel.

The table is ours, the compiler is libseccomp (seccomp_rule_add(3)), called through ctypes: it is
there wherever systemd is, and its Python module is not.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from functools import cache

from agentorch.core.errors import Misconfigured

LIBRARY = "libseccomp.so.2"
CLONE_NEWUSER = 0x10000000
TIOCSTI = 0x5412
TIOCLINUX = 0x541C
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0
# The kernel looks at the low half of these arguments only, a plain comparison at all 64 bits.
LOW_HALF = 0xFFFFFFFF

REFUSED = (
    *("add_key", "keyctl", "request_key"),
    *("bpf", "perf_event_open", "userfaultfd"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),
    *("pidfd_getfd", "open_by_handle_at"),
    *("mount", "umount2", "pivot_root", "chroot", "mount_setattr", "move_mount", "open_tree"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "setns"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    *("acct", "quotactl", "reboot", "swapoff", "swapon", "syslog", "vhangup"),
)


@dataclass(frozen=True)
class Compare:
    """A condition on one argument: `EQ`, `NE`, `LT`, `GT`, or `MASKED` (value under the mask)."""

    argument: int
    operation: str
    value: int
    mask: int = 0


@dataclass(frozen=True)
class Rule:
    """A system call that is answered with an error where all conditions hold."""

    call: str
    error: int
    conditions: tuple[Compare, ...] = ()


def rules() -> tuple[Rule, ...]:
    """Return the whole filter; what no rule names is allowed."""
    return (
        *(Rule(call, errno.EPERM) for call in REFUSED),
        # its flags lie in memory, where a filter can't look; without it libraries use clone
        Rule("clone3", errno.ENOSYS),
        *(
            Rule(call, errno.EPERM, (Compare(0, "MASKED", CLONE_NEWUSER, CLONE_NEWUSER),))
            for call in ("clone", "unshare")
        ),
        *(
            Rule("ioctl", errno.EPERM, (Compare(1, "MASKED", request, LOW_HALF),))
            for request in (TIOCSTI, TIOCLINUX)
        ),
        *_socket_rules("socket"),
        *_socket_rules("socketpair"),
    )


def _socket_rules(call: str) -> tuple[Rule, ...]:
    """Every family but the four; a filter has no "not in", so the gaps are spelled out."""
    allowed = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)
    gaps = tuple(family for family in range(AF_NETLINK) if family not in allowed)
    conditions = [
        *((Compare(0, "EQ", family),) for family in gaps),
        (Compare(0, "GT", AF_NETLINK),),
        (Compare(0, "EQ", AF_NETLINK), Compare(2, "NE", NETLINK_ROUTE)),
    ]
    return tuple(Rule(call, errno.EAFNOSUPPORT, condition) for condition in conditions)


# ---- libseccomp -------------------------------------------------------------------------------

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_BAD_ARCHITECTURE = 2  # SCMP_FLTATR_ACT_BADARCH
_UNKNOWN_CALL = -1
_OPERATIONS = {"NE": 1, "LT": 2, "EQ": 4, "GT": 6, "MASKED": 7}


class _Argument(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@cache
def program() -> bytes:
    """Return the filter as the kernel takes it, compiled once in a process.

    Raises Misconfigured where libseccomp is missing or doesn't know a call of the table.
    """
    library = _library()
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise MemoryError("seccomp_init")
    try:
        # other instruction sets of the same processor would go around the table
        _check(library.seccomp_attr_set(context, _BAD_ARCHITECTURE, _ERRNO | errno.ENOSYS), "arch")
        for rule in rules():
            _add(library, context, rule)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as problem:
        raise Misconfigured(
            f"SANDBOX_WRAPPER: 'bwrap' needs {LIBRARY}: install the package libseccomp2"
        ) from problem
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Argument),
    ]
    return library


def _add(library: ctypes.CDLL, context: int, rule: Rule) -> None:
    number = library.seccomp_syscall_resolve_name(rule.call.encode())
    if number == _UNKNOWN_CALL:
        raise Misconfigured(f"{LIBRARY}: it doesn't know {rule.call}: install a newer libseccomp2")
    arguments = (_Argument * len(rule.conditions))(*map(_argument, rule.conditions))
    result = library.seccomp_rule_add_array(
        context, _ERRNO | rule.error, number, len(arguments), arguments
    )
    _check(result, rule.call)


def _argument(compare: Compare) -> _Argument:
    operation = _OPERATIONS[compare.operation]
    if compare.operation == "MASKED":
        return _Argument(compare.argument, operation, compare.mask, compare.value)
    return _Argument(compare.argument, operation, compare.value, 0)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, descriptor), "export")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{LIBRARY}: {what}: {os.strerror(-result)}")
