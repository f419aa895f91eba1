"""`make mutants`: what the tests notice where one line of the package is changed, and what they do not.

Coverage says which lines the tests run. This says which lines they hold: in the modules where money and truth
are decided, one line at a time is changed into one that would buy twice, lose an image or tell an untruth, and
the unit and contract tests have to fail. The changes are listed by hand (``mutations.py``), each with its
reason: changes drawn by a tool would be mostly of no consequence.
"""
