from pyg_stmamba.data import Protocol


def test_defaults_are_those_of_metr_la():
    assert Protocol() == (12, 12, (0.7, 0.1, 0.2), "windows-first", True, (0,), (3, 6, 12))
    assert Protocol()._replace(split=(0.6, 0.2, 0.2)).split == (0.6, 0.2, 0.2)
