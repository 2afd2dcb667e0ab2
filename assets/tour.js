"use strict";
/* The tour (ui/tour.py): a card and a light beside the real controls. Nothing is locked: the person
   does the thing itself, and a step is over when it was done. */
(() => {
  const KEY = "amalgam-tour", WIDE = "(min-width: 1280px)", PHONE = "(max-width: 768px)";
  const TICK_MS = 150, REST = 5; // ticks without a move
  const CONTROL = "input:not([type=hidden]), textarea, button, select, [tabindex='0']";

  const one = (selector) => document.querySelector(selector);
  const isSeen = (node) => Boolean(node?.getClientRects().length) && getComputedStyle(node).visibility !== "hidden";
  const seen = (selector) => [...document.querySelectorAll(selector)].find(isSeen);
  const room = () => one("#rooms [role=tab][aria-selected=true]")?.textContent.trim() ?? "";
  const state = () => globalThis.amalgam.state;
  const slider = () => seen("input[type=range][aria-label='range slider for Pruning rate']");
  const answers = () => document.querySelectorAll("#chat-board .cell.is-over[aria-busy=false]").length;
  const written = () => one("#live-kept")?.textContent.trim() ?? "";

  /* By step: which part of Explore it is in, what is lit, which control takes the focus, and when it
     is over. `start` holds what `begin` noted when the step began. */
  const STEPS = {
    map: {
      part: "shape", target: () => seen("#map"),
      begin: () => ({ detail: state().detail }), isOver: (start) => state().detail !== start.detail,
    },
    rate: {
      part: "shape", target: () => slider()?.closest(".block"),
      begin: () => ({ rate: state().values?.rate, moves: -1, rest: 0 }),
      isOver(start) { // once it rests at another rate, and the server has answered
        start.rest = state().moves === start.moves && !isHeld ? start.rest + 1 : 0;
        start.moves = state().moves;
        return state().values?.rate !== start.rate && Boolean(state().exact) && start.rest > REST;
      },
    },
    live: {
      part: "live", target: () => seen("#live"), control: () => seen("#live-on input"),
      begin: () => ({}),
      isOver() {
        const bars = [...document.querySelectorAll("#live-meters [role=meter]")];
        return Boolean(one("#live-on input")?.checked) && bars.length > 0 && bars.every((bar) => bar.hasAttribute("aria-valuenow"));
      },
    },
    keep: {
      part: "live", target: () => seen(".live-keep"), control: () => seen("#live-name :is(input, textarea)"),
      begin: () => ({ written: written() }),
      isOver: (start) => written() !== start.written && isSeen(one("#live-to-chat")),
    },
    ask: {
      part: "live", isIn: (name) => name === "Explore" || name === "Chat",
      target: () => (room() === "Chat" ? seen("#chat-prompt") : seen("#live-to-chat")),
      begin: () => ({ answers: answers() }),
      isOver: (start) => answers() > start.answers && !one("#chat-board .cell[aria-busy=true]"),
    },
    end: { isIn: () => true, target: () => null, begin: () => ({}), isOver: () => false },
  };
  const KEYS = Object.keys(STEPS);
  let isHeld = false; // the pointer is down
  for (const [name, down] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]])
    addEventListener(name, () => { isHeld = down; }, true);

  const remembered = () => { try { return localStorage.getItem(KEY); } catch { return "seen"; } };
  const remember = () => { try { localStorage.setItem(KEY, "seen"); } catch { /* a browser that keeps nothing */ } };

  function mount(element, trigger) {
    const part = (name) => element.querySelector(`.tour-${name}`);
    const card = part("card"), { base } = card.dataset, light = part("light"), offer = part("offer");
    let at = -1, start = {}, timer = 0, before = null, lit = null;

    const step = () => STEPS[KEYS[at]];
    const section = () => card.querySelector(`section[data-key=${KEYS[at]}]`);
    const act = (name) => card.querySelector(`.tour-verbs [data-act=${name}]`);
    const isOther = () => KEYS[at] !== "end" && room() === "Explore" && state().values && state().values.base !== base;
    offer.hidden = !base || Boolean(remembered());

    function begin() {
      before = document.activeElement;
      remember();
      offer.hidden = true;
      if (room() !== "Explore") one("#rooms [role=tab]").click();
      const rows = one("#map .tools select"); // the first step speaks of layers
      if (rows?.value) {
        rows.value = "";
        rows.dispatchEvent(new Event("change"));
      }
      clearInterval(timer);
      timer = setInterval(tick, TICK_MS);
      go(0);
    }

    function end() {
      clearInterval(timer);
      timer = 0;
      at = -1;
      card.hidden = light.hidden = true;
      lit = null;
      if (!isSeen(before)) before = one("#rooms [role=tab][aria-selected=true]");
      if (card.contains(document.activeElement) || document.activeElement === document.body) before?.focus();
    }

    /* A step begins: the part of the page that it is in, its words, and the focus. */
    function go(to) {
      at = to;
      start = step().begin();
      reveal();
      for (const one of card.querySelectorAll("section")) one.hidden = one !== section();
      const last = KEYS[at] === "end", title = section().querySelector("h2").textContent;
      const place = last ? "Tour" : `Tour, step ${at + 1} of ${KEYS.length - 1}`;
      part("place").textContent = place;
      card.ariaLabel = `${place}: ${title}`;
      act("back").hidden = last || at === 0;
      act("next").hidden = last;
      act("end").textContent = last ? "Done" : "End";
      card.hidden = false;
      lit = null;
      show();
      card.focus({ preventScroll: true });
    }

    /* On pages that are not wide, a part of Explore takes another's place. */
    function reveal() {
      const frame = one(".explore"), name = step().part;
      if (!name || matchMedia(WIDE).matches || room() !== "Explore" || frame.dataset.step === name) return;
      frame.querySelector(`.steps [data-step=${name}]`)?.click();
    }

    function tick() {
      if (!step().isIn?.(room()) && room() !== "Explore") return end();
      if (step().isOver(start)) return go(at + 1);
      show();
    }

    /* What is said of the step as things stand, the light and the card's place. */
    function show() {
      const other = isOther(), target = other ? null : step().target(), needs = section().querySelector(".tour-needs");
      part("other").hidden = !other;
      if (needs) needs.hidden = other || Boolean(target);
      const goes = section().querySelector("[data-act=go]");
      if (goes) goes.hidden = !target;
      if (target && target !== lit) bring(target);
      lit = target;
      place();
    }

    /* Scrolls to a control; on a phone to just above the card, since the map stays on top. */
    function bring(target) {
      target.scrollIntoView({ block: target.clientHeight > innerHeight / 2 ? "start" : "center" });
      if (matchMedia(PHONE).matches) scrollBy(0, target.getBoundingClientRect().bottom - (innerHeight - card.offsetHeight - 90));
    }

    function place() {
      if (at < 0) return;
      light.hidden = !lit;
      const phone = matchMedia(PHONE).matches, wide = card.offsetWidth, high = card.offsetHeight;
      if (!lit) {
        Object.assign(card.style, phone ? { left: "", top: "" } : { left: `${(innerWidth - wide) / 2}px`, top: `${(innerHeight - high) / 2}px` });
        return;
      }
      const { left, top, right, bottom } = lit.getBoundingClientRect(), edge = 6, gap = 14;
      Object.assign(light.style, {
        left: `${left - edge}px`, top: `${top - edge}px`, width: `${right - left + 2 * edge}px`, height: `${bottom - top + 2 * edge}px`,
      });
      if (phone) { // at the foot, above the bar; at the head where the control is at the foot
        const head = bottom > innerHeight - high - 76 && top > high + 20;
        Object.assign(card.style, { left: "", top: head ? "8px" : "" });
        return;
      }
      const fit = (value, most) => Math.max(gap, Math.min(value, most - gap));
      const x = fit(left, innerWidth - wide), y = fit(top, innerHeight - high);
      const places = [
        [right + gap, y], [left - wide - gap, y], [x, bottom + gap], [x, top - high - gap],
      ];
      const fits = ([px, py]) => px >= 0 && py >= 0 && px + wide <= innerWidth && py + high <= innerHeight;
      const [px, py] = places.find(fits) ?? [innerWidth - wide - 2 * gap, innerHeight - high - 2 * gap];
      Object.assign(card.style, { left: `${px}px`, top: `${py}px` });
    }

    const ACTS = {
      end, next: () => go(at + 1), back: () => go(at - 1),
      family: () => { trigger("input"); card.focus(); },
      go() {
        const control = step().control?.() ?? (lit?.matches(CONTROL) ? lit : [...lit.querySelectorAll(CONTROL)].find((node) => isSeen(node) && !node.disabled));
        (KEYS[at] === "rate" ? slider() : control)?.focus();
      },
    };
    card.addEventListener("click", ({ target }) => ACTS[target.closest("button")?.dataset.act]?.());
    part("no").addEventListener("click", () => {
      remember();
      offer.hidden = true;
      one("#rooms [role=tab][aria-selected=true]")?.focus();
    });
    document.addEventListener("click", ({ target }) => { if (target.closest?.("[data-tour]")) begin(); });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || at < 0) return;
      event.stopImmediatePropagation(); // it ends the tour, and nothing else
      end();
    }, true);
    for (const name of ["scroll", "resize"]) addEventListener(name, place, { capture: true, passive: true });
  }

  globalThis.amalgamTour = { mount };
})();
