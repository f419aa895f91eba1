"""Mutations of what a task returns, and leaves when it fails: URLs, and the result of a failed batch."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

PUBLISHING = mutations_of(
    "operators/publishing.py",
    "unit/operators/test_publishing.py",
    ("quote(name, safe='')", "name", "a URL leads to no file, or closes the attribute of a page"),
    ("?v={result['sha256'][:_VERSION_DIGITS]}", "", "a cache shows the image that was replaced"),
    (
        "not isinstance(base, str) or len(text) > _LONGEST or not _BASE.fullmatch(text)",
        "not isinstance(base, str)",
        "images are bought, and their URLs lead nowhere",
    ),
    (
        "not _BASE.fullmatch(text)",
        "not _BASE.match(text)",
        "the version is added to a query or a fragment",
    ),
    ('_USER.sub("***@", re.sub(r"(?<=[?#]).*", "…", text))', "text", "a password is in the log"),
    ("for key, result in finished.stored.items()", "for key, result in ()", "a URL is missing"),
)

ENGINE_OPERATOR = mutations_of(
    "operators/engine_operator.py",
    "unit/operators/test_publishing.py unit/operators/test_batch.py",
    (
        "if not journal.state.images:  # where there is a plan, its images are stored first",
        "if True:",
        "paid images are not stored for a URL that cannot be made",
    ),
    (
        "            self._checked_url_base(journal)\n",
        "            pass\n",
        "images are bought before the base of their URLs is refused",
    ),
    (
        "                runtime.push_result(context, result, self.log)\n",
        "                pass\n",
        "what a failed batch has stored is not written back",
    ),
)

BATCH = mutations_of(
    "operators/batch.py",
    "unit/operators/test_batch.py",
    (
        "return max(image.purchases, int(is_adopted))",
        "return image.purchases",
        "what a cleared batch has adopted is in no result's cost",
    ),
    (
        "return finished.stopped or _not_tolerated(finished, job_context, result)",
        "return _not_tolerated(finished, job_context, result)",
        "a batch that was stopped succeeds",
    ),
)

MANIFEST = mutations_of(
    "manifest.py",
    "unit/operators/test_publishing.py",
    (
        """ and self.sha256 and url.endswith(f"?v={self.sha256[:8]}")""",
        "",
        "a column of an older manifest is taken for the image's URL",
    ),
)

MUTATIONS = (*PUBLISHING, *ENGINE_OPERATOR, *BATCH, *MANIFEST)
