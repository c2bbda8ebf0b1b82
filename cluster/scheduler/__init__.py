"""What runs next, as pure code."""
