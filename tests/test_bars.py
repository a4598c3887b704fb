from gcl_core import bars


def test_a_bar_is_shown_where_somebody_sees_it_and_the_items_come_either_way(monkeypatch, capsys):
    monkeypatch.setattr(bars, "PATIENCE", 0)
    for seen in (True, False):
        monkeypatch.setattr(bars, "watched", lambda seen=seen: seen)
        assert list(bars.bar(iter("abc"), "decoding", 3, "image")) == ["a", "b", "c"]
        assert ("decoding" in capsys.readouterr().err) == seen
