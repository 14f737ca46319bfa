"""The choice of symbols: rate-distortion optimised quantisation, refinement by gradient."""
