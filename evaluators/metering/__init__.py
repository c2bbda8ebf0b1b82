"""What tasks cost: time, memory, tokens, operations and energy, phase by phase."""
