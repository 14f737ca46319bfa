"""Makes the weights: samples, objective, loop, export. Nothing in nvc/ imports this."""
