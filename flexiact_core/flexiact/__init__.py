"""FlexiAct (SIGGRAPH 2025): action transfer by learned motion tokens, and an adapter for any target image."""
