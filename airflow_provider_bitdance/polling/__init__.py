"""Polling: when the API is asked whether predictions have ended, and who asks. Reads only."""
