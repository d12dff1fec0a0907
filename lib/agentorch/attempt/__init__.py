"""One attempt of one step, from its claim to its result.json.

    artifacts/ID/steps/STEP/.lock               held by the attempt's process for its whole life
    artifacts/ID/steps/STEP/attempts/N/claim    linked first: a second start of N ends at once

Invariant: a step with a final result.json is never run again; an attempt begins with the workspace
as it was before the step; result.json is the last file that it writes, without secrets.

Start reading with `step_run`, then `execution`.
"""
