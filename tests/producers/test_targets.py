from producers import targets


def test_the_default_spool_is_below_the_users_state(monkeypatch, tmp_path):
    monkeypatch.setattr(targets.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert targets.default_spool() == tmp_path / "hypocenter" / "spool"
    monkeypatch.setattr(targets.os, "geteuid", lambda: 0)
    assert str(targets.default_spool()) == "/var/lib/hypocenter/spool"
