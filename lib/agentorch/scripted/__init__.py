"""A model that plays a script: what a self-test, a demonstration and tests talk to.

It speaks Anthropic Messages, OpenAI Responses and Chat Completions, streamed, well enough for the
real CLIs, and fails in every way that a provider does.
"""

from agentorch.scripted.script import Answer, Broken, Call, Fault, Hang, Turn, Usage
from agentorch.scripted.server import Asked, ModelDouble, playing, serving

__all__ = [
    "Answer",
    "Asked",
    "Broken",
    "Call",
    "Fault",
    "Hang",
    "ModelDouble",
    "Turn",
    "Usage",
    "playing",
    "serving",
]
