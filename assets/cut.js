"use strict";
/* The cut in the histogram: an upright line that is dragged, or moved with the keys, and moves the
   pruning rate with it. */
(() => {
  const plots = () => globalThis.amalgamHistogram; // scripts load in any order
  const LIMIT = { low: 0, high: 0.99, step: 0.01 }; // of the control
  const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };

  /* Pixels from the figure's left edge <-> the logarithm of a magnitude. */
  function scale(panel, state) {
    const { MARGIN, range } = plots(), [low, high] = range(state), wide = panel.node.clientWidth - MARGIN.l - MARGIN.r;
    return {
      left: MARGIN.l, wide,
      right: (at) => MARGIN.l + ((at - low) / (high - low)) * wide,
      at: (pixel) => low + ((pixel - MARGIN.l) / wide) * (high - low),
    };
  }

  const rate = (state) => Number((1 - state.plan.settings.density).toFixed(6));

  /* Puts the line where the cut is. */
  function place(panel, state) {
    const handle = panel.handle, { MARGIN, HEIGHT, cut, place: where } = plots(), at = cut(state);
    handle.hidden = at === null;
    if (at === null) return;
    const { left, wide, right } = scale(panel, state);
    const pixel = right(Math.log10(Math.max(at, 1e-30))), inside = Math.min(Math.max(pixel, left), left + wide);
    handle.style.cssText = `left:${inside}px;top:${MARGIN.t - 14}px;height:${HEIGHT - MARGIN.t - MARGIN.b + 14}px`;
    handle.classList.toggle("is-outside", Math.abs(pixel - inside) > 1);
    handle.classList.toggle("is-left", inside > left + wide - 90);
    const name = state.family.looks[state.filled].name, value = rate(state).toFixed(2);
    handle.lastChild.textContent = `rate ${value}`;
    Object.assign(handle, {
      ariaLabel: `Pruning rate, as the cut of ${name} in ${where(state)}`, ariaValueNow: value,
      ariaValueText: `rate ${value}, cut at ${globalThis.amalgamMap.magnitude(at)}`,
    });
  }

  /* Once for each panel: the handle, and zooming. `move(control, value)`, `redraw(panel)`. */
  function bind(panel, state, { move, redraw }) {
    const figure = panel.node.parentElement, { make } = globalThis.amalgamTools;
    figure.querySelector(".cut")?.remove();
    const handle = make("div", { className: "cut", role: "slider", tabIndex: 0, hidden: true }, make("span", { className: "knob" }), make("span", { className: "says" }));
    Object.assign(handle, { ariaValueMin: String(LIMIT.low), ariaValueMax: String(LIMIT.high), ariaOrientation: "horizontal" });
    panel.handle = handle;
    figure.append(handle);
    const to = (value) => {
      const next = Math.min(LIMIT.high, Math.max(LIMIT.low, Number(value.toFixed(6))));
      if (next !== rate(state)) move("rate", next);
    };
    let grip = null;
    handle.addEventListener("pointerdown", (event) => {
      const centre = handle.getBoundingClientRect();
      grip = event.clientX - (centre.left + centre.width / 2);
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      handle.focus();
    });
    handle.addEventListener("pointermove", (event) => {
      if (grip === null) return;
      const pixel = event.clientX - grip - figure.getBoundingClientRect().left;
      const { family, plan, filled } = state, magnitude = 10 ** scale(panel, state).at(pixel);
      to(globalThis.amalgamPlan.rateAt(family, plan.settings, filled, plots().cells(state), magnitude, LIMIT));
      place(panel, state); // before the bars follow
    });
    for (const end of ["pointerup", "pointercancel"]) handle.addEventListener(end, () => { grip = null; });
    handle.addEventListener("keydown", (event) => {
      const ends = { Home: LIMIT.low, End: LIMIT.high };
      if (!(event.key in KEYS) && !(event.key in ends)) return;
      event.preventDefault();
      to(ends[event.key] ?? rate(state) + KEYS[event.key] * LIMIT.step);
    });
    panel.node.on("plotly_relayout", (change) => {
      const low = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0], high = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
      if (low === undefined || high === undefined) return;
      const [first, last] = plots().whole(state);
      state.zoom = low <= first && high >= last ? null : [Math.max(low, first), Math.min(high, last)];
      redraw(panel);
    });
    panel.node.on("plotly_doubleclick", () => { state.zoom = null; redraw(panel); });
  }

  globalThis.amalgamCut = { bind, place };
})();
