"""Imaging: checks images that were received, and draws contact sheets. Pure; needs Pillow."""
