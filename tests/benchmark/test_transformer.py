import pytest


@pytest.fixture
def small(script):
    module = script("transformer")
    module.SHAPES = (module.Shape(2, 5, 8, 2, 12, 2),)
    return module


def test_the_tables(small, capsys):
    small.main(["--lengths", "16", "64", "--steps", "4", "8", "--repeats", "1"])
    out = capsys.readouterr().out
    assert "| 2 x 5, D 8, 2 heads, 2 layers |" in out
    for head in ("| MB, L | standard | xformer | flash |", "| layers | MB |", "| tokens before |"):
        assert head in out
    assert "MB a layer" in out


def test_memory_of_blocks_is_linear(small):
    sizes = {way: [small.attention_memory(way, n, 0.1) for n in (512, 1024)] for way in small.WAYS}
    assert sizes["xformer"][1] < 2.3 * sizes["xformer"][0]
    assert sizes["standard"][1] > 3.4 * sizes["standard"][0]


def test_no_times_without_parity(small, monkeypatch):
    right = small.TransformerEncoder.forward
    monkeypatch.setattr(small.TransformerEncoder, "forward", lambda self, x: 1.01 * right(self, x))
    with pytest.raises(SystemExit, match=r"standard: .* no times without parity"):
        small.main(["--repeats", "1"])


def test_no_times_for_steps_that_are_wrong(small, monkeypatch):
    right = small.TransformerDecoder.forward

    def wrong(self, *given, incremental_state=None, **options):
        y = right(self, *given, incremental_state=incremental_state, **options)
        return y if incremental_state is None else 1.01 * y

    monkeypatch.setattr(small.TransformerDecoder, "forward", wrong)
    with pytest.raises(SystemExit, match="4 steps: the state gives other values; no times"):
        small.decoding_table([4], 1)
