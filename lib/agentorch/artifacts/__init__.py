"""The artifact directory of a job: state.json, results, context, decisions, the signed manifest.

    artifacts/ID/{job,state,result,context}.json  report.md  patch.diff  logs.txt  decisions.jsonl
    artifacts/ID/steps/STEP/{result.json,report.md,patch.diff,logs.txt,raw_stdout.txt,…}

Invariant: job.json is never replaced (an edit writes job.edited.json), result.json of a step is
written once and last, and the status in state.json commits the end of a job.

Start reading with `directory`.
"""
