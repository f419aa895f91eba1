"""A cluster on one machine, and what happens to images when its parts die: `make cluster`."""
