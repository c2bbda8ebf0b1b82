"""What a running campaign shows to those who watch it."""
