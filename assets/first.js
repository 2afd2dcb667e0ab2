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

  /* Plotly's picture of the map, painted without Plotly: heatmaps, strokes, ticks and names. */
  function paint(canvas, { data, layout }, looks, colours) {
    const scale = globalThis.devicePixelRatio || 1, { css } = globalThis.amalgamMap;
    canvas.width = layout.width * scale;
    canvas.height = layout.height * scale;
    canvas.style.height = `${layout.height}px`;
    const brush = canvas.getContext("2d");
    brush.scale(scale, scale);
    const axes = (trace) => {
      const x = layout[trace.xaxis.replace("x", "xaxis")], y = layout[trace.yaxis.replace("y", "yaxis")];
      const along = (at, [low, high], [from, to]) => from + ((at - low) / (high - low)) * (to - from);
      return {
        x, y, right: (at) => layout.width * along(Math.log10(at), x.range, x.domain),
        down: (at) => layout.height * (1 - along(at, y.range, y.domain)),
      };
    };
    for (const trace of data) {
      const { x, y, right, down } = axes(trace);
      const edge = layout.width * x.domain[0];
      brush.save();
      brush.beginPath();
      brush.rect(edge, down(y.range[1]), layout.width * x.domain[1] - edge, down(y.range[0]) - down(y.range[1]));
      brush.clip();
      if (trace.type === "heatmap") cells(brush, trace, right, down);
      else stroke(brush, trace, right, down);
      brush.restore();
      if (trace.type === "heatmap") labels(brush, { x, y, right, down }, looks[trace.meta.expert], css, colours);
    }
  }

  function cells(brush, { x, z, zmax, ygap, colorscale }, right, down) {
    const mix = (low, high, share) => {
      const [a, b] = [low, high].map((text) => text.match(/\d+/g).map(Number));
      return globalThis.amalgamMap.css(globalThis.amalgamMap.mix(a, b, share));
    };
    z.forEach((row, index) => {
      const top = down(index - 0.5) + ygap / 2, high = down(index + 0.5) - down(index - 0.5) - ygap;
      row.forEach((value, bin) => {
        if (value === null) return;
        const band = Math.min(Math.floor(value), zmax - 1);
        brush.fillStyle = mix(colorscale[2 * band][1], colorscale[2 * band + 1][1], value - band);
        const from = right(x[bin]);
        brush.fillRect(from, top, right(x[bin + 1]) - from + 0.4, high);
      });
    });
  }

  function stroke(brush, { x, y, line }, right, down) {
    brush.strokeStyle = line.color;
    brush.lineWidth = line.width;
    brush.beginPath();
    for (let at = 0; at < x.length; at += 3) {
      brush.moveTo(right(x[at]), down(y[at]));
      brush.lineTo(right(x[at + 1]), down(y[at + 1]));
    }
    brush.stroke();
  }

  function labels(brush, { x, y, right, down }, { name, glyph, colour }, css, colours) {
    const font = (size) => { brush.font = `${size}px ${getComputedStyle(frame).fontFamily}`; };
    const middle = (right(10 ** x.range[0]) + right(10 ** x.range[1])) / 2, foot = down(y.range[0]);
    brush.textAlign = "center";
    brush.fillStyle = css(colours.soft);
    font(12);
    x.tickvals.forEach((at, index) => brush.fillText(x.ticktext[index], right(at), foot + 18));
    brush.fillText("|change|", middle, foot + 32);
    brush.textAlign = "right";
    const left = right(10 ** x.range[0]) - 8;
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
      paint(canvas, globalThis.amalgamMap.map(map.figure, state, colours, canvas.clientWidth), globalThis.amalgamMap.looks(state, colours), colours);
    } else frame.remove();
    setTimeout(() => frame.remove(), 20_000); // whatever went wrong below must be seen
    const leave = ({ target }) => { if (target.closest?.("[role=tab]")) frame.remove(); };
    document.addEventListener("click", leave, true); // another tab is not to stand beneath it
  }

  if (frame) start();
})();
