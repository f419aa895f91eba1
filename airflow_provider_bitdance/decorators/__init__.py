"""The TaskFlow decorator: ``@task.bitdance``."""
