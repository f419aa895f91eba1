"""`make mutants`: what the tests notice where one line of the package is changed, and what they do not.

Coverage says which lines the tests run; this says what they would notice. In the modules where money and
truth are decided, one line at a time is changed into one that would buy twice, lose an image or report what
is not so, and the unit and contract tests have to fail. The changes are listed by hand (``mutations.py``),
each with its reason, for most of those that a tool draws are of no consequence.
"""
