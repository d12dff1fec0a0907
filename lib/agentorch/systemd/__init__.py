"""Our programs' side of systemd: readiness, passed sockets, the journal, calendar expressions.

Invariant: a peer that does not read (a stopped manager, a full journal) never blocks one of our
programs; what could not be sent is dropped, and counted. Writing the journal is ours (`journal`);
the other modules are thin layers over sdnotify and systemd-python, which no other package imports.
"""
