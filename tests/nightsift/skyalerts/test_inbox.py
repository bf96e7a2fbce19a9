"""Notices as they come: duplicated, late, out of order, damaged; and what operators order about them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import SkyAlertOptions, default_skyalert
from nightsift.core.errors import BadAlertFile, BadNotice, NoSuchAlert
from nightsift.skyalerts.event_store.inbox import events, notices, receive, refuse
from nightsift.skyalerts.event_store.targets import folder_of
from nightsift.skyalerts.notices.notice import read_notice, read_notice_file
from nightsift.skyalerts.planning.planning import (
    added_fields,
    decide,
    excluded_units,
    give_order,
    needs_approval,
    orders,
    ruling,
)


def test_whatever_the_order_of_arrival_the_same_notice_rules(tmp_path, notice):
    chain = [notice("EARLYWARNING", 1), notice("PRELIMINARY", 3), notice("INITIAL", 20), notice("UPDATE", 50)]
    for number, order in enumerate(itertools.permutations(range(4))):
        archive = Archive(tmp_path / str(number))
        verdicts = {k: receive(archive, chain[k]).verdict for k in order}
        assert ruling(archive, "S261120ab")[0].kind == "update"
        assert len(notices(archive, "S261120ab")) == 4
        newest = -1
        for k in order:
            assert verdicts[k] == ("rules" if k > newest else "older")
            newest = max(newest, k)


def test_a_retraction_ends_it_and_a_late_update_does_not_revive_it(tmp_path, notice):
    archive = Archive(tmp_path)
    receive(archive, notice("INITIAL", 10))
    assert receive(archive, notice("RETRACTION", 40)).verdict == "retracts"
    assert receive(archive, notice("UPDATE", 30)).verdict == "older"
    alert, _ = ruling(archive, "S261120ab")
    assert decide(alert, 10.0, default_skyalert(), given=[])[0] == "retracted"


def test_duplicates_are_told_and_kept_once(tmp_path, notice):
    archive, content = Archive(tmp_path), notice()
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda _: receive(archive, content).verdict, range(16)))
    assert len(notices(archive, "S261120ab")) == 1
    assert set(verdicts) <= {"rules", "duplicate"}
    other_form = content.replace(b'"urls": {}', b'"urls": {"gracedb": "https://example.org"}')
    assert receive(archive, other_form).verdict == "duplicate", "the same notice with other bytes"
    assert events(archive) == ["S261120ab"]


def test_what_cannot_be_read_is_kept_with_its_reason_and_touches_nothing(tmp_path):
    archive = Archive(tmp_path)
    with pytest.raises(BadNotice) as caught:
        receive(archive, b'{"superevent_id": "S1"}', "mail")
    reason = refuse(archive, b'{"superevent_id": "S1"}', caught.value)
    assert "superevent_id" in reason.read_text() or "alert_type" in reason.read_text()
    assert reason.with_suffix(".notice").read_bytes() == b'{"superevent_id": "S1"}'
    assert events(archive) == []
    with pytest.raises(NoSuchAlert, match="there is no alert 'S9'"):
        ruling(archive, "S9")


@pytest.mark.real
def test_a_real_chain_and_a_conflict_of_number_and_time(tmp_path, data_dir):
    archive = Archive(tmp_path)
    folder = data_dir / "gw/notices/LVC"
    for file in sorted(folder.glob("MS181101ab3_*.xml")):
        receive(archive, file.read_bytes(), file.name)
    alert, _ = ruling(archive, "MS181101ab3")
    # its update 6 was made an hour before its retraction 5: the later one rules
    assert (alert.kind, alert.revision) == ("retraction", 5)
    assert len(notices(archive, "MS181101ab3")) == 5


def test_orders_are_kept_in_order_and_by_whom(tmp_path, notice):
    archive = Archive(tmp_path)
    alert = read_notice(notice())
    options = default_skyalert()
    assert decide(alert, 100.0, options, given=orders(archive, "S261120ab"))[0] == "active"
    give_order(archive, "S261120ab", "pause", by="ann")
    state, why = decide(alert, 100.0, options, given=orders(archive, "S261120ab"))
    assert state == "paused"
    assert "ann" in why
    give_order(archive, "S261120ab", "resume")
    give_order(archive, "S261120ab", "exclude-unit", subject="north-1")
    give_order(archive, "S261120ab", "exclude-unit", subject="north-2")
    give_order(archive, "S261120ab", "include-unit", subject="north-1")
    give_order(archive, "S261120ab", "add-field", subject="f3")
    given = orders(archive, "S261120ab")
    assert decide(alert, 100.0, options, given=given)[0] == "active"
    assert excluded_units(given) == ("north-2",)
    assert added_fields(given) == ("f3",)
    give_order(archive, "S261120ab", "stop", by="bob")
    give_order(archive, "S261120ab", "resume")
    assert decide(alert, 100.0, options, given=orders(archive, "S261120ab"))[0] == "stopped", "a stop is for good"
    with pytest.raises(ValueError, match="an order is one of"):
        give_order(archive, "S261120ab", "explode")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a subject"):
        give_order(archive, "S261120ab", "add-field")
    (folder_of(archive, "S261120ab") / "orders/00000000000000000001-x.json").write_text("{")
    with pytest.raises(BadAlertFile):
        orders(archive, "S261120ab")


def test_what_waits_for_approval_and_why(notice, data_dir):
    options = default_skyalert()
    for content, area, why in [
        (notice(event="MS261120a"), 10.0, "mock notice"),
        (notice(event="TS261120a"), 10.0, "test notice"),
        (notice(far=1e-5), 10.0, "false-alarm rate"),
        (notice(significant=False), 10.0, "significant"),
        (notice(), 41000.0, "area"),
    ]:
        alert = read_notice(content)
        assert why in needs_approval(alert, area, options)
        assert decide(alert, area, options, given=[])[0] == "waiting"
    assert needs_approval(read_notice(notice()), 10.0, options) == ""
    asked = SkyAlertOptions.model_validate({"approval": True})
    assert "every alert" in needs_approval(read_notice(notice()), 10.0, asked)
    gbm = read_notice_file(data_dir / "gw/notices/Fermi/721646325-GBM_FIN_POS-no_duration.xml")
    assert decide(gbm, 900.0, options, given=[])[0] in ("active", "waiting")
