"""ACT-VAE: from one pose and an action's name to the poses that follow, and from poses to small pictures."""
