"""The one way in: bytes from outside become a checked job, or a list of problems.

A document is completed (the minimal form gets its defaults), checked against its schema and then
for what a schema can't express. All problems are reported at once, each with its place, as
`.steps[2].agent: 'cluade' is unknown (did you mean 'claude'?)`. The command line, the webhook and
schedules use this one validator, so that they refuse what the runner would refuse. The schemas
are the files of `contracts/` at the top of the source tree.

Start reading with `accept`.
"""
