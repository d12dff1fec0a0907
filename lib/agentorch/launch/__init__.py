"""What starts a step: `fork` is a child of the runner; others keep the same four verbs."""
