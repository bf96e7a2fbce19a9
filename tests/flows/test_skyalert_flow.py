"""The alert flow and its listener: notices as files and from a broker, tracked and not, killed and started again."""

from __future__ import annotations

import io
import threading
import time
from http.client import HTTPMessage
from urllib.error import URLError
from urllib.request import Request

import pytest

from flows.pool import Outcome, ProcessDied
from flows.skyalert import alert_control, end_exposure, order, run_alert
from flows.skyalert_listener import listen, run_notice
from nightsift.archive import ledger
from nightsift.core.errors import ConfigurationError, NoLocalisation
from nightsift.skyalerts.event_store.inbox import notices, receive
from nightsift.skyalerts.event_store.targets import active_targets, folder_of
from nightsift.skyalerts.skyalert_session import SkyAlertSession
from tasks.skyalert import FolderSource, KafkaSource, StayAmong, common_settings, gcn_settings, is_trusted
from tests.nightsift.skyalerts.conftest import blob, notice  # noqa: F401
from tests.nightsift.skyalerts.small_survey import EVENT, T0, add, survey  # noqa: F401


def over_after(seconds, done):
    end = time.monotonic() + seconds
    return lambda: done() or time.monotonic() > end


@pytest.mark.usefixtures("prefect_harness")
def test_each_step_is_a_task_run_of_one_flow_run(survey, notice):  # noqa: F811
    from prefect.client.orchestration import get_client

    desk = SkyAlertSession(survey, {"decam": survey.load_unit("decam")})
    receive(desk.archive, notice())
    add(desk.archive, "e1", T0 + 0.1, [{"ra": 150.0, "dec": 2.0}])
    assert run_alert(desk, EVENT, tracked=True).state == "active"
    receive(desk.archive, notice("RETRACTION", 50))
    assert run_alert(desk, EVENT, tracked=True).state == "retracted"
    with get_client(sync_client=True) as client:
        runs = {one.name: one for one in client.read_flow_runs() if one.name.startswith(EVENT)}
        steps = {one.name.rpartition("-")[0]: one.state_name for one in client.read_task_runs()
                 if one.flow_run_id == runs[f"{EVENT} notice 1"].id}  # fmt: skip
    assert runs[f"{EVENT} notice 1"].parameters == {"event": EVENT, "revision": 1}
    assert runs[f"{EVENT} notice 2"].state_name == "Completed"
    told = alert_control(survey.file, EVENT, "exclude-unit", "decam", by="ann")
    assert told.startswith(f"{EVENT}: retracted")
    with pytest.raises(ConfigurationError, match="there is no 'nobody'"):
        order(survey.file, EVENT, "exclude-unit", subject="nobody")
    with pytest.raises(ConfigurationError, match="takes no subject"):
        order(survey.file, EVENT, "pause", subject="decam")
    wanted = {"read notice", "rank fields, write targets", "check templates", "gather candidates"}
    assert wanted < set(steps)
    assert set(steps.values()) == {"Completed"}


def test_the_listener_takes_files_as_they_come(survey, notice, tmp_path):  # noqa: F811
    folder, lines = tmp_path / "inbox", []
    archive = SkyAlertSession(survey, {}).archive
    source = FolderSource(folder)
    page = folder_of(archive, EVENT) / "alert.html"

    def send():
        time.sleep(0.5)
        (folder / "1.json").write_bytes(notice())
        (folder / "bad.json").write_bytes(b"{")
        (folder / "copy.json").write_bytes(notice())

    sender = threading.Thread(target=send)
    sender.start()
    done = lambda: page.exists() and any("duplicate" in one for one in lines) and any("refused" in one for one in lines)  # noqa: E731
    listen(survey, [source], track=False, progress=lines.append, over=over_after(60, done))
    sender.join()
    assert any("rules" in one for one in lines), lines
    assert any("duplicate" in one for one in lines)
    assert len(list((archive.root / "alerts/refused").glob("*.txt"))) == 1
    assert page.exists()
    # started again, it goes on, and a retraction that has come meanwhile ends it
    (folder / "2.json").write_bytes(notice("RETRACTION", 59))
    lines.clear()
    gone = lambda: any("retracted" in one for one in lines)  # noqa: E731
    listen(survey, [FolderSource(folder)], track=False, progress=lines.append, over=over_after(60, gone))
    assert any("goes on" in one or "retract" in one for one in lines)
    assert active_targets(archive) == ()


def test_a_lost_exposure_has_its_row_and_one_under_way_elsewhere_waits(survey, tmp_path):  # noqa: F811
    desk = SkyAlertSession(survey, {"decam": survey.load_unit("decam")})
    file = tmp_path / "e.fits"
    file.write_bytes(b"x")
    call = {"url": str(file), "unit": "decam", "night": "2026-11-19"}
    end_exposure(desk, Outcome(call, error=ProcessDied(deaths=2)))
    rows = ledger.read(desk.archive, "2026-11-19").to_pylist()
    assert [(row["state"], row["url"]) for row in rows] == [("failed", str(file))]
    end_exposure(desk, Outcome(call, result={"state": "elsewhere"}))
    assert time.monotonic() < desk.tried[str(file)] < time.monotonic() + 60


def test_notices_from_a_broker(notice):  # noqa: F811
    kafka = pytest.importorskip("confluent_kafka")
    broker = kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    known = next(iter(broker.list_topics(timeout=10).brokers.values()))
    broker.produce("igwn.gwalert", notice())
    broker.produce("igwn.gwalert", notice("UPDATE", 30))
    assert broker.flush(10) == 0
    taken: dict[bytes, str] = {}
    for attempt in range(4):  # on a busy machine the broker of librdkafka now and then forgets one who joins a group
        settings = {**common_settings(f"test-{attempt}"), "bootstrap.servers": f"{known.host}:{known.port}",
                    "auto.offset.reset": "earliest", "log_level": 0}  # fmt: skip
        source = KafkaSource(["igwn.gwalert"], settings)
        end = time.monotonic() + 20
        while len(taken) < 2 and time.monotonic() < end:
            taken |= {content: where for where, content in source.take()}
        source.close()
        if len(taken) == 2:
            break
    assert set(taken) == {notice(), notice("UPDATE", 30)}
    assert taken[notice()].startswith("igwn.gwalert")


def test_credentials_come_from_the_environment_only(survey):  # noqa: F811
    settings = gcn_settings(survey, {"GCN_CLIENT_ID": "me", "GCN_CLIENT_SECRET": "hush"})
    assert settings["bootstrap.servers"] == "kafka.gcn.nasa.gov"
    assert settings["sasl.oauthbearer.client.secret"] == "hush"
    assert "hush" not in repr(survey)


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://gracedb.ligo.org/api/x.fits", True),
        ("http://gracedb.ligo.org/api/x.fits", False),
        ("https://gracedb.ligo.org.evil.org/x.fits", False),
        ("https://gracedb.ligo.org@evil.org/x.fits", False),
        ("https://gracedb.ligo.org:8443/x.fits", False),
        ("file:///etc/passwd", False),
        ("https://[bad", False),
        ("", False),
    ],
)
def test_maps_are_fetched_from_known_hosts_only_also_when_sent_on(url, trusted):
    hosts = ("gracedb.ligo.org",)
    assert is_trusted(url, hosts) is trusted
    if not trusted:
        request = Request("https://gracedb.ligo.org/a")
        with pytest.raises(URLError, match="not among the hosts"):
            StayAmong(hosts).redirect_request(request, io.BytesIO(), 302, "", HTTPMessage(), url)


def test_nothing_to_listen_to_is_told(survey):  # noqa: F811
    from tasks.skyalert import sources_of

    with pytest.raises(ConfigurationError, match="nothing to listen to"):
        sources_of(survey, {})


def test_a_notice_without_a_place_is_told_and_another_goes_on(survey, data_dir, notice, tmp_path):  # noqa: F811
    bare = (data_dir / "gw/notices/GW190425_initial.xml").read_bytes()
    with pytest.raises(NoLocalisation, match="no position"):
        run_notice(survey, bare, "n", sky_map=None, track=False, progress=lambda line: None)
    folder, lines = tmp_path / "inbox", []
    source = FolderSource(folder)
    (folder / "a.xml").write_bytes(bare)
    (folder / "b.json").write_bytes(notice())
    archive = SkyAlertSession(survey, {}).archive
    done = lambda: (folder_of(archive, EVENT) / "alert.html").exists()  # noqa: E731
    listen(survey, [source], track=False, progress=lines.append, over=over_after(60, done))
    assert done()
    assert any("no position" in one for one in lines)
    assert len(notices(archive, "S190425z")) == 1
    # with its map beside it, it is worked on
    event = run_notice(
        survey, bare, "n", sky_map=data_dir / "gw/skymaps/S190425z/bayestar.fits", track=False, progress=lines.append
    )
    assert (folder_of(archive, event) / "fields.parquet").exists()
