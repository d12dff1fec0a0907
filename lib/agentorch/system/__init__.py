"""The Linux kernel: inotify, signals, /proc, child processes, public network addresses.

One module a facility, each with the manual page that it relies on. It knows nothing of jobs and
keeps nothing on disk.
"""
