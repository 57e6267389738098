import pytest

from retrieval_cl.config import load_image_text_config
from retrieval_cl.runs.image_text_reports import settings_facts

PRETRAINED = ("encoder.kind=pretrained", "encoder.path=some/clip")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "0.07"),
        (PRETRAINED, "what its model learned, else 0.07"),
        ((*PRETRAINED, "method.objective=sigmoid"), "what its model learned, else 0.1"),
        ((*PRETRAINED, "method.temperature=0.02"), "0.02"),
    ],
)
def test_page_says_where_the_temperature_starts(overrides, said):
    facts = settings_facts(load_image_text_config(None, overrides))
    assert facts["temperature at the start"] == said
