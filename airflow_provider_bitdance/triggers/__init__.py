"""The triggers: they wait, and only read."""
