"""Answers reach the page whatever the order in which its stream ends and its events join.

The scripts below stand between the page and the network, before the page's own scripts do: every
request is real, only the order in which the page reads what the server said is chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.e2e.test_chat import ask, column, open_chat

ROUNDS = 50

BETWEEN = """
  const fetch = window.fetch.bind(window);
  const task = () => new Promise((done) => setTimeout(done));
  window.fetch = (resource, options) => {
    const url = resource.url ?? String(resource);
    if (url.includes("/queue/join")) return join(fetch(resource, options));
    if (url.includes("/queue/data")) return listen(fetch(resource, options));
    return fetch(resource, options);
  };
"""

# Holds back the word that a stream ends until the next event has joined, and gives the page both in
# every order: the end first, both at once either way, the end last.
RACE = """
  window.races = 0;
  window.held = null; // lets the page read that its stream ended
  window.racing = false;
  const orders = [
    async (release, answer) => { release(); await task(); await task(); return answer; },
    async (release, answer) => { release(); return answer; },
    async (release, answer) => { Promise.resolve().then(release); return answer; },
    async (release, answer) => { setTimeout(() => setTimeout(release)); return answer; },
  ];
  async function join(asked) {
    const answer = await asked, release = window.held;
    if (!release) return answer;
    window.held = null;
    return orders[window.races++ % orders.length](release, answer);
  }
  async function listen(asked) {
    const answer = await asked, encoder = new TextEncoder();
    const hold = new TransformStream({
      async transform(chunk, out) {
        const text = new TextDecoder().decode(chunk);
        const at = text.indexOf('data: {"msg":"close_stream"');
        if (at < 0 || !window.racing) return out.enqueue(chunk);
        if (at) out.enqueue(encoder.encode(text.slice(0, at)));
        await new Promise((release) => { window.held = release; });
        out.enqueue(encoder.encode(text.slice(at)));
      },
    });
    return new Response(answer.body.pipeThrough(hold), answer);
  }
"""

# Gives a model a column and takes it away again; each answer has to reach the page. Before the race
# it clicks until the page answers at all: one that is still being built hears nothing.
TOGGLE = """async (rounds) => {
  const until = async (what, patience = 15000) => {
    for (const end = Date.now() + patience; !what(); await new Promise(requestAnimationFrame))
      if (Date.now() > end) return false;
    return true;
  };
  const shown = () => [...document.querySelectorAll(".chat-head h3")]
    .some((name) => name.textContent === "demo:spanish");
  const chip = document.querySelector("#chat-models input[name='demo:spanish']");
  const toggled = async (patience, more = () => true) => {
    const wanted = !shown();
    chip.click();
    return until(() => shown() === wanted && more(), patience);
  };
  for (let tries = 0; tries < 5 && !(await toggled(5000)); tries++);
  window.racing = true;
  while (window.races < rounds) if (!(await toggled(15000, () => window.held))) break;
  window.racing = false;
  window.held?.();
  return window.races;
}"""

# An event that joins while others stream is told so only after it has ended.
LATE = """
  window.lates = 0;
  let streams = false, joining = 0;
  const completed = new Set();
  async function join(asked) {
    const others = joining++;
    const answer = await asked, { event_id } = await answer.clone().json();
    for (let turns = 0; others && !streams && turns < 50; turns++) await task(); // one opens it
    joining--;
    for (window.lates += streams; streams && !completed.has(event_id);) await task();
    return answer;
  }
  async function listen(asked) {
    streams = true;
    const answer = await asked;
    const read = new TransformStream({
      transform(chunk, out) {
        const text = new TextDecoder().decode(chunk);
        const ends = text.matchAll(/"process_completed","event_id":"(\\w+)"/g);
        for (const [, id] of ends) completed.add(id);
        out.enqueue(chunk);
      },
      flush() { streams = false; },
    });
    return new Response(answer.body.pipeThrough(read), answer);
  }
"""


@pytest.fixture
def open_between(open_page: Callable, app) -> Callable:
    """Opens Chat on a page whose answers pass through a script."""

    def opened(script: str):
        page = open_page(goto=False)
        page.add_init_script(f"(() => {{ {BETWEEN} {script} }})()")
        page.goto(app.url)
        open_chat(page)
        page.locator("#map .js-plotly-plot .main-svg").first.wait_for(state="attached")
        return page

    return opened


def test_no_order_of_ends_and_joins_makes_a_page_deaf(open_between: Callable) -> None:
    page = open_between(RACE)
    assert page.evaluate(TOGGLE, ROUNDS) == ROUNDS
    ask(page, "What is 37 + 45?")
    expect(column(page, "demo:base").last.locator(".note")).to_contain_text("token", timeout=30_000)


def test_events_that_end_before_they_are_told_to_have_joined_are_answered(
    open_between: Callable,
) -> None:
    page = open_between(LATE)
    for number in range(3):
        ask(page, f"What is {number} + 45?")
        for name in ("demo:base", "demo:add"):
            turns = column(page, name).locator(".note")
            expect(turns).to_have_count(number + 1, timeout=30_000)
            expect(turns.last).to_contain_text("·", timeout=30_000)
    assert page.evaluate("lates") > 0


def test_a_question_asked_at_once_needs_no_script_that_is_still_to_come(
    open_page: Callable, app
) -> None:
    page = open_page(goto=False)
    slow: list = []
    scripts = "**/amalgam-*.js"
    page.route(scripts, lambda route: slow.append(route))
    with page.expect_request(scripts):
        page.goto(app.url, wait_until="commit")
    page.wait_for_timeout(1_000)
    slow[0].continue_()
    open_chat(page)
    ask(page, "What is 37 + 45?")
    expect(column(page, "demo:base").last.locator(".note")).to_contain_text("token", timeout=30_000)
