"""Notices: all that were really sent are read, and what is hostile or incomplete is refused with its reason."""

from __future__ import annotations

import base64
import io
import json
import time

import pytest

from nightsift.core.errors import BadNotice
from nightsift.skyalerts.notices.bounded import read_xml
from nightsift.skyalerts.notices.notice import read_notice, read_notice_file

LVK = {
    "alert_type": "INITIAL", "time_created": "2026-11-20T01:02:03Z", "superevent_id": "S261120ab",
    "urls": {"gracedb": "https://example.org/S261120ab"}, "external_coinc": None,
    "event": {"time": "2026-11-20T01:00:00.125Z", "far": 1e-9, "significant": True, "instruments": ["H1", "L1"],
              "group": "CBC", "pipeline": "gstlal", "search": "AllSky", "classification": {"BNS": 0.9, "BBH": 0.1},
              "properties": {"HasNS": 1.0}, "skymap": base64.b64encode(b"SIMPLE").decode()},
}  # fmt: skip


def changed(**parts):
    event = {**LVK["event"], **parts.pop("event", {})}
    return json.dumps({**LVK, "event": event, **parts}).encode()


@pytest.mark.real
def test_every_notice_that_was_sent_is_read(data_dir):
    files = sorted(one for one in (data_dir / "gw/notices").rglob("*") if one.is_file())
    alerts = {one.name: read_notice_file(one) for one in files}
    assert len(alerts) == len(files) > 25
    assert {one.form for one in alerts.values()} == {"json", "avro", "voevent"}
    assert {one.kind for one in alerts.values()} == {"early_warning", "preliminary", "initial", "update", "retraction"}
    for name, one in alerts.items():
        assert one.kind == "retraction" or one.skymap or one.region, name
        assert one.role == ("mock" if one.event.startswith("MS") else "observation"), name
        assert one.t0 is None or 58000 < one.t0 < 62000


@pytest.mark.real
def test_what_the_notices_say(data_dir):
    folder = data_dir / "gw/notices"
    chain = [read_notice_file(one) for one in sorted((folder / "LVC").glob("S190426c_*.xml"))]
    assert [one.revision for one in chain] == [1, 2, 3, 4, 5]
    assert [one.kind for one in chain] == ["preliminary", "initial", "update", "update", "update"]
    assert sorted(chain, key=lambda one: one.order) == chain
    joint = read_notice_file(folder / "LVC/MS181101ab3_4-UPDATE-ext_coinc.xml")
    assert joint.coincidence is not None
    assert (joint.coincidence.observatory, joint.coincidence.delay_s) == ("Fermi", 2.02)
    gbm = read_notice_file(folder / "GRB180116A_Fermi_GBM_Gnd_Pos.xml")
    assert gbm.event == "Fermi-537755817"
    assert gbm.region is not None
    assert (gbm.region.radius, gbm.region.containment) == (11.19, 0.6827)
    assert gbm.region.systematics, "GBM tells statistical errors only"
    swift = read_notice_file(folder / "Swift/1187142v2-BAT_GRB_POS.json")
    assert swift.t0 == pytest.approx(60181.3775013, abs=1e-6)
    assert swift.region is not None
    assert (swift.region.ra, swift.region.dec, swift.region.containment) == (261.9416, -16.2138, 0.9)
    probe = read_notice_file(folder / "EinsteinProbe/01709002661-WXT.json")
    assert (probe.event, probe.sender) == ("EinsteinProbe-01709002661", "Einstein Probe WXT")
    packed = read_notice_file(folder / "LVC/MS181101ab_1-UPDATE-early_warning.avro")
    assert packed.skymap is not None
    assert packed.skymap.content.startswith(b"SIMPLE")


def test_json_of_the_gravitational_wave_network():
    alert = read_notice(changed())
    assert (alert.event, alert.kind, alert.role, alert.significant, alert.far) == (
        "S261120ab", "initial", "observation", True, 1e-9)  # fmt: skip
    assert alert.likeliest_class == "BNS"
    assert (alert.sent - alert.t0) * 86400 == pytest.approx(122.875, abs=1e-3)
    assert read_notice(changed(superevent_id="MS261120a")).role == "mock"
    assert read_notice(changed(superevent_id="TS261120a")).role == "test"
    assert read_notice(changed(event={"search": "MDC"})).role == "mock"
    gone = read_notice(json.dumps({**LVK, "alert_type": "RETRACTION", "event": None}).encode())
    assert (gone.kind, gone.t0) == ("retraction", None)


@pytest.mark.parametrize(("date", "ahead"), [("2026-11-20", 37.0), ("2015-09-14", 36.0), ("2015-06-01", 35.0)])
def test_time_scales_are_converted_and_unknown_ones_refused(date, ahead):
    text = (
        '<VOEvent ivorn="ivo://nasa.gsfc.gcn/SWIFT#BAT_GRB_Pos_1" role="{role}">'
        "<Who><Date>2026-11-20T00:01:00</Date></Who>"
        '<What><Param name="TrigID" value="1"/></What><WhereWhen><AstroCoords coord_system_id="{scale}-FK5-GEO">'
        "<ISOTime>{date}T00:00:37</ISOTime><Position2D unit='deg'><C1>10</C1><C2>20</C2>"
        "<Error2Radius>0.05</Error2Radius></Position2D></AstroCoords></WhereWhen></VOEvent>"
    )
    utc = read_notice(text.format(scale="UTC", role="observation", date=date).encode())
    tai = read_notice(text.format(scale="TAI", role="test", date=date).encode())
    assert utc.t0 is not None
    assert tai.t0 is not None
    assert (utc.t0 - tai.t0) * 86400 == pytest.approx(ahead, abs=1e-4)
    assert (utc.role, tai.role) == ("observation", "test")
    with pytest.raises(BadNotice, match="time scale"):
        read_notice(text.format(scale="MARS", role="test", date=date).encode())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"hello", "neither JSON"),
        (b"{", "no JSON"),
        (b"[1, 2]", "no notice"),
        (b'{"a": 1}', "neither of LIGO"),
        (b"[" * 100_000 + b"]" * 100_000, "no JSON|nested"),
        (changed(alert_type="HELLO"), "alert_type"),
        (changed(time_created="yesterday"), "no time"),
        (changed(time_created="1066-10-14T00:00:00Z"), "outside 1950"),
        (changed(superevent_id="../../etc/passwd"), "no superevent"),
        (changed(superevent_id=None), "no superevent"),
        (changed(event={"time": None}), "no time"),
        (changed(event={"skymap": "***"}), "base64"),
        (json.dumps({**LVK, "event": None}).encode(), "without its event"),
        (b'{"$schema": "x/notices/a/b/c.schema.json", "trigger_time": "2026-11-20T00:00:00Z", "ra": "NaN", "dec": 1, '
         b'"ra_dec_error": 1}', "no number"),
        (b'{"trigger_time": "2026-11-20T00:00:00Z", "ra": 10, "dec": 95, "ra_dec_error": 1}', "no position"),
        (b'{"trigger_time": "2026-11-20T00:00:00Z", "ra": 10, "dec": 5, "ra_dec_error": -1}', "no error region"),
        (b"<a/>", "not VOEvent"),
        (b"<VOEvent><a></VOEvent>", "no XML"),
        (b"<VOEvent/>", "its date"),
        (b'<!DOCTYPE VOEvent [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><VOEvent>&b;</VOEvent>', "document type"),
        (b'<!DOCTYPE VOEvent SYSTEM "file:///etc/passwd"><VOEvent/>', "document type"),
        (b"<VOEvent>" + b"<a>" * 200 + b"</a>" * 200 + b"</VOEvent>", "levels"),
        (b"<VOEvent>" + b"<a/>" * 30_000 + b"</VOEvent>", "elements"),
        (b"Obj\x01", "no Avro"),
        (b"Obj\x01" + b"\xff" * 500, "no Avro"),
    ],
)  # fmt: skip
def test_what_is_no_notice_is_refused_with_its_reason(content, why):
    with pytest.raises(BadNotice, match=why):
        read_notice(content, "here")


def avro(schema, records, codec="null"):
    fastavro = pytest.importorskip("fastavro")
    out = io.BytesIO()
    fastavro.writer(out, schema, records, codec=codec)
    return out.getvalue()


def test_avro_that_claims_much_in_few_bytes_is_refused():
    field = {"name": "superevent_id", "type": "string"}
    schema = {"type": "record", "name": "Alert", "fields": [field]}
    with pytest.raises(BadNotice, match="packed by deflate"):
        read_notice(avro(schema, [{"superevent_id": "S1" * 10_000}], "deflate"))
    endless = {**schema, "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]}
    with pytest.raises(BadNotice, match="no bytes"):
        read_notice(avro(endless, [{"a": [None] * 3}]))
    with pytest.raises(BadNotice, match="alert_type"):
        read_notice(avro(schema, [{"superevent_id": "S261120a"}]))


@pytest.mark.real
def test_cut_off_and_flipped_notices_are_read_or_refused_never_worse(data_dir, rng):
    """Every cut and every flipped byte ends as an alert or a refusal, soon."""
    files = ["LVC/S190426c_3-UPDATE.xml", "EP240508.json", "LVC/MS181101ab_5-RETRACTION.avro",
             "Swift/1187142v2-BAT_GRB_POS.json"]  # fmt: skip
    refused = 0
    began = time.monotonic()
    for file in files:
        content = (data_dir / "gw/notices" / file).read_bytes()
        for _ in range(150):
            cut = bytearray(content[: rng.integers(1, len(content))] if rng.random() < 0.5 else content)
            for place in rng.integers(0, len(cut), 5):
                cut[place] = rng.integers(0, 256)
            try:
                read_notice(bytes(cut))
            except BadNotice:
                refused += 1
    assert refused > 100
    assert time.monotonic() - began < 120


def test_xml_keeps_text_and_forgets_namespaces():
    root = read_xml(b'<voe:VOEvent xmlns:voe="u" ivorn="i"><Who><Date>x<b/>y</Date></Who></voe:VOEvent>', "")
    date = root.first("Date")
    assert root.name == "VOEvent"
    assert date is not None
    assert date.text == "xy"
