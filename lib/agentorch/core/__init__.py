"""The project's words and its pure rules: job, step, attempt, states, errors, policy, pipeline.

Nothing here imports another package of ours or touches the outside: no os, no time, no file. A
value of this package is frozen and was checked before it was made, so that everybody above may
rely on it. What may happen to a job is a table (`states`), what happens after a step is a pure
function (`pipeline`).

Start reading with `job`, then `states` and `pipeline`.
"""
