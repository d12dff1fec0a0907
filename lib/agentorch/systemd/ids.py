"""Ids of the running system: sd_id128_get_boot(3)."""

from __future__ import annotations

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the id of the running boot, a UUID; the kernel's text where libsystemd has none."""
    try:
        from systemd import id128  # noqa: PLC0415  (5 ms, for whoever has a workspace)

        return str(id128.get_boot())
    except (ImportError, OSError):  # a container may have something else in its place
        return BOOT_ID.read_text("ascii").strip()
