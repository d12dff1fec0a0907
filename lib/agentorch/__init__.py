"""agentorch, the mail queue of coding agents.

The floors of this package. Imports go down; on one floor they go to the left:

    8  commands/                                             parse, call once, print
    7  inspect selection report/ doctoragents agentprobe     what owns or reads whole jobs
       doctor reclaim explain entering cases holding
       editing decide firing collect exporting arrivals
       bringing notify announcing expiring metrics
       attending jobrun runner webhook/
    6  place metering wayout admission selftest execution    one attempt of one step
       record step attempt
    5  broker/ launch/ sandbox/ agents/ output logbook       what runs programs
       versions preflight provenance logins credentials
       descendants scripted/ watch process agentlines
       oncalendar hooks terminal
    4  archive jobqueue slots artifacts approvals tills      what keeps state on disk
       spending ledger outbox signing runrecord finish tree
       git treecopy history source workrecord workspace
    3  paths tape atomic documents filesystem beneath        how the disk, the kernel and the
       inotify signals procfs backlog sd_daemon events       environment are touched
       variables envfile settings journal systemprompts
       tables database schedules generator
    2  contracts                                             what is accepted at a door
    1  pipeline context prompt redact policy roles verdict   pure decisions: no os, no time
       retention callbacks counts death cron timers budgets
       parking expiry announced ages situation explaining
    0  errors states messages abilities hosts resources job  pure words
       text times secretforms checks families advice
"""

__version__ = "0.1.0"
