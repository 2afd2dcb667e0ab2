"use strict";
/* The other of two settings (ui/explore/beside.py): its cuts in the map, dashed beside those of the
   controls, and the switch to it, which is drawn before the server has answered. */
(() => {
  let told = null; // by the server; null where there is no other side, or it is the same
  let last = null; // the plan that was made of it, for which family, and its strokes

  /* The other side's plan for the family on the page; null where it cannot be drawn there. */
  function planned({ family, chosen, laws }) {
    if (!told || !family || !chosen || told.values.base !== chosen.base) return null;
    if (last?.told === told && last.family === family) return last.plan;
    const places = chosen.experts.map((model) => told.values.experts.indexOf(model));
    const fits = places.some((place) => place >= 0) && told.offsets[0].length === family.cells;
    last = { told, family, strokes: new Map(), plan: fits ? made(family, laws, places) : null };
    return last.plan;
  }

  /* Over the experts on the page; one that the other side leaves out has no part in it. */
  function made(family, laws, places) {
    const { settings, plan } = globalThis.amalgamPlan;
    const of = (rows) => rows && places.map((place) => rows[Math.max(place, 0)]);
    const asked = { ...settings(told.values, laws), densities: of(told.densities) };
    asked.weights = places.map((place) => (place < 0 ? 0 : told.values[`weight.${place}`]));
    return { ...plan({ ...family, offsets: of(told.offsets) }, asked), has: places.map((place) => place >= 0), side: told.side };
  }

  const isCut = ({ settings }) => settings.order === "largest" && globalThis.amalgamPlan.lastRing(settings.factors) >= 0;

  /* Traces of its cuts over the map's rows; with its name, where there are any. */
  function strokes(state, rows, colours) {
    const plan = planned(state), { css, lines } = globalThis.amalgamMap;
    if (!plan || !isCut(plan)) return [];
    const key = String(state.detail);
    if (!last.strokes.has(key)) {
      const drawn = plan.has.map((has, expert) => (has ? lines({ ...state, plan }, expert, rows, "cut") : null));
      last.strokes.set(key, drawn);
    }
    const traces = last.strokes.get(key).flatMap((points, expert) => (points ? [{
      type: "scatter", mode: "lines", hoverinfo: "skip", xaxis: `x${expert ? expert + 1 : ""}`, yaxis: `y${expert ? expert + 1 : ""}`,
      meta: { role: "other", expert }, ...points, line: { width: 1.7, dash: "3px,2.5px", color: css(colours.ink) },
    }] : []));
    return Object.assign(traces, { side: plan.side });
  }

  /* The map's legend in words; "" where there is no other side to draw. */
  function legend(state) {
    const plan = planned(state);
    if (!plan) return "";
    if (isCut(plan)) return `Dashed: ${plan.side}\u2019s cut`;
    return plan.settings.order === "random" ? `${plan.side} prunes at random: it has no cut` : `${plan.side} cuts nothing`;
  }

  /* A person chose the other side: its values are drawn at once, where the family is the same. Until
     the server speaks of it again, the side that was left is the other. */
  function choose({ target }) {
    const { state, foreshow } = globalThis.amalgam ?? {}, from = told;
    if (!target.matches?.("#side input") || !from || target.value !== from.side || !state.family) return;
    const same = (name) => JSON.stringify(from.values[name]) === JSON.stringify(state.chosen[name]);
    if (!planned(state) || !same("base") || !same("experts")) return;
    const side = [...document.querySelectorAll("#side input")].find(({ value }) => value !== from.side).value;
    told = { side, values: state.values, offsets: state.family.offsets, densities: state.plan.settings.densities };
    foreshow(from);
  }

  function mount(props, watch) {
    const read = () => {
      told = props.value ? JSON.parse(props.value) : null;
      globalThis.amalgam.redraw("map");
    };
    watch("value", read);
    read();
  }

  document.addEventListener("change", choose, true);
  globalThis.amalgamBeside = { mount, planned, strokes, legend };
})();
