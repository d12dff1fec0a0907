"""A model server that plays a script: for self-tests, the demonstration and the tests.

It speaks Anthropic Messages, OpenAI Responses and Chat Completions, streamed, well enough for the
real CLIs, and fails in every way that a provider does. Nothing of it runs while jobs are served.
"""

from agentorch.scripted_model.script import Answer, Broken, Call, Fault, Hang, Turn, Usage
from agentorch.scripted_model.server import ModelDouble, ModelRequest, playing, serving

__all__ = [
    "Answer",
    "Broken",
    "Call",
    "Fault",
    "Hang",
    "ModelDouble",
    "ModelRequest",
    "Turn",
    "Usage",
    "playing",
    "serving",
]
