"""The agents' only way out: their model, and the hosts that they may reach."""
