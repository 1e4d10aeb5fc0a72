"""The dashboard does what an operator needs of it, in a real browser."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from receipt_actors.admin.server import AdminServer
from receipt_actors.domain.addresses import Address
from receipt_actors.telemetry.overview import Incident, NodeState, State
from tests.patience import PATIENCE_SECONDS
from tests.ports import reserved_port
from tests.stand_in_system import supervisor, worker

from .conftest import Page
from .scripted import EPOCH_SECONDS, ScriptedSystem, incidents, node, role

TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = "<img src=x onerror=\"window.hacked=1\"> & <script>window.hacked=1</script> 'x'"
OTHERS = node("node-b", NodeState.ACTIVE, 20, 7), node("node-c", NodeState.STANDBY, heard=7.2)

# Every text that can be seen and has too little contrast with what is behind it: WCAG's AA wants 4.5.
PALE_TEXTS = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const pixel = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  const layers = [];
  for (let e = element; e !== null; e = e.parentElement) layers.unshift(pixel(getComputedStyle(e).backgroundColor));
  const cover = (under, [r, g, b, a]) => [r, g, b].map((c, i) => (c * a + under[i] * (255 - a)) / 255);
  return layers.reduce(cover, [255, 255, 255]);
};
const pale = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
  if (element.closest(":disabled, .unseen, option, script")) continue;
  const style = getComputedStyle(element);
  const ink = pixel(element instanceof SVGElement ? style.fill : style.color).slice(0, 3);
  const [dark, bright] = [luminance(ink), luminance(ground(element))].sort((a, b) => a - b);
  const ratio = (bright + 0.05) / (dark + 0.05);
  if (ratio < 4.5) pale.push(`${texts.currentNode.data.trim()} (${element.className}): ${ratio.toFixed(2)}`);
}
return [...new Set(pale)];
"""


def test_the_picture_follows_the_system(live: Page, system: ScriptedSystem, server: AdminServer) -> None:
    assert live.text("#state-name") == "consuming"
    assert "ReceiptsSQS" in live.text("#state-meaning")
    live.until(lambda: live.text("#figure-received .value") not in ("–", "0"), "messages a second")
    live.until(lambda: live.all("#charts .line"), "curves")
    live.until(lambda: live.text("#p99").endswith("ms"), "a p99")
    assert "claimed by another user" in live.text("#verdicts")
    assert "verifying" in live.text("#steps")
    assert "closed" in live.text("#services")
    system.state = State.DRAINING
    live.until_text("#state-name", "draining")
    assert live.text("#announcer").startswith("Now draining")
    assert live.script("return document.title").startswith("DRAINING")
    assert not live.find("#pause").is_enabled()
    hosts = {urlsplit(url).netloc for url in live.requested_urls() if url.startswith(("http", "ws"))}
    assert hosts == {urlsplit(server.url).netloc}


def test_what_changes_in_the_tree_stands_out(live: Page, system: ScriptedSystem) -> None:
    live.until(lambda: live.row("ledger_gateway"), "the tree")
    system.restarts = 2
    live.until(lambda: live.row("ledger_gateway").find_elements(By.CSS_SELECTOR, ".number.warn"), "the restart")
    assert "2 restarts, the last a moment ago" in live.row("ledger_gateway").get_attribute("aria-label")
    assert live.text("#figure-restarts .value") == "2"

    def grow() -> bool:
        system.mailbox += 20
        return "↑" in live.row("ledger_gateway").text

    live.until(grow, "the mailbox to grow")
    live.row("gateways").find_element(By.CSS_SELECTOR, ".twisty").click()

    def folded_row_warns() -> bool:
        system.mailbox += 20
        return bool(live.row("gateways").find_elements(By.CSS_SELECTOR, ".light.warn"))

    live.until(folded_row_warns, "the folded row to warn")
    assert "2 actors below" in live.row("gateways").get_attribute("aria-label")


def test_the_tree_is_used_by_keyboard(live: Page, system: ScriptedSystem) -> None:
    live.until(lambda: live.row("root"), "the tree")
    assert len(live.all("#tree [tabindex='0']")) == 1
    live.find("#tree [tabindex='0']").send_keys(Keys.ARROW_DOWN)
    assert live.focused_name() == "telemetry"

    def press(*keys: str) -> str:
        for key in keys:
            live.driver.switch_to.active_element.send_keys(key)
        return live.focused_name()

    assert press(Keys.ARROW_LEFT) == "telemetry"
    assert live.driver.switch_to.active_element.get_attribute("aria-expanded") == "false"
    assert press(Keys.ARROW_DOWN) == "pipeline"
    assert press(Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT) == "statistics"
    assert press(Keys.ARROW_LEFT) == "telemetry"
    assert press(Keys.END) == "consumer-4"
    assert press("v") == "visibility_batcher"
    assert press(Keys.HOME) == "root"
    assert live.press_at_once("v", "a") == "validators"  # one word
    assert live.driver.switch_to.active_element.get_attribute("aria-expanded") == "false"  # short-lived: a count
    assert "45 actors" in live.driver.switch_to.active_element.text
    assert live.press_at_once("ArrowRight", "ArrowRight").startswith("validator ")  # which the next picture is without
    assert "and 37 more" in live.text("#tree")
    # The validator ends, and the focus is with its supervisor.
    live.until(lambda: live.focused_name() == "validators", "the validator to end")
    moment = system.second
    live.until(lambda: system.second > moment + 3, "some more pictures")
    assert live.focused_name() == "validators"


def test_curves_are_read_by_keyboard(live: Page) -> None:
    drawn = "return document.querySelector('.line.in')?.getAttribute('d') ?? ''"
    live.until(lambda: len(live.script(drawn)) > 60, "a curve")
    plot = live.find("#charts .plot")
    plot.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    said = str(plot.get_attribute("aria-valuetext"))
    assert "received" in said and "answered" in said
    assert said[:8] == live.text("#charts .chart-time")
    assert len(live.all("#charts .cursor")) == 6
    plot.send_keys(Keys.ESCAPE)
    assert live.all("#charts .cursor") == []


def test_consumers_are_paused_and_resumed_after_a_question(live: Page, system: ScriptedSystem) -> None:
    live.click("#pause")
    assert "in flight will be finished" in live.text("#confirm-text")
    live.click("#confirm-no")
    assert system.state is State.CONSUMING
    live.click("#pause")
    live.click("#confirm-yes")
    live.until_text("#state-name", "paused")
    live.until_text("#pause", "Resume consumers")
    live.click("#pause")
    live.click("#confirm-yes")
    live.until_text("#state-name", "consuming")


def test_a_trace_shows_its_events_as_they_come(live: Page, system: ScriptedSystem) -> None:
    live.find("[name=event]").send_keys("claim, claimed")
    live.find("[name=user_id]").send_keys("42")
    live.click("#trace-start")
    assert system.traced.acquire(timeout=PATIENCE_SECONDS)
    (trace,) = system.traces
    filters = {name: values for name, values in trace.request.filters.items() if values}
    assert filters == {"event": ["claim", "claimed"], "user_id": ["42"]}
    assert (trace.request.limit, trace.request.seconds) == (10, 15.0)
    trace.on_event({"at_seconds": EPOCH_SECONDS + 0.25, "event": "claim", "actor": "ledger_gateway", "user_id": 42})
    live.until_text("#trace-events", "ledger_gateway")
    assert "user id42" in live.text("#trace-events")
    trace.on_end("limit")
    live.until_text("#trace-status", "1 event; ended: as many as were asked for")
    live.find("[name=event]").clear()
    live.find("[name=event]").send_keys("nonsense")
    live.expected_errors = ("/api/trace",)
    live.click("#trace-start")
    live.until_text("#trace-error", "no event is called nonsense")


def test_a_trace_shows_what_strangers_wrote_as_it_is_until_it_is_stopped(live: Page, system: ScriptedSystem) -> None:
    live.click(".example")
    live.click("#trace-start")
    assert system.traced.acquire(timeout=PATIENCE_SECONDS)
    live.until_text("#trace-status", "Tracing")
    event = {
        "event": "claim",
        "user_id": 2**63 - 1,
        "seconds": 0.25,
        "submission_id": f"{HOSTILE} \u202eabc\u200b\x1b[2J",
    }
    system.traces[0].on_event({"at_seconds": EPOCH_SECONDS, **event, "message_id": "a\u2066b"})
    live.until_text("#trace-events", "user id9223372036854775807")
    assert HOSTILE + r" \u{202e}abc\u{200b}\u{1b}[2J" in live.text("#trace-events")
    assert r"a\u{2066}b" in live.text("#trace-events")
    assert "seconds0.250" in live.text("#trace-events")
    assert live.script("return window.hacked") is None
    live.click("#trace-stop")
    live.until_text("#trace-status", "stopped")
    assert system.traces[0].stopped.wait(PATIENCE_SECONDS)


def test_an_actor_tells_its_state(live: Page, system: ScriptedSystem) -> None:
    system.states = {"intake": {"in_flight": 48, "outages": {"ledger": None}, "names": ["a", HOSTILE]}}
    live.until(lambda: live.row("intake"), "the tree")
    live.row("intake").send_keys(Keys.ENTER)
    live.until_text("#actor-state", "in_flight48")
    assert HOSTILE in live.text("#actor-state")
    live.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert live.focused_name() == "intake"
    live.expected_errors = ("/api/actors/",)
    live.row("ledger_gateway").click()
    live.until_text("#actor-error", "no actor is named 'ledger_gateway'")


def test_a_token_is_asked_for_where_one_is_needed(page: Page, system: ScriptedSystem) -> None:
    page.expected_errors = ("401",)
    with AdminServer(Address("127.0.0.1", 0), TOKEN) as server:
        server.serve(system)
        page.open(server.url)
        page.until(lambda: page.find("#token").is_displayed(), "the form")
        page.find("#token").send_keys("wrong", Keys.ENTER)
        page.until_text("#token-error", "refuses this token")
        page.find("#token").send_keys(TOKEN, Keys.ENTER)
        page.until_live()
        page.open(server.url)
        page.until_live()
        assert page.script("return JSON.stringify(localStorage)") == "{}"
        page.script("sessionStorage.clear()")
        page.leave()


def test_a_lost_server_is_told_and_found_again(page: Page, system: ScriptedSystem) -> None:
    page.expected_errors = ("net::ERR_",)  # refused, cut short, reset: as the server's end meets a request
    with reserved_port() as port:
        with AdminServer(Address("127.0.0.1", port)) as server:
            server.serve(system)
            page.open(server.url)
            page.until_live()
        page.until(lambda: page.find("#stale").is_displayed(), "the notice")
        page.until_text("#stale-text", "old")
        assert page.text("#link") == "stale"
        assert "stale" in page.text("#announcer")
        with AdminServer(Address("127.0.0.1", port)) as server:
            server.serve(system)
            page.until_live()
            assert not page.find("#stale").is_displayed()
            page.leave()


def test_a_system_that_stops_answering_is_not_shown_as_live(live: Page, system: ScriptedSystem) -> None:
    system.answers.clear()
    try:
        live.until_text("#link", "stale")
        assert "nothing new" in live.text("#stale-text")
    finally:
        system.answers.set()
    live.until_live()


def test_several_processes_appear_as_one_system(page: Page, system: ScriptedSystem, server: AdminServer) -> None:
    system.processes = 3
    page.open(server.url)
    page.until_live()
    page.until(lambda: page.row("intake ×3"), "the tree of all")
    assert "collector" in page.text("#tree")
    assert len(page.all("#processes tr")) == 4
    page.click("#process option[value='worker-2']")
    page.until(lambda: page.row("intake"), "the tree of one")
    assert "collector" not in page.text("#tree")
    page.until(lambda: page.all("#charts .line"), "curves of its own")
    system.processes = 1  # it ends
    page.until(lambda: page.find("#process").get_attribute("value") == "", "the whole system again")


def test_a_process_that_is_being_started_has_no_age_yet(live: Page, system: ScriptedSystem) -> None:
    system.processes, system.starting = 2, ("worker-2",)
    live.until_text("#state-name", "starting")
    assert live.text("#uptime").startswith("up 3 h ")
    live.until(lambda: [cell for cell in live.all("#processes td") if cell.text == "–"], "a process without an age")
    system.starting = ("worker-1", "worker-2")
    live.until(lambda: live.text("#uptime") == "", "no age")


def test_an_incident_tells_its_story(live: Page, system: ScriptedSystem) -> None:
    assert "Nothing has happened" in live.text("#incidents-card")
    system.incidents = incidents()
    live.until_text("#incidents", "validator crashed")
    assert [badge.text for badge in live.all("#incidents .badge")] == ["recovered", "outage", "crash", "unknown answer"]
    assert "×17" in live.text("#incidents")
    live.all("#incidents summary")[2].click()
    assert "KeyError: 'in_app'" in live.all("#incidents details")[2].text
    live.find("#incident-kinds button:nth-child(4)").click()
    assert [badge.text for badge in live.all("#incidents .badge")] == ["crash"]
    live.find("#incident-kinds button").click()
    newest = Incident(EPOCH_SECONDS + 200, "storm", "pipeline gives up")
    system.incidents = (newest, *incidents())
    live.until_text("#incidents", "pipeline gives up")
    opened = [details.get_attribute("open") for details in live.all("#incidents details")]
    assert opened == [None, None, None, "true", None]


def test_hostile_names_are_text(live: Page, system: ScriptedSystem) -> None:
    system.extra_actors = (worker(HOSTILE), supervisor(f"{HOSTILE}2", "one_for_one"))
    system.queues = {"ReceiptsSQS": 1, HOSTILE: 2, "q" * 400: 3}
    system.incidents = (Incident(EPOCH_SECONDS, "crash", HOSTILE, (HOSTILE, "x" * 4000), HOSTILE, 3, HOSTILE),)
    system.version = HOSTILE
    hostile = node(f"{HOSTILE}\u202e", NodeState.ACTIVE, 10, 1)
    system.role = replace(role(NodeState.ACTIVE, hostile, *OTHERS), role=HOSTILE, group=HOSTILE)
    live.until_text("#nodes", HOSTILE + r"\u{202e}")
    assert HOSTILE in live.text("#nodes-group")
    live.until_text("#tree", HOSTILE)
    live.until_text("#queues", HOSTILE)
    live.until_text("#incidents", HOSTILE)
    live.until_text("#version", HOSTILE)
    assert live.script("return window.hacked") is None
    assert live.all("img[src=x], main script") == []


CUT = """
return [...document.querySelectorAll('.figure, .figure dt, .value, .percentiles, .tree-head > *, .row > *, .scroll')]
  .filter(each => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1)
  .filter(each => innerWidth > 1000 || !each.matches('.scroll'))
  .map(each => each.className + ': ' + each.textContent.trim().slice(0, 60))
"""


@pytest.mark.parametrize("width", [1280, 768, 390, 360])
def test_nothing_is_cut_off_and_nothing_scrolls_sideways(live: Page, system: ScriptedSystem, width: int) -> None:
    live.resize(width)
    assert live.script(CUT) == [] or width == 360
    system.processes = 3
    system.role = role(NodeState.ACTIVE, node("n" * 128, NodeState.ACTIVE, 30, 4_000_000), *OTHERS)
    system.incidents = (Incident(EPOCH_SECONDS, "crash", "x" * 300, ("y" * 300,), "m" * 100),)
    system.extra_actors = (worker("z" * 200),)
    live.until_text("#incidents", "xxx")
    live.until_text("#processes", "worker-3")
    assert live.script("return document.documentElement.scrollWidth") <= width
    too_wide = ".filter((card) => card.getBoundingClientRect().right > innerWidth)"
    assert live.script(f"return [...document.querySelectorAll('main .card')]{too_wide}.map((card) => card.id)") == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read_and_the_theme_be_chosen(
    live: Page, system: ScriptedSystem, server: AdminServer, theme: str
) -> None:
    live.prefer(theme)
    ground = live.script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(243, 245, 249)", "dark": "rgb(11, 15, 23)"}[theme]
    live.until(lambda: live.row("ledger_gateway"), "the tree")
    assert live.script(PALE_TEXTS) == []
    for state in NodeState:
        system.role = role(state, node("node-a", state, 30, 4), *OTHERS)
        live.until_text("#nodes-lease", state)
        assert live.script(PALE_TEXTS) == []
    system.unavailable = ("ledger", "app_store")
    system.restarts = 1
    system.incidents = incidents()
    system.extra_actors = (replace(worker("suspect"), status="suspended"),)
    live.until_text("#gate", "closed")
    live.until_text("#incidents", "validator crashed")
    live.until(lambda: live.row("suspect"), "the suspended actor")
    assert live.script(PALE_TEXTS) == []
    live.click("#theme option[value='dark']")
    live.open(server.url)
    assert live.script("return getComputedStyle(document.body).backgroundColor") == "rgb(11, 15, 23)"
    live.script("localStorage.clear()")


def test_who_shares_the_work_is_shown(live: Page, system: ScriptedSystem) -> None:
    live.until(lambda: live.row("root"), "the tree")
    assert not live.find("#nodes-card").is_displayed()
    assert not live.find("#nodes-link").is_displayed()
    system.role = role(NodeState.ACTIVE, node("node-a", NodeState.ACTIVE, 30, 4), *OTHERS)
    live.until(lambda: live.find("#nodes-card").is_displayed(), "the nodes")
    assert live.find("#nodes-link").is_displayed()
    assert "load-balanced, group ReceiptsSQS" in live.text("#nodes-group")
    assert live.text("#nodes-lease") == "This node: active, its lease held for 7.3 s"
    rows = [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in live.all("#nodes tr")]
    assert rows == [
        ["node-a", "active", "4", "", "30 of 50", "this node"],
        ["node-b", "active", "7", "", "20 of 50", "0 s ago"],
        ["node-c", "standby", "–", "", "–", "7 s ago"],
    ]
    widths = [bar.size["width"] / bar.find_element(By.XPATH, "..").size["width"] for bar in live.all("#nodes .bar")]
    assert widths[0] > widths[1] > 0 == widths[2]
    assert len(live.all("#nodes td.number.warn")) == 1  # who has not been heard of for most of a lease
    live.click("#pause")
    assert "stays active" in live.text("#confirm-text")
    live.click("#confirm-no")
    system.role = None
    live.until(lambda: not live.find("#nodes-card").is_displayed(), "it to be alone")


def test_a_node_that_stands_by_or_is_cut_off_says_why_it_does_nothing(live: Page, system: ScriptedSystem) -> None:
    system.role = role(NodeState.STANDBY, node("node-a", NodeState.STANDBY), *OTHERS, name="active-standby")
    system.state = State.STANDBY
    live.until_text("#state-name", "standby")
    assert "takes over from one that goes" in live.text("#state-meaning")
    assert "calm" in str(live.find("#state").get_attribute("class"))
    live.until_text("#announcer", "Now standby")
    live.until_text("#nodes-lease", "it takes over from an active node")
    system.role = role(NodeState.CUT_OFF, node("node-a", NodeState.CUT_OFF), *OTHERS)
    system.state = State.WAITING
    live.until_text("#state-meaning", "The table of roles unavailable")
    live.until_text("#nodes-lease", "nothing new is begun")
    assert "bad" in str(live.find("#nodes-lease").get_attribute("class"))
