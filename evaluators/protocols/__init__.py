"""How edits are applied before they are judged."""
