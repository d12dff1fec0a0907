"""Agents without a CLI: the adapter, and the program that it runs in the sandbox as a CLI would.

    adapter              the command line, and the providers that are built in
    program              a request on stdin, the lines of `agents.json_lines` on stdout
    question             one question over HTTP: what is tried again, how long anything may take
    wire_formats         a provider's protocol: what is sent, and how an answer is read. Pure
    server_sent_events   the events of a response's bytes. Pure
    surroundings         the workspace as text, within bounds
    patch                the unified diff in an answer, and git applying it

The program holds no key: the token of its step is in the environment, its endpoint is the broker.
"""

from agentorch.agents.api.adapter import ApiAgent

__all__ = ["ApiAgent"]
