"""Fuzzing: what comes from outside, mutated, against "our error or the right result", and nothing else.

``python -m tests.fuzz --minutes 10`` (or ``make fuzz``) mutates valid records, answers, items, URLs and
pictures, in structure and in bytes, and gives them to the package. A *target* (``targets/``) is one way in.
Whatever it gets, each example has to end in an error of the package or in a result that is right, to cost no
more CPU than a few times what the largest normal input costs and no more memory than is said, and to read,
write, delete and fetch only where it may (``sandbox.py``). What breaks one of these is a *fault*. It is made
small and saved in ``corpus/``, which every run plays first: so a fault that was mended stays mended.

``planted.py`` breaks the package on purpose, once for each target: the fuzzer has to find it.
"""
