"use strict";
/* The first sight: draws the first family's map on a canvas while the page's framework is still
   loading, from the same histograms and with the same planner as the live panel, which removes it
   (panel.js). */
(() => {
  const frame = document.getElementById("first");
  const value = (id) => {
    const found = globalThis.gradio_config?.components.find(({ props }) => props.elem_id === id);
    return found?.props.value ? JSON.parse(found.props.value) : null;
  };

  /* Ticks and names, as plotly.js writes them. */
  function labels(brush, { x, y, across, down }, { name, glyph, colour }, colours) {
    const { css } = globalThis.amalgamMap;
    const font = (size) => { brush.font = `${size}px ${getComputedStyle(frame).fontFamily}`; };
    const middle = (across(10 ** x.range[0]) + across(10 ** x.range[1])) / 2, foot = down(y.range[0]);
    brush.textAlign = "center";
    brush.fillStyle = css(colours.soft);
    font(12);
    x.tickvals.forEach((at, index) => brush.fillText(x.ticktext[index], across(at), foot + 18));
    brush.fillText("|change|", middle, foot + 32);
    brush.textAlign = "right";
    const left = across(10 ** x.range[0]) - 8;
    if (y.showticklabels) y.tickvals.forEach((at, index) => brush.fillText(y.ticktext[index], left, down(at) + 4));
    font(13);
    brush.textAlign = "left";
    const wide = brush.measureText(`${glyph} ${name}`).width, head = down(y.range[1]) - 8;
    brush.fillStyle = colour;
    brush.fillText(glyph, middle - wide / 2, head);
    brush.fillStyle = css(colours.ink);
    brush.fillText(` ${name}`, middle - wide / 2 + brush.measureText(glyph).width, head);
  }

  function start() {
    const asked = new URLSearchParams(location.search).get("__theme");
    const dark = asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.body.classList.toggle("dark", dark); // as Gradio will
    const map = value("map"), finding = value("headline");
    if (map?.family && finding) {
      const state = globalThis.amalgam.adopt(map), colours = globalThis.amalgamMap.palette();
      globalThis.amalgam.say(frame.querySelector(".finding"), finding);
      frame.querySelector(".note").textContent = map.notes[state.values.prune];
      const canvas = frame.querySelector("canvas");
      const looks = globalThis.amalgamMap.looks(state, colours);
      const beside = (brush, trace, scales) => labels(brush, scales, looks[trace.meta.expert], colours);
      globalThis.amalgamBrush.paint(canvas, globalThis.amalgamMap.map(map.figure, state, colours, canvas.clientWidth), { beside });
    } else frame.remove();
    setTimeout(() => frame.remove(), 20_000); // whatever went wrong below must be seen
    const leave = ({ target }) => { if (target.closest?.("[role=tab]")) frame.remove(); };
    document.addEventListener("click", leave, true); // another tab is not to stand beneath it
  }

  if (frame) start();
})();
