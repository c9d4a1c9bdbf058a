def test_windows_a_second(script, capsys):
    throughput = script("throughput")
    graph = throughput.drawn_series(nodes=5, edges=8, days=1)
    arguments = ["--channels=8", "--batch-size=4", "--repeats=1"]
    rates = throughput.main(arguments, graph)
    names, precisions = ("graph attention", "attention over nodes"), ("float32", "bfloat16")
    assert rates.keys() == {(name, precision) for name in names for precision in precisions}
    assert all(rate > 0 for rate in rates.values())
    out = capsys.readouterr().out
    assert "5 nodes, 8 edges, batches of 4" in out
    assert "| attention over nodes | bfloat16 | " in out
