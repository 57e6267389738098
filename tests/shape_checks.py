"""The checker of annotations in tests: beartype, to which jaxtyping's import hook adds shapes."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# The hook decorates methods, not classes; beartype knows what Self is only in the latter and would refuse it.
checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
