"use strict";
/* Hosts the live plots: mounts each panel, re-plans when a control moves, redraws what changed.

   One state for the page. `set` takes the controls' values. What follows the hand is painted over its
   plot (brush.js); once the controls rest, every panel is redrawn by Plotly.react on its own node,
   one panel a frame, the map first, and the map's panel triggers "settle": the server answers with
   exact numbers. */
(() => {
  const SETTLE_MS = 120, DRAWN_MS = 40; // from the last move, and from its drawing, to the server's answer
  const PRESSED_MS = 400; // as SETTLE_MS while a finger or a button is still on a slider
  const REST_MS = 100, FOLLOW = ["map", "histogram"]; // what follows while the controls move; the rest when they rest
  const ANSWER_MS = 600; // what was painted waits this long for the answer, to be drawn once
  const LATER = 0, PAINTED = 1, DRAWN = 2; // what a panel needs: to be drawn once all rests, painted, drawn at once
  const ORDER = ["map", "histogram", "retention", "clash", "drift", "energy", "static"];
  const panels = new Set();
  const state = {
    family: null, plan: null, totals: null, exact: null, moves: 0, values: null, chosen: null, laws: null,
    detail: null, module: null, // the layer and the module that are looked at, by their index; null is all
    measure: "l2", expert: -1, // what "What survives where" shows; -1 is all experts
    clash: null, // per cell, of the last answer: sampled changes that are kept, and that are opposed
    arrival: null, arrived: false, // the merged change that was foreseen, and whether for these controls
    filled: 0, unit: "share", height: "linear", zoom: null, // the histogram: whose bars, and its axes
  };
  const dirty = new Map(); // panels that need it
  let frame = 0, timer = 0, moved = -Infinity, names = [], bounds = {}, foreshown = false;

  const find = (kind) => [...panels].find((panel) => panel.kind === kind && panel.element.isConnected);
  const { make, describe, tools } = globalThis.amalgamTools; // loaded before

  function replan() {
    if (!state.family || !state.values) return;
    const { settings, plan } = globalThis.amalgamPlan;
    state.plan = plan(state.family, { ...settings(state.values, state.laws), densities: varied() });
    retell();
  }

  /* Densities that the opened recipe varies, as long as the rate that stands for them does. */
  function varied() {
    const { densities, asked } = find("headline")?.value ?? {};
    const stay = ["prune", "rate", "opened"].every((name) => asked?.[name] === state.values[name]);
    return densities && stay && densities.length === state.family.experts ? densities : null;
  }

  /* What is kept in all: the engine's own numbers where they are known. */
  function retell() {
    if (state.plan) state.totals = state.exact?.whole ?? globalThis.amalgamPlan.totals(state.family, state.plan);
  }

  /* Values within their bounds; a number box that was emptied keeps what it had. */
  const within = (value, name) => {
    const bound = bounds[name];
    if (!bound) return value;
    const number = typeof value === "number" && !Number.isNaN(value) ? value : state.values[name];
    return Math.min(bound[1], Math.max(bound[0], number));
  };
  const clamp = (values) => values.map((value, index) => within(held.get(names[index]) ?? value, names[index]));

  /* Every control's value as Gradio reports it, in the order the server listed. */
  function set(values) {
    values.forEach((value, index) => { if (held.get(names[index]) === value) held.delete(names[index]); }); // it has caught up
    follow(values);
  }

  function follow(values) {
    if (!names.length) return;
    const before = JSON.stringify(state.values);
    state.values = Object.fromEntries(clamp(values).map((value, index) => [names[index], value]));
    if (JSON.stringify(state.values) === before && !foreshown) return;
    foreshown = false;
    accept();
    state.moves++;
    moved = performance.now();
    replan();
    if (state.exact) headline(find("headline")); else live();
    for (const panel of panels) need(panel, FOLLOW.includes(panel.kind) && panel.bound ? PAINTED : DRAWN);
    rest();
  }

  /* Draws settings that the controls are about to get. Nothing is asked before they have them: then
     `set` is told of them. */
  function foreshow({ values, offsets }) {
    clearTimeout(timer);
    foreshown = true;
    state.values = { ...state.values, ...values };
    Object.assign(state.family, { offsets, curveKey: null });
    moved = performance.now();
    accept();
    replan();
    if (state.exact) headline(find("headline")); else live();
    redraw();
  }

  function rest(wait = SETTLE_MS) {
    clearTimeout(timer);
    if (!state.family) return;
    timer = setTimeout(() => { timer = 0; find("map")?.trigger("settle"); }, pressed ? Math.max(wait, PRESSED_MS) : wait);
  }

  /* A drag is one question, however slowly its moves come in. */
  let pressed = false;
  document.addEventListener("pointerdown", ({ target }) => { pressed = Boolean(target.closest?.("[id^=control-], .cut")); }, true);
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => {
    if (!pressed) return;
    pressed = false;
    if (timer) rest();
  }, true);

  function redraw(panel = null) {
    for (const each of panel ? [panel] : panels) need(each, DRAWN);
  }

  function need(panel, what) {
    dirty.set(panel, Math.max(what, dirty.get(panel) ?? LATER));
    if (!frame) frame = requestAnimationFrame(draw);
  }

  /* One frame: what follows the hand is painted, and one panel is drawn. */
  function draw() {
    frame = 0;
    if (!globalThis.Plotly) return void setTimeout(redraw, 15);
    if (!state.plan) replan();
    const seen = (panel) => panel.element.isConnected && panel.node?.clientWidth > 40 && panel.value;
    for (const panel of [...dirty.keys()].filter((each) => !seen(each))) dirty.delete(panel);
    const moving = [...dirty.keys()].filter((panel) => dirty.get(panel) === PAINTED);
    moving.forEach(paint);
    if (moving.length) moved = performance.now(); // a slow frame is no rest
    const still = performance.now() - moved;
    const due = [...dirty.keys()].filter((panel) => still >= wait(panel)).sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind));
    if (due[0] && (due[0].kind === "static" || state.plan)) plot(due[0]);
    dirty.delete(due[0]);
    const next = Math.min(...[...dirty.keys()].map(wait)) - still;
    if (due.length > 1) frame = requestAnimationFrame(draw);
    else if (dirty.size) setTimeout(() => { frame ||= requestAnimationFrame(draw); }, next);
  }

  /* How long the controls must have rested before a panel is drawn, in milliseconds. */
  function wait(panel) {
    const follows = FOLLOW.includes(panel.kind), what = dirty.get(panel);
    if (what === DRAWN && follows) return 0;
    return what === LATER && !state.exact ? ANSWER_MS : REST_MS;
  }

  const figure = (panel) => {
    const { draw: figures, palette } = globalThis.amalgamFigures;
    return figures[panel.kind](panel.value.figure, state, palette(), panel.node.clientWidth);
  };

  /* The picture of now over its plot, whose axes and names stay; under what plotly.js writes on it. */
  function paint(panel) {
    const box = panel.node.querySelector(".svg-container"), card = getComputedStyle(panel.element).backgroundColor;
    panel.brush ??= make("canvas", { className: "painted", ariaHidden: "true" });
    if (panel.brush.parentElement !== box) box.insertBefore(panel.brush, box.querySelector(".main-svg ~ .main-svg"));
    panel.brush.hidden = false;
    globalThis.amalgamBrush.paint(panel.brush, figure(panel), { ground: card });
    dirty.set(panel, LATER);
    followed(panel);
  }

  function plot(panel) {
    const { data, layout } = figure(panel);
    const drawing = text([data, layout]);
    if (panel.drawing !== drawing) globalThis.Plotly.react(panel.node, data, layout, { displayModeBar: false, doubleClick: false });
    panel.drawing = drawing; // what stands there already is not drawn again: that takes tens of milliseconds
    if (panel.brush) panel.brush.hidden = true;
    if (!panel.bound) {
      panel.bound = true;
      panel.node.on("plotly_click", (event) => clicked(panel, event.points?.[0]));
      if (panel.kind === "histogram") globalThis.amalgamCut.bind(panel, state, { move, redraw });
    }
    describe(panel, state);
    followed(panel);
    if (panel.kind !== "map") return;
    document.getElementById("first")?.remove(); // the live map stands where its first sight stood
    globalThis.amalgamFields.nameGroups(); // a group that was folded away may have come
  }

  /* A panel shows what the controls say. */
  function followed(panel) {
    if (panel.kind === "histogram") globalThis.amalgamCut.place(panel, state);
    if (panel.kind === "map" && timer) rest(Math.max(DRAWN_MS, moved + SETTLE_MS - performance.now()));
    panel.node.dispatchEvent(new Event("amalgam-shown"));
  }

  /* A click on a layer opens its modules; on the map of modules it chooses one, and a second click
     closes them. A cell is a layer and a module. */
  function clicked(panel, point) {
    if (!point || !["map", "retention", "clash"].includes(panel.kind)) return;
    const at = Number(point.y), { family, detail, module } = state;
    if (panel.kind !== "map") return look({ detail: at, module: family.modules.indexOf(point.x) });
    const { role, expert } = point.data.meta, filled = role === "merged" ? state.filled : expert;
    if (detail === null) return look({ detail: at, module: null, filled });
    const chosen = family.column_of[family.rows[detail][at]];
    look(chosen === module ? { detail: null, module: null } : { module: chosen, filled });
  }

  /* What is looked at: a layer, a module, an expert; every panel that shows it follows. */
  function look(change) {
    Object.assign(state, change);
    const { family, detail } = state;
    if (detail !== null && family.layers[detail] === undefined) state.detail = null;
    if (!globalThis.amalgamHistogram.cells(state).length) state.module = null; // a layer without it
    for (const panel of panels) if (panel.value && panel.kind !== "headline") tools(panel, state, act);
    redraw();
    announce();
  }

  /* Tells the page of one tensor that another cell is looked at, or that there are new numbers. */
  function announce() { globalThis.dispatchEvent(new Event("amalgam-look")); }

  /* What the tools of a panel do. */
  const act = {
    look,
    show(panel, change) { Object.assign(state, change); redraw(panel); },
  };

  /* Values that a hand gave and that Gradio has not reported yet: older ones do not count. */
  const held = new Map(), HELD_MS = 1500;
  let release = 0;
  function hold(name, value) {
    held.set(name, value);
    clearTimeout(release);
    release = setTimeout(() => held.clear(), HELD_MS);
    follow(names.map((one) => state.values[one]));
  }

  /* A hand on a slider is followed at once; Gradio reports its value some frames later. */
  document.addEventListener("input", ({ target }) => {
    const name = target.closest?.("[id^=control-]")?.id.slice("control-".length);
    if (names.includes(name) && target.value !== "" && Number.isFinite(Number(target.value))) hold(name, Number(target.value));
  }, true);

  /* Moves a slider from a plot. */
  function move(name, value) {
    hold(name, value);
    const field = document.querySelector(`#control-${name} input[type=range]`);
    if (!field) return;
    field.value = value;
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
  }

  /* The finding: parts of a sentence, numbers marked by what they measure, and the reason. */
  function say(element, { parts, reason }) {
    const part = ([text, measure]) => (measure ? make("em", { textContent: text, className: measure }) : text);
    element.querySelector("h2").replaceChildren(...parts.map(part));
    element.querySelector("p.quiet").textContent = reason;
  }

  function headline(panel) {
    const { sentence, reading = false } = panel.value;
    pause(panel, reading);
    say(panel.element, panel.value);
    panel.element.classList.remove("is-moving");
    panel.element.querySelector(".sr-only").textContent = sentence;
    if (!accept()) return;
    for (const kind of ORDER.slice(0, -1)) redraw(find(kind));
    foresee();
    announce();
  }

  /* While another family is read the plots are pale, empty ones are outlines, and how far it is takes
     the place of the finding: nothing moves, also where the new one is shorter. */
  function pause({ element }, reading) {
    const frame = element.closest(".plots"), heading = element.querySelector("h2");
    if (reading && !heading.style.minHeight)
      for (const node of [element, heading]) node.style.minHeight = `${node.getBoundingClientRect().height}px`;
    if (!reading) heading.style.minHeight = "";
    frame?.classList.toggle("is-reading", reading);
    if (frame) frame.ariaBusy = String(reading);
  }
  addEventListener("resize", () => { find("headline")?.element.style.removeProperty("min-height"); });

  const text = JSON.stringify; // lists of experts too

  /* Whether an answer is one to the controls as they stand. */
  function answers(answer) {
    const asked = answer?.asked;
    const of = (name) => (name === "base" || name === "experts" ? state.chosen : state.values);
    const same = (name) => !of(name) || text(asked[name]) === text(of(name)[name]);
    return Boolean(asked) && Object.keys(asked).every(same);
  }

  /* What arrives, as the server foresees it. */
  function arrive(panel) {
    const { arrival, asked } = panel.value;
    if (!asked) return foresee(); // the panel of a family that was just read
    if (!answers(panel.value)) return;
    Object.assign(state, { arrival: arrival && globalThis.amalgamMap.unpacked(arrival, state.family), arrived: true });
    arrives();
    redraw(find("map"));
  }

  /* The finding's second line: how far the merge moves; pale while the controls ask for another. */
  function arrives() {
    const line = find("headline")?.element.querySelector(".arrives"), { moves = "" } = find("drift")?.value ?? {};
    if (!line) return;
    line.classList.toggle("is-stale", !state.arrived);
    if (line.textContent !== moves) line.textContent = moves;
  }

  /* Asks for what arrives, once the exact numbers are there. */
  function foresee() {
    if (state.exact && state.family && !state.arrived) find("drift")?.trigger("foresee");
  }

  /* Takes the server's exact numbers where they answer the controls as they stand. */
  function accept() {
    const { exact } = find("headline")?.value ?? {};
    const current = exact && answers(find("headline").value);
    state.exact = current ? exact : null;
    if (current) state.clash = exact.clash;
    if (state.arrived !== (state.arrived = answers(find("drift")?.value))) redraw(find("drift"));
    arrives();
    const { offsets } = find("headline")?.value ?? {};
    const { family } = state;
    if (current && family && offsets && text(offsets) !== text(family.offsets)) {
      Object.assign(family, { offsets, curveKey: null }); // outlier knobs move them
      replan();
    }
    if (current && state.plan && text(varied()) !== text(state.plan.settings.densities)) replan();
    retell();
    return Boolean(current);
  }

  /* While a slider moves: what the browser knows at once. The rest waits for the server. */
  function live() {
    const panel = find("headline");
    if (!panel || !state.totals) return;
    panel.element.classList.add("is-moving");
    for (const measure of ["entries", "l2"]) {
      const number = panel.element.querySelector(`em.${measure}`);
      if (number) number.textContent = globalThis.amalgamFigures.percent(state.totals[measure]);
    }
  }

  function read(panel, text) {
    panel.value = text ? JSON.parse(text) : null;
    panel.element.classList.toggle("is-empty", !panel.value);
    if (!panel.value) return clear(panel);
    if (panel.kind === "headline") return headline(panel);
    if (panel.value.family) adopt(panel.value);
    if (panel.kind !== "static" && !state.family) return;
    if (panel.kind === "drift") arrive(panel);
    tools(panel, state, act);
    redraw(panel);
  }

  /* Nothing to show: an empty panel, and no questions to the server. */
  function clear(panel) {
    if (panel.kind === "map") Object.assign(state, { family: null, chosen: null, plan: null, totals: null, exact: null, clash: null, arrival: null, arrived: false });
    if (panel.kind === "drift") arrives();
    if (panel.bound) globalThis.Plotly.purge(panel.node);
    if (panel.handle) panel.handle.hidden = true;
    Object.assign(panel, { bound: false, drawing: null });
    panel.element.querySelectorAll(".tools, .note, .as-table, figcaption").forEach((node) => node.replaceChildren());
    panel.node?.setAttribute("aria-label", "Nothing to show.");
  }

  /* A new family: its histograms, and the controls that go with it. */
  function adopt({ family, controls }) {
    ({ names, bounds } = controls);
    state.laws = controls.laws;
    state.values = Object.fromEntries(names.map((name, index) => [name, controls.values[index]]));
    state.chosen = state.values; // the base and the experts that the histograms are of
    const before = state.family, now = globalThis.amalgamPlan.decode(family);
    Object.assign(state, { family: now, plan: null, arrival: null, arrived: false, ...looked(before, now) });
    accept();
    replan();
    globalThis.amalgamFields.nameGroups();
    if (state.moves) rest(); // the controls may have moved meanwhile
    for (const panel of panels) if (panel.value && panel.kind !== "headline") tools(panel, state, act);
    redraw();
    return state;
  }

  /* What was looked at, where the new family has it too: the open layer, the chosen expert. */
  function looked(before, now) {
    const named = (one) => one.looks.map((look) => look.name);
    const same = before && String([before.layers, before.modules]) === String([now.layers, now.modules]);
    const again = (expert) => (before && expert >= 0 ? named(now).indexOf(named(before)[expert]) : -1);
    const { detail, module, expert, filled } = state;
    const stays = { detail: same ? detail : null, module: same ? module : null, zoom: same ? state.zoom : null };
    return { ...stays, expert: again(expert), filled: Math.max(0, again(filled)) };
  }

  /* Called once by each panel when Gradio has put it on the page. */
  function mount(element, props, watch, trigger) {
    for (const old of panels) if (!old.element.isConnected) panels.delete(old);
    const root = element.querySelector("[data-kind]");
    const panel = { kind: root.dataset.kind, element: root, trigger, node: root.querySelector(".plot"), value: null };
    panels.add(panel);
    if (panel.node) new ResizeObserver(() => redraw(panel)).observe(panel.node);
    read(panel, props.value);
    watch("value", () => read(panel, props.value));
  }

  new MutationObserver(() => redraw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  globalThis.amalgam = { mount, set, foreshow, clamp, within, adopt, say, state, redraw: (kind) => redraw(find(kind)) };
})();
