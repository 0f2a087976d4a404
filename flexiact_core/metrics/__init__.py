"""How videos are measured."""
