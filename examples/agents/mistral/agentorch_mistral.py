"""An agent of a third party that asks an API: its provider is in examples/configuration."""

from agentorch.agents.api import ApiAgent

AGENT = ApiAgent(
    name="mistral",
    provider_name="mistral",
    default_model="mistral-large-latest",
    wire="agentorch.agents.api.wire_formats:CHAT",
)
