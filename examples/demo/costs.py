"""What each step of a job used: agentorch-status ID | python costs.py."""

import json
import sys

for step in json.load(sys.stdin)["result"]["steps"]:
    used = step["metrics"]
    cost = used.get("cost_usd")
    print(
        f"{step['step_id']:13} {step['agent']:9} {step['model'] or '':18}"
        f" {used['tokens_in']:6} tokens in {used['tokens_out']:5} out"
        f" {'no price' if cost is None else f'${cost:.4f}'}"
    )
