"""How the weights and tables of the small world are made; not needed to use it."""
