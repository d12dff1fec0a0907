"""The program behind an API agent: it runs in the sandbox as a CLI would, and asks a model once.

    wires         what is sent, and what is heard of an answer: a provider's protocol. Pure
    stream        the events of a response's bytes. Pure
    surroundings  the workspace as text, within bounds
    patches       the unified diff in an answer, and git applying it
    asking        one question over HTTP: what is tried again, how long anything may take
    program       a request on stdin, the lines of `agents.protocol` on stdout

It holds no key: the token of its step is in the environment, and the endpoint is the broker.
"""
