"""The inside of video.py (containers, raw formats, sample formats) and of metrics.py (SSIM, BD-rate)."""
