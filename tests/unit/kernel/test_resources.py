"""The accelerator string of dstack and SkyPilot."""

import pytest
from gridlease_kernel.faults import Invalid
from gridlease_kernel.resources import AcceleratorAsk, parse_accelerator
from gridlease_kernel.units import Span

GB = 1 << 30


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("A100:80GB:8", AcceleratorAsk(("A100",), "", Span(80 * GB, 80 * GB), Span(8, 8))),
        ("nvidia:24GB..", AcceleratorAsk((), "nvidia", Span(24 * GB), Span(1, 1))),
        ("40GB..80GB:2..8", AcceleratorAsk((), "", Span(40 * GB, 80 * GB), Span(2, 8))),
        ("A10G,A100", AcceleratorAsk(("A10G", "A100"))),
        ("H100:8", AcceleratorAsk(("H100",), count=Span(8, 8))),
        ("8:NVIDIA", AcceleratorAsk((), "nvidia", count=Span(8, 8))),
        ("jetson-agx-orin", AcceleratorAsk(("jetson-agx-orin",))),
        ("2+", AcceleratorAsk(count=Span(2))),
    ],
)
def test_accelerators(text, ask):
    assert parse_accelerator(text) == ask


@pytest.mark.parametrize(
    "text",
    ["", "A100:", "A100:H100", "A100:-1", "A100:0", "4090", "A100:80XB", "A100:8:8", "a,,b",
     "A100:8..2", "A;B", ",".join(f"c{i}" for i in range(17))],
)  # fmt: skip
def test_bad_accelerators(text):
    with pytest.raises(Invalid) as caught:
        parse_accelerator(text)
    assert caught.value.field == "resources.gpu"
    assert caught.value.remedy
