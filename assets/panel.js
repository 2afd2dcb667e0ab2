"use strict";
/* Hosts the live plots: mounts each panel, re-plans when a control moves, redraws what changed.

   One state for the page. `set` takes the controls' values; a panel is redrawn by Plotly.react on
   its own node, one panel a frame, the map first. When the controls rest, the map's panel triggers
   "settle", and the server answers with exact numbers. */
(() => {
  const SETTLE_MS = 120;
  const ORDER = ["map", "retention", "energy", "static"];
  const panels = new Set();
  const state = {
    family: null, plan: null, totals: null, exact: null, detail: null, measure: "entries", expert: -1,
    moves: 0, values: null, chosen: null, laws: null,
  };
  const dirty = new Set();
  let frame = 0, timer = 0, names = [], bounds = {};

  const find = (kind) => [...panels].find((panel) => panel.kind === kind && panel.element.isConnected);
  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };

  function replan() {
    if (!state.family || !state.values) return;
    const { settings, plan } = globalThis.amalgamPlan;
    state.plan = plan(state.family, settings(state.values, state.laws));
    retell();
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
  const clamp = (values) => values.map((value, index) => within(value, names[index]));

  /* Every control's value, in the order the server listed. */
  function set(values) {
    if (!names.length) return;
    const before = JSON.stringify(state.values);
    state.values = Object.fromEntries(clamp(values).map((value, index) => [names[index], value]));
    if (JSON.stringify(state.values) === before) return;
    accept();
    state.moves++;
    replan();
    if (state.exact) headline(find("headline")); else live();
    redraw();
    rest();
  }

  function rest() {
    clearTimeout(timer);
    if (!state.family) return;
    timer = setTimeout(() => find("map")?.trigger("settle"), SETTLE_MS);
  }

  function redraw(panel = null) {
    for (const each of panel ? [panel] : panels) dirty.add(each);
    if (!frame) frame = requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    if (!globalThis.Plotly) return void setTimeout(redraw, 15);
    if (!state.plan) replan();
    const seen = (panel) => panel.element.isConnected && panel.node?.clientWidth > 40 && panel.value;
    const waiting = [...dirty].filter(seen);
    const panel = waiting.sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind))[0];
    if (!panel) return dirty.clear();
    dirty.delete(panel);
    if (panel.kind === "static" || state.plan) paint(panel);
    if (waiting.length > 1) frame = requestAnimationFrame(draw);
    else dirty.clear();
  }

  function paint(panel) {
    const { draw: figures, palette } = globalThis.amalgamFigures;
    const { data, layout } = figures[panel.kind](panel.value.figure, state, palette(), panel.node.clientWidth);
    globalThis.Plotly.react(panel.node, data, layout, { displayModeBar: false, staticPlot: false });
    if (!panel.bound) {
      panel.bound = true;
      panel.node.on("plotly_click", (event) => clicked(panel, event.points?.[0]));
    }
    describe(panel);
    if (panel.kind !== "map") return;
    document.getElementById("first")?.remove(); // the live map stands where its first sight stood
    nameGroups(); // a group that was folded away may have come
  }

  /* A click on a layer opens its modules; on the map of modules it closes them. */
  function clicked(panel, point) {
    if (!point || panel.kind === "static" || panel.kind === "energy") return;
    open(panel.kind === "map" && state.detail !== null ? null : Number(point.y));
  }

  function open(layer) {
    state.detail = layer !== null && state.family.layers[layer] !== undefined ? layer : null;
    const chooser = find("map")?.element.querySelector("select");
    if (chooser) chooser.value = state.detail === null ? "" : String(state.detail);
    redraw(find("map"));
  }

  /* Text twins: label, caption and, where it is open, the table. */
  function describe(panel) {
    const { tables, percent } = globalThis.amalgamFigures;
    const { value, element, node } = panel;
    const { totals } = state, live = totals && panel.kind !== "static";
    const of = state.plan?.settings.linears ? " of the linear layers" : "";
    const told = () => ` Kept${of}: ${percent(totals.entries)} of the entries, ${percent(totals.l2)} of the energy.`;
    const kept = live ? told() : "";
    const summary = value.summary + kept;
    node.setAttribute("aria-label", summary);
    element.querySelector("figcaption").textContent = summary;
    element.querySelector(".note").textContent = notes(panel);
    const box = element.querySelector(".as-table");
    if (box.hidden) return;
    const { head, rows } = value.table || tables[panel.kind](state);
    const cell = (tag) => (text, index) => make(index ? tag : "th", { textContent: text });
    const row = (cells, tag) => make("tr", {}, ...cells.map(cell(tag)));
    const body = make("tbody", {}, ...rows.map((cells) => row(cells, "td")));
    box.replaceChildren(make("table", {}, make("thead", {}, row(head, "th")), body));
  }

  const notes = ({ value }) => (value.notes && state.plan && value.notes[state.plan.settings.prune]) || value.note || "";

  /* The controls in a panel's corner. */
  function tools(panel) {
    const bar = panel.element.querySelector(".tools");
    const chosen = (label, options, current, act) => {
      const list = make("select", { ariaLabel: label }, ...options.map(([name, value]) => make("option", { textContent: name, value })));
      list.value = current;
      list.addEventListener("change", () => { act(list.value); });
      return list;
    };
    const title = panel.element.querySelector("h3")?.textContent ?? "";
    const table = make("button", { type: "button", textContent: "Table", title: "Show as table", ariaLabel: `Table: ${title}` });
    table.addEventListener("click", () => {
      const box = panel.element.querySelector(".as-table");
      box.hidden = !box.hidden;
      table.ariaPressed = String(!box.hidden);
      describe(panel);
    });
    const parts = [table];
    if (panel.kind === "map") {
      const layers = state.family.layers.map((layer, index) => [`Layer ${layer}`, String(index)]);
      const act = (value) => open(value === "" ? null : Number(value));
      parts.unshift(chosen("Rows of the map", [["All layers", ""], ...layers], state.detail ?? "", act));
    }
    if (panel.kind === "retention") {
      const experts = state.family.looks.map((look, index) => [look.name, String(index)]);
      const measures = [["Entries", "entries"], ["L1", "l1"], ["Energy", "l2"]];
      const change = (key, read) => (value) => { state[key] = read(value); redraw(panel); };
      parts.unshift(
        chosen("Measure", measures, state.measure, change("measure", String)),
        chosen("Expert", [["All experts", "-1"], ...experts], String(state.expert), change("expert", Number)));
    }
    table.ariaPressed = String(!panel.element.querySelector(".as-table").hidden);
    bar.replaceChildren(...parts);
  }

  /* The finding: parts of a sentence, numbers marked by what they measure, and the reason. */
  function say(element, { parts, reason }) {
    const part = ([text, measure]) => (measure ? make("em", { textContent: text, className: measure }) : text);
    element.querySelector("h2").replaceChildren(...parts.map(part));
    element.querySelector("p.quiet").textContent = reason;
  }

  function headline(panel) {
    const { sentence } = panel.value;
    say(panel.element, panel.value);
    panel.element.classList.remove("is-moving");
    panel.element.querySelector("[role=status]").textContent = sentence;
    if (accept()) for (const kind of ["map", "retention", "energy"]) redraw(find(kind));
  }

  /* Takes the server's exact numbers where they answer the controls as they stand. */
  function accept() {
    const { exact, asked } = find("headline")?.value ?? {};
    const text = JSON.stringify; // lists of experts too
    const of = (name) => (name === "base" || name === "experts" ? state.chosen : state.values);
    const same = (name) => !of(name) || text(asked[name]) === text(of(name)[name]);
    const current = exact && Object.keys(asked).every(same);
    state.exact = current ? exact : null;
    const { offsets } = find("headline")?.value ?? {};
    const { family } = state;
    if (current && family && offsets && text(offsets) !== text(family.offsets)) {
      Object.assign(family, { offsets, curveKey: null }); // outlier knobs move them
      replan();
    }
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
    if (!panel.value) return clear(panel);
    if (panel.kind === "headline") return headline(panel);
    if (panel.value.family) adopt(panel.value);
    if (panel.kind !== "static" && !state.family) return;
    tools(panel);
    redraw(panel);
  }

  /* Nothing to show: an empty panel, and no questions to the server. */
  function clear(panel) {
    if (panel.kind === "map") Object.assign(state, { family: null, chosen: null, plan: null, totals: null, exact: null });
    if (panel.bound) globalThis.Plotly.purge(panel.node);
    panel.bound = false;
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
    Object.assign(state, { family: now, plan: null, ...looked(before, now) });
    accept();
    replan();
    nameGroups();
    if (state.moves) rest(); // the controls may have moved meanwhile
    for (const panel of panels) if (panel.value && panel.kind !== "headline") tools(panel);
    redraw();
    return state;
  }

  /* What was looked at, where the new family has it too: the open layer, the chosen expert. */
  function looked(before, now) {
    const named = (one) => one.looks.map((look) => look.name);
    const same = before && String(before.layers) === String(now.layers);
    const expert = before && state.expert >= 0 ? named(now).indexOf(named(before)[state.expert]) : -1;
    return { detail: same ? state.detail : null, expert };
  }

  /* Names the groups of choices for screen readers: their headings are plain text. One name for
     the buttons of a group makes it one stop of the Tab key, with arrow keys inside. */
  function nameGroups() {
    const groups = [...document.querySelectorAll("fieldset:not(.choices)")];
    const heading = (group) => group.querySelector("[data-testid=block-info]");
    groups.forEach((group, index) => {
      group.ariaLabel = heading(group)?.textContent.trim() ?? null;
      for (const button of group.querySelectorAll("input[type=radio]")) button.name = `choice-${index}`;
    });
    if (!groups.some((group) => group.ariaLabel)) setTimeout(nameGroups, 100); // not on the page yet
  }

  document.addEventListener("click", ({ target }) => {
    if (target.closest?.(".label-wrap")) setTimeout(nameGroups, 100); // what unfolds may hold groups
  });

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

  /* A number box that is left empty gets back what it held; Gradio would take the lowest number. */
  const boxed = ({ target }) => (target.matches?.(".card input[type=number]") ? target : null);
  document.addEventListener("focusin", (event) => {
    const box = boxed(event);
    if (box) box.dataset.held = box.value;
  });
  document.addEventListener("input", (event) => {
    const box = boxed(event);
    if (box?.value) box.dataset.held = box.value;
  }, true);
  document.addEventListener("blur", (event) => {
    const box = boxed(event);
    if (!box || box.value || !box.dataset.held) return;
    box.value = box.dataset.held;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);

  new MutationObserver(() => redraw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  globalThis.amalgam = { mount, set, clamp, within, adopt, say, state };
})();
