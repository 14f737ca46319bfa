"""Rate-distortion curves of experiments: BD-rates, plots, formats of other programs."""
