"""The agents: what knows how to ask one, and what its output means."""
