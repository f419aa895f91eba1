"""Mutations of what a model takes and costs: its entry, its schema, the inputs of a request."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

MODELS = mutations_of(
    "wavespeed/models.py",
    "unit/wavespeed/test_models.py",
    (
        "if self.pixels and not self.pixels[0] <=",
        "if False and not self.pixels[0] <=",
        "a size is bought that fails after it was submitted",
    ),
    ("return least + drawn % (most - least + 1)", "return drawn", "a seed is drawn that the model refuses"),
    (
        "pixels * 4 + 2**20, MAX_BYTES) if pixels else MAX_BYTES",
        "pixels * 4 + 2**20, MAX_BYTES)",
        "an image of a model whose sizes nobody knows is paid for and refused",
    ),
)

SCHEMA = mutations_of(
    "wavespeed/model_schema.py",
    "unit/wavespeed/test_input_schema.py",
    ("or (kind and not _MAKES_IMAGES.fullmatch(kind))", "", "a video is bought"),
    ("pixels=(1, MAX_PIXELS)", "pixels=None", "an image is bought that is too large to be stored"),
    (
        'needs_size=(isinstance(names, list) and "size" in names)',
        "needs_size=False",
        "a request without the size that the model requires is sent",
    ),
    (
        ' or _is_too_large(size.get("default"))',
        "",
        "an image is bought that is too large to be stored, for nobody said another size",
    ),
    (
        "for word in words if not _is_too_large(word)]",
        "for word in words]",
        "an image is bought of a size that the schema lists and that is too large to be stored",
    ),
)

INPUT_SCHEMA = mutations_of(
    "wavespeed/input_schema.py",
    "unit/wavespeed/test_input_schema.py",
    (
        "if taken is not None and not is_one(taken):",
        "if False:",
        "a model that makes four images by default makes four",
    ),
    (
        'return cls(choices=choices, default=schema.get("default"))',
        "return cls(choices=choices)",
        "a model that makes four images, or none, by default makes four",
    ),
    (
        "few = alternatives if len(alternatives) <= _MAX_CHOICES else []",
        "few = alternatives",
        "a hostile schema takes half a second an image",
    ),
    ("isinstance(word, bool) == isinstance(value, bool)", "True", "True is sent as 1"),
    (
        "for name in sorted(self.required - inputs.keys()):",
        "for name in ():",
        "a request without an input that the model requires is sent",
    ),
    (
        "if (self.least is not None and size < self.least) or (self.most is not None and size > self.most):",
        "if False:",
        "a number out of range is sent",
    ),
    ("list(dict.fromkeys(kinds))", "list(kinds)", "a hostile schema takes all memory"),
    ("key=lambda choice: not choice._has_type_of(value)", "key=lambda choice: 0", "text is sent as a number"),
)

INPUTS = mutations_of(
    "wavespeed/inputs.py",
    "unit/wavespeed/test_input_schema.py unit/wavespeed/test_image_request.py",
    (
        "if name in SEVERAL and not is_one(value):",
        "if False:",
        "one request buys four images and stores one",
    ),
    ("if url and (wrong := input_url_fault(url)):", "if False:", "a signed URL is in the records"),
    ("if name in SET_BY_US:", "if False:", "a response takes as long as the image"),
)

REQUEST = mutations_of(
    "wavespeed/image_request.py",
    "unit/wavespeed/test_image_request.py unit/wavespeed/test_input_schema.py",
    ("refuse_what_no_model_gets(name, part)", "pass", "a planted record buys several images"),
    (
        "return {**self.inputs, **{name: value for name, value in own.items() if value is not None}}",
        "return {**{name: value for name, value in own.items() if value is not None}, **self.inputs}",
        "a planted input goes before what was requested",
    ),
    ("if not is_path(value):", "if False:", "a planted model is another path of the API"),
    (
        "seed = None if known is None and self.seed == -1 else self.seed",
        "seed = self.seed",
        "a model that does not know -1 is sent it",
    ),
    (
        "json.dumps([self.model, self.size, self.inputs], sort_keys=True)",
        "json.dumps([self.model])",
        "each size has the price of the first",
        "unit/engine/test_budget.py",
    ),
)

CHECKS = mutations_of(
    "wavespeed/request_checks.py",
    "unit/wavespeed/test_image_request.py unit/wavespeed/test_input_schema.py unit/wavespeed/test_models.py",
    (
        'if seed is not None and str(seed).strip() != "-1":',
        "if False:",
        "a model without a seed is asked for seed 42, and another picture is stored without a word",
    ),
    (
        "if not self._model.seeds[0] <= seed <= self._model.seeds[1]:",
        "if False:",
        "a seed is sent that the model refuses",
    ),
    (
        'shown_input(value) if field.startswith("inputs") else shorten(repr(value))',
        "shorten(repr(value))",
        "a signed URL is in the log",
    ),
)

LOOKUP = mutations_of(
    "hooks/model_lookup.py",
    "unit/hooks/test_model_lookup.py",
    (
        "if found is None or not 0 <= now - found.time.timestamp() < KEPT:",
        "if found is None:",
        "a recorded schema is used for ever",
    ),
    (
        "    except InputError:\n        return None\n",
        "    except InputError:\n        raise\n",
        "a planted schema keeps a task from running for a day",
    ),
    ("with suppress(StorageError):", "if True:", "a store that is down stops what only reads a schema"),
)

PRICES = mutations_of(
    "engine/policy.py",
    "unit/engine/test_budget.py unit/engine/test_plan.py",
    (
        "self.prices.get(model, known.price_usd if known else None)",
        "self.prices.get(model, 0.01)",
        "another model has BitDance-14B's price",
    ),
)

MUTATIONS = [*MODELS, *SCHEMA, *INPUT_SCHEMA, *INPUTS, *REQUEST, *CHECKS, *LOOKUP, *PRICES]
