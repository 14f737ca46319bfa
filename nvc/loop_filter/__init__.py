"""The filter of decoded pictures, inside the prediction loop."""
