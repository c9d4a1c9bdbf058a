def test_windows_a_second(script, capsys):
    throughput = script("throughput")
    graph = throughput.drawn_series(nodes=5, edges=8, days=1)
    arguments = ["--channels=8", "--batch-size=4", "--repeats=1"]
    rates = throughput.main(arguments, graph)
    assert rates.keys() == {"graph attention", "attention over nodes"}
    assert all(rate > 0 for rate in rates.values())
    out = capsys.readouterr().out
    assert "5 nodes, 8 edges, batches of 4" in out
    assert "| attention over nodes | " in out
